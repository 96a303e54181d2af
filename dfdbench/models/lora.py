"""Fuses a LoRA into the network that it was made for: W ← W + s · (α / r) · B A.

Used where public few-step students are imported. The layouts are diffusers' and PEFT's (`lora_A`,
`lora_B`), kohya's and musubi's (`lora_down`, `lora_up`, `alpha`, names with underscores), and
LightX2V's additions: `diff` is added to a weight, `diff_b` to a bias, `diff_m` to a modulation.
Without `alpha` in the file or beside it, α is r, as diffusers has it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor, nn

from dfdbench.models.family import ModelFamily
from dfdbench.models.weight_files import bare
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Open, parse_json, read_json, validate
from dfdbench.utils.weights import fault_of

PIECES = {  # end of a name -> what it is
    "lora_A.weight": "down", "lora_down.weight": "down", "lora.down.weight": "down",
    "lora_B.weight": "up", "lora_up.weight": "up", "lora.up.weight": "up",
    "lora_A": "down", "lora_B": "up", "lora_B.bias": "up_bias", "alpha": "alpha",
    "diff": "diff", "diff_b": "diff_b", "diff_m": "diff_m",
}  # fmt: skip
ADDED = {"diff": ("weight",), "diff_b": ("bias",), "diff_m": ("modulation", "scale_shift_table")}
OTHER = re.compile(r"lokr_|hada_|oft_|lora_mid|dora_scale|lora_magnitude|boft_")
ADAPTER = re.compile(r"\.(lora_[AB])\.(?!weight$|bias$)([^.]+)\.(weight|bias)$")
KOHYA = ("lora_unet_", "lora_transformer_")
BESIDE = "adapter_config.json"  # PEFT's, in the folder of the file
METADATA = "lora_adapter_metadata"  # diffusers', in the file's head
REMEDY = "give a LoRA of this base, or merge it with its own program and give the whole student"


class Scale(Open):
    """What PEFT and diffusers say of a LoRA beside its weights."""

    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default={})
    use_rslora: bool = False
    use_dora: bool = False

    def alpha_of(self, stem: str) -> float | None:
        """α of a layer where it is said; None: it is the rank."""
        own = (a for key, a in self.alpha_pattern.items() if f".{stem}".endswith(f".{key}"))
        return next(own, self.lora_alpha)


class Fused(NamedTuple):
    """What a LoRA did: the weights that it changed, and its own names that fit no weight."""

    changed: list[str]
    unmatched: list[str]


def is_lora(names: Iterable[str]) -> str:
    """The first name that only a LoRA has; empty if there is none."""
    return next((name for name in names if _split(name) or OTHER.search(name)), "")


def _split(name: str) -> tuple[str, str] | None:
    """The layer that a name is about, as the file calls it, and what it is of it."""
    name = ADAPTER.sub(r".\1.\3", name)
    for end in sorted(PIECES, key=len, reverse=True):
        if name.endswith(f".{end}"):
            return name.removesuffix(f".{end}"), PIECES[end]
    return None


def read_scale(path: Path) -> Scale:
    """What lies beside a LoRA file, or in its head; empty where nothing is said.

    Raises:
        UserError: it cannot be read, or asks for DoRA or rank-stabilised scaling.
    """
    said: dict[str, Any] = {}
    if (beside := path.parent / BESIDE).is_file():
        said, path = read_json(beside, dict[str, Any], REMEDY), beside
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA, "{}")
        table = validate(dict[str, Any], parse_json(text, path, REMEDY), path, REMEDY)
        said = {key.rpartition(".")[2]: value for key, value in table.items()}
    scale = validate(Scale, said, path, REMEDY)
    for key in ("use_dora", "use_rslora"):
        if getattr(scale, key):
            raise UserError(f"{path}: {key} is set, which is not fused here; {REMEDY}")
    return scale


def fuse(
    path: Path,
    content: Mapping[str, Any],
    module: nn.Module,
    family: ModelFamily,
    strength: float = 1.0,
    scale: Scale | None = None,
) -> Fused:
    """Add a LoRA to the weights of `module`, in place.

    Args:
        path: named in messages.
        content: what `read_tensors` gave of it.
        module: the base's denoiser, float32.
        strength: s.
        scale: α where `content` has none.

    Raises:
        UserError: another kind of adapter, half a pair, another shape than the base's, weights that
            are not finite, or no name that fits a weight of the base.
    """
    layers = _layers(path, content)
    table = _table(module, family)
    changed: dict[str, None] = {}
    unmatched: list[str] = []
    for stem, pieces in layers.items():
        for kind, leaves, delta in _deltas(path, stem, pieces, scale or Scale()):
            target = next((table[stem, leaf] for leaf in leaves if (stem, leaf) in table), None)
            if target is None:
                unmatched += [pieces[part][0] for part in kind.split() if part in pieces]
                continue
            _add(path, module, target, strength, *delta)
            changed[target] = None
    if not changed:
        raise UserError(
            f"{path}: none of its {len(content)} weights, such as {min(content)}, fits a layer of "
            f"{family.path}; {REMEDY}"
        )
    return Fused([*changed], sorted(unmatched))


Pieces = dict[str, tuple[str, Tensor]]  # down, up, alpha, … -> name in the file, and value


def _layers(path: Path, content: Mapping[str, Any]) -> dict[str, Pieces]:
    """What a file has of each layer; names that are nothing of a LoRA are pieces of their own."""
    layers: dict[str, Pieces] = defaultdict(dict)
    for name, value in content.items():
        if OTHER.search(name):
            raise UserError(f"{path}: {name} is of another kind of adapter than LoRA; {REMEDY}")
        whole = name.endswith(".alpha") or (isinstance(value, Tensor) and value.is_floating_point())
        if not whole or not isinstance(value, Tensor):
            raise UserError(f"{path}: {name} is no weight of a LoRA; {REMEDY}")
        stem, kind = _split(name) or (name, "other")
        stem = bare(stem)
        for prefix in KOHYA:
            stem = stem.removeprefix(prefix)
        if kind in layers[stem]:
            raise UserError(f"{path}: has {name} and {layers[stem][kind][0]}; keep one adapter")
        layers[stem][kind] = (name, value)
    if fault := fault_of((n, v) for n, v in content.items() if v.is_floating_point()):
        raise UserError(f"{path}: {fault}; {REMEDY}")
    return layers


def _deltas(
    path: Path, stem: str, pieces: Pieces, scale: Scale
) -> list[tuple[str, tuple[str, ...], tuple[float, Tensor]]]:
    """What a layer's pieces add: names of the pieces, ends of the weight, (factor, values)."""
    result: list[tuple[str, tuple[str, ...], tuple[float, Tensor]]] = []
    if half := {"down", "up"} & pieces.keys():
        if len(half) == 1:
            raise UserError(f"{path}: has {pieces[half.pop()][0]} without its other half; {REMEDY}")
        (down_name, down), (_, up) = pieces["down"], pieces["up"]
        rank = down.shape[0] if down.ndim > 1 else 0
        if not rank or up.ndim < 2 or up[0].numel() != rank:
            raise UserError(
                f"{path}: {down_name} is {[*down.shape]} and its other half {[*up.shape]}, which "
                f"have no rank in common; {REMEDY}"
            )
        alpha = float(pieces["alpha"][1]) if "alpha" in pieces else scale.alpha_of(stem)
        factor = 1.0 if alpha is None else alpha / rank
        product = up.float().flatten(1) @ down.float().flatten(1)
        shape = (*up.shape[:1], *down.shape[1:])
        result.append(("down up alpha", ("weight",), (factor, product.reshape(shape))))
        if "up_bias" in pieces:
            result.append(("up_bias", ("bias",), (factor, pieces["up_bias"][1].float())))
    elif "alpha" in pieces or "up_bias" in pieces:
        result.append(("alpha up_bias", (), (1.0, torch.empty(0))))
    for kind, leaves in ADDED.items():
        if kind in pieces:
            result.append((kind, leaves, (1.0, pieces[kind][1].float())))
    if "other" in pieces:
        result.append(("other", (), (1.0, torch.empty(0))))
    return result


def _table(module: nn.Module, family: ModelFamily) -> dict[tuple[str, str], str]:
    """(layer, weight in it) -> parameter, by diffusers' and by the original names, with dots or, as
    kohya has them, underscores."""
    table = {}
    for target, _ in module.named_parameters():
        for name in (target, family.original_name(target)):
            layer, _, leaf = name.rpartition(".")
            table[layer, leaf] = table[layer.replace(".", "_"), leaf] = target
    return table


@torch.no_grad()
def _add(
    path: Path, module: nn.Module, target: str, strength: float, factor: float, delta: Tensor
) -> None:
    weight = module.get_parameter(target)
    if delta.shape != weight.shape:
        raise UserError(
            f"{path}: changes {target} by {[*delta.shape]}, the base's is {[*weight.shape]}; "
            f"{REMEDY}"
        )
    weight.copy_(weight + strength * factor * delta.to(weight.device))
