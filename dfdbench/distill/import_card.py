"""A published few-step student as a run, sampled as its card says.

Used by cli. Weights are a whole student or a LoRA, which is fused into the base. No second stage
starts from such a run: it has no fake score.
"""

from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import init_empty_weights
from torch import nn

from dfdbench.distill.cards import Card, check_fits, find_card, load_card
from dfdbench.distill.recipe import recipe_from_dict
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import resolve, sampling
from dfdbench.models.difference import relative_difference
from dfdbench.models.family import ModelFamily
from dfdbench.models.lora import fuse, is_lora, read_scale
from dfdbench.models.registry import load_family
from dfdbench.models.scheduler import CLOSE, CONFIG
from dfdbench.models.wan_causal_import import check_same_model
from dfdbench.models.weight_files import SUFFIXES, read_tensors, whole_weights
from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.files import sha256_file
from dfdbench.utils.manifest import capped, listed
from dfdbench.utils.progress import say
from dfdbench.utils.reading import plain, read_json
from dfdbench.utils.run import RUN_FILE, Run, weights_sha256

METHOD = "dmd2"  # of the recipe, whose form asks for one; run.json says "imported"
REMEDY = "give a diffusers folder, a file of weights or a LoRA"
MOST = 50  # unmatched names that run.json keeps


class Source(NamedTuple):
    """Where a student's weights are: a file, or a folder of safetensors with their config."""

    path: Path
    config: dict[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return sha256_file(self.path) if self.path.is_file() else weights_sha256(self.path)


@memory_remedy("a network and its file must fit the memory; take a machine with more")
def import_published(
    weights: str | Path, card: str | Path, model: str, out: str | Path, strength: float = 1.0
) -> Run:
    """Make the run folder of a published student.

    Args:
        weights: a diffusers folder, whole or of the transformer alone, a file of weights, or a
            LoRA's file or folder.
        card: name or file of the card that says how it is sampled.
        model: the base that it was made from: a diffusers folder, a hub id or a packaged name.
        out: run folder to make; it takes its run.json when the student in it is whole.
        strength: of a LoRA.

    Raises:
        UserError: `out` holds a run; the card does not fit the model or the weights, or cannot be
            sampled here; the weights are no student of the model, or the base's own.
    """
    weights, out = Path(weights), Path(out)
    if (out / RUN_FILE).exists():
        raise UserError(f"{out} already holds a run; choose another --out")
    if not strength or not isfinite(strength):
        raise UserError(f"--strength {strength:g}: fuses no LoRA; give a number other than 0")
    read = load_card(card)
    family = load_family(model)
    check_fits(read, str(card), family, model)
    source = _source(weights)
    if source.config is not None:
        _check_config(weights, source.config, read, str(card), family)
    _check_schedule(weights, read, str(card))
    module, facts = _student(source, read, family, strength)
    difference = relative_difference(module, family.path / "transformer")
    if not difference:
        raise UserError(
            f"{weights}: these are the base's own weights; give those of the student, or the "
            "--model that it was made from"
        )
    if read.causal:
        module = family.as_causal(module, read.causal)
    recipe = resolve(_recipe(read, family, model), family.defaults)
    family.save_student(module, out / "student", sampling(recipe))
    say(f"difference to the base: {difference:.3g} of its norm, over all weights")
    if read.unverified:
        say(f"not verified: {read.unverified}")
    return Run.create(
        out,
        {
            "arm": recipe.arm,
            "method": "imported",
            "model": model,
            "recipe": recipe.as_dict(),
            "imported": {
                "file": weights.resolve().name,
                "sha256": source.sha256,
                "card": Path(card).stem,
                "card_sha256": sha256_file(find_card(card)),
                "says": plain(read),
                "relative_difference": difference,
                **facts,
            },
            "teacher_sha256": weights_sha256(family.path / "transformer"),
            "student_sha256": weights_sha256(out / "student" / "transformer"),
            "status": "finished",
        },
    )


def _source(path: Path) -> Source:
    """The weights in a path; UserError where nothing there can be told to be them."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; {REMEDY}")
    if path.is_file():
        return Source(path)
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return Source(folder, read_json(folder / "config.json", dict[str, Any], REMEDY))
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        found = f"{len(files)} files of weights, {listed([f.name for f in files], 3)}"
        raise UserError(
            f"{path}: has no transformer/config.json and {found if files else 'no weights'}; "
            f"{'name one of them' if files else REMEDY}"
        )
    return Source(files[0])


def _check_config(
    path: Path, config: dict[str, Any], card: Card, name: str, family: ModelFamily
) -> None:
    """Refuse a folder of another network than the base's, or bidirectional where the card is causal
    and the reverse."""
    kind = config.get("_class_name")
    causal = family.causal.network if family.causal else None
    kinds = {family.network.__name__: family.network}
    if causal is not None:
        kinds[causal.__name__] = causal
    if kind not in kinds:
        raise UserError(
            f"{path}: its transformer is a {kind}, the base's a {family.network.__name__}; "
            "give a student of --model"
        )
    with init_empty_weights():
        module: Any = kinds[kind].from_config(config)
    check_same_model(path, module.config, family)
    if causal is not None and isinstance(module, causal):
        own = family.causal.layout(module) if family.causal else None
        if own != card.causal:
            wanted = card.causal or "a bidirectional student"
            raise UserError(
                f"{path}: is a causal student of {own}, the card {name} is of {wanted}; take the "
                "card of this student"
            )
    elif card.causal:
        raise UserError(
            f"{path}: is a bidirectional {kind}, the card {name} is of a causal student; take the "
            "card of this student, or give its file of weights instead of the folder"
        )


def _check_schedule(path: Path, card: Card, name: str) -> None:
    """Refuse a folder whose own scheduler has a student's times, when the card has others."""
    if not (path / CONFIG).is_file():
        return
    config = read_json(path / CONFIG, dict[str, Any], REMEDY)
    times = config.get("student_times")
    if not isinstance(times, list):
        return
    sampler = "sde" if config.get("stochastic_sampling") else "ode"
    close = len(times) == len(card.grid) and all(
        isinstance(own, float | int) and abs(own - time) < CLOSE
        for own, time in zip(times, card.grid, strict=True)
    )
    if not close or sampler != card.sampler:
        raise UserError(
            f"{path}: its scheduler samples at {times} by {sampler}, the card {name} at "
            f"{[*card.grid]} by {card.sampler}; take the card of this student"
        )


def _student(
    source: Source, card: Card, family: ModelFamily, strength: float
) -> tuple[nn.Module, dict[str, Any]]:
    """The student's bidirectional network (float32), and what run.json says of how it was made."""
    content = read_tensors(source.path)
    if is_lora(content):
        return _fused(source.path, content, family, strength)
    if strength != 1:
        raise UserError(
            f"--strength {strength:g}: {source.path} is a whole student, no LoRA; leave it out"
        )
    weights = whole_weights(source.path, content, family, card.leaves_out)
    left_out = [n for n in content if any(part in n for part in card.leaves_out)]
    if left_out:
        say(f"left out, as the card says: {listed(left_out, 3)}")
    module = family.new_module()
    module.load_state_dict(weights)
    return module, {"kind": "whole", "left_out": len(left_out)}


def _fused(
    path: Path, content: dict[str, Any], family: ModelFamily, strength: float
) -> tuple[nn.Module, dict[str, Any]]:
    module = family.new_module()
    done = fuse(path, content, module, family, strength, read_scale(path))
    for line in capped([f"fits no layer: {name}" for name in done.unmatched], "run.json"):
        say(line)
    return module, {
        "kind": "lora",
        "strength": strength,
        "changed": len(done.changed),
        "unmatched": len(done.unmatched),
        "unmatched_names": done.unmatched[:MOST],
    }


def _recipe(card: Card, family: ModelFamily, model: str) -> Recipe:
    """What sampling needs, in the form that every run has; nothing was trained with it."""
    d = family.defaults
    values = {
        "method": METHOD,
        "arm": card.arm,
        "model": model,
        "family": family.name,
        "data": {name: getattr(d, name) for name in ("frames", "height", "width")},
        "student": plain(card.student),
        **({"schedule": {"shift": card.shift}} if card.shift else {}),
    }
    return recipe_from_dict(values, f"card {card.arm}")
