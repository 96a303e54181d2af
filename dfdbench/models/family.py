"""What every model family is: a diffusers folder with a denoiser, and what the rooms ask of it.

Base of wan.py and cosmos.py, which state their classes and add the text encoder's and the
denoiser's calls. Loading is strict, a saved student is a whole folder of the same layout, and
latents are normalised by the statistics in the autoencoder's config. Latents are (B C T H W)
float32, t is (B,) in (0, 1].
"""

import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dfdbench.models.causal import CausalVariant, Layout
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.defaults import Defaults, read_defaults
from dfdbench.models.loading import (
    MEND,
    PartLoader,
    channels_last,
    load_part,
    loading,
    quiet_libraries,
    read_config,
    save_part,
)
from dfdbench.models.precision import norm_as_given
from dfdbench.models.scheduler import Sampling, write_scheduler
from dfdbench.models.stream_decoder import StreamDecoder
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.folders import atomic_folder, link_tree
from dfdbench.utils.reading import read_json

SHARED_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")

CPU_CELLS = 2560  # latent cells that an autoencoder on the CPU takes at once: more leave its cache


class ModelFamily(ABC):
    """One kind of video model. A family states these attributes, `predict` and `encode_prompt`.

    Attributes:
        name: as recipes and stores write it.
        own_defaults: where the checkpoint's `dfdbench.json` says nothing else.
        network, autoencoder: diffusers classes of the denoiser and the video autoencoder.
        encoder: name of the text encoder's class in transformers.
        block_list, first_layer: names of the blocks and of the first weight inside the denoiser.
        text_width_key: key of the denoiser's config that holds the width of prompt embeddings.
        conditioning_frames: first latent frames that `conditioning.image_latents` gives. `predict`
            keeps them: its v̂ leads there to these latents, and losses leave them out. 0: none.
        hub_ids: what the hub ids of its checkpoints begin with, to tell it without a download.
        causal: the causal variant of `network`; None: there is none.
    """

    name: ClassVar[str]
    own_defaults: ClassVar[Defaults]
    network: ClassVar[Any]
    autoencoder: ClassVar[Any]
    encoder: ClassVar[str]
    block_list: ClassVar[str]
    first_layer: ClassVar[str]
    text_width_key: ClassVar[str]
    conditioning_frames: ClassVar[int] = 0
    hub_ids: ClassVar[tuple[str, ...]] = ()
    causal: ClassVar[CausalVariant | None] = None

    def __init__(
        self, folder: Path, dtype: torch.dtype, device: torch.device, part: PartLoader = load_part
    ) -> None:
        """Nothing is loaded yet.

        Args:
            folder: the checkpoint.
            dtype: of the teacher.
            part: loads denoiser and autoencoder; see `loading.draw_part` for random weights.

        Raises:
            UserError: the folder lacks a part.
        """
        quiet_libraries()
        self.path, self.dtype, self.device, self._load_part = folder, dtype, device, part
        self.defaults = read_defaults(folder, self.own_defaults)
        self.cut_prompts: dict[str, int] = {}  # those longer than is read -> their tokens
        self.unclear_prompt = ""  # one with words that the tokenizer does not have
        for name in ("transformer", *SHARED_PARTS):
            if not (folder / name).is_dir():
                raise UserError(
                    f"{folder} lacks {name}/; give a complete {self.name.capitalize()} diffusers "
                    "folder"
                )

    @abstractmethod
    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """v̂ (B C T H W) float32 of `module` at x_t."""

    @abstractmethod
    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        """Conditioning of B prompts."""

    @cached_property
    def teacher(self) -> nn.Module:
        """The frozen network of the checkpoint, in the family's dtype."""
        folder = self.path / "transformer"
        module = self._load_part(self.network_in(folder), folder, self.dtype)
        return self.adapt(module).to(self.device).eval().requires_grad_(False)

    @cached_property
    def vae(self) -> Any:
        """The frozen autoencoder, in float32."""
        # The reference decodes in float32: bfloat16 shifts colours by more than a grey level.
        vae = self._load_part(self.autoencoder, self.path / "vae", torch.float32).to(self.device)
        return channels_last(vae.eval().requires_grad_(False))

    @cached_property
    def _vae_config(self) -> dict[str, Any]:
        return read_config(self.path / "vae", self.autoencoder)

    @cached_property
    def text_encoder(self) -> tuple[Any, Any]:
        """Tokenizer and encoder."""
        import transformers

        with loading(self.path / "tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.path / "tokenizer", local_files_only=True
            )
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        encoder = load_part(getattr(transformers, self.encoder), self.path / "text_encoder", dtype)
        return tokenizer, nn.Module.to(encoder, self.device).eval().requires_grad_(False)

    def _warn_of_unknown_words(self, prompts: list[str], tokens: Tensor) -> None:
        """Name the first prompt whose tokens (B L) hold the tokenizer's <unk>; some have none."""
        unknown = self.text_encoder[0].unk_token_id
        if unknown is None or self.unclear_prompt:
            return
        bad = (tokens == unknown).any(dim=1).tolist()
        unclear = [prompt for prompt, is_bad in zip(prompts, bad, strict=True) if is_bad]
        if unclear:
            self.unclear_prompt = unclear[0]
            told = f"{self.path.name} does not know every word of all prompts, such as "
            warnings.warn(told + repr(unclear[0][:60]), stacklevel=3)

    def _note_cut(self, prompts: list[str], counts: list[int]) -> None:
        """Remember the prompts whose `counts` of tokens are more than the text encoder is given."""
        most = self.defaults.max_sequence_length
        both = zip(prompts, counts, strict=True)
        self.cut_prompts |= {prompt: n for prompt, n in both if n > most}

    def warn_of_cut_prompts(self, total: int | None = None) -> None:
        """Say how many prompts, of `total` if that is known, were cut since this was last asked."""
        if self.cut_prompts:
            longest = max(self.cut_prompts, key=lambda prompt: self.cut_prompts[prompt])
            warnings.warn(
                f"{self.path.name} reads {self.defaults.max_sequence_length} tokens of a prompt; "
                f"cut there: {len(self.cut_prompts)}{f' of {total}' if total else ''} prompts, the "
                f"longest of {self.cut_prompts[longest]} tokens: {longest[:60]!r}…",
                stacklevel=3,
            )
        self.cut_prompts = {}

    def release(self, *parts: str) -> None:
        """Free the text encoder ("text_encoder") or the autoencoder ("vae") until needed again."""
        for part in parts:
            self.__dict__.pop(part, None)

    def new_module(self) -> nn.Module:
        """A trainable float32 copy of the teacher, for the student or the fake score."""
        return self.load_network(self.path / "transformer")

    def new_causal_module(self, layout: Layout) -> nn.Module:
        """A trainable float32 copy of the teacher as its causal variant; raises as `as_causal`."""
        return self.as_causal(self.new_module(), layout)

    def as_causal(self, module: nn.Module, layout: Layout) -> nn.Module:
        """The causal variant of a bidirectional float32 denoiser, which is used up.

        Raises:
            UserError: the family has none.
        """
        causal = self.causal_variant.variant_of(module, layout)
        self.keep_precise(self.adapt(causal))
        return causal

    @property
    def causal_variant(self) -> CausalVariant:
        """`causal`; UserError where the family has none."""
        if self.causal is None:
            raise UserError(
                f"a model of the family {self.name} has no causal variant; leave out "
                "student.block_frames, or give another --model"
            )
        return self.causal

    def network_in(self, folder: Path) -> Any:
        """The class of the denoiser in its own folder: the causal one where its config says so."""
        config = read_json(folder / "config.json", dict[str, Any], MEND)
        if self.causal and config.get("_class_name") == self.causal.network.__name__:
            return self.causal.network
        return self.network

    def load_network(self, folder: Path) -> nn.Module:
        """A lone denoiser from its own folder (a run's `critic/`), float32, for use with autocast
        or without."""
        if not (folder / "config.json").is_file():
            raise UserError(f"no network in {folder}; give a finished run or a diffusers folder")
        module = self._load_part(self.network_in(folder), folder, torch.float32)
        self.keep_precise(self.adapt(module))
        return module.to(self.device).train()

    def original_name(self, name: str) -> str:
        """The name that the model's authors gave a weight of the denoiser, called `name` here."""
        return name

    def adapt(self, module: nn.Module) -> nn.Module:
        """A loaded network, changed where the family knows a cheaper way to the same values."""
        return module

    def keep_precise(self, module: nn.Module) -> None:
        """Name what a float32 network computes in another precision than autocast would choose.

        Families add their embedding of time.
        """
        norm_as_given(module)

    def own_precision(self, module: nn.Module, x: Tensor) -> AbstractContextManager[None]:
        """For `predict`: a network held in bfloat16 runs without autocast, as in the pipeline."""
        if self.weight_dtype(module) is torch.float32:
            return nullcontext()
        return torch.autocast(x.device.type, enabled=False)

    def save_network(self, module: nn.Module, folder: Path) -> None:
        """Write a lone denoiser to its own folder."""
        with atomic_folder(folder) as temporary:
            save_part(module, temporary)

    def save_student(
        self, module: nn.Module, folder: Path, sampling: Sampling | None = None
    ) -> None:
        """Write a complete diffusers folder with `module` as its denoiser.

        sampling: the student's, for the folder's scheduler; without it that is the teacher's.
        """
        with atomic_folder(folder) as temporary:
            for part in SHARED_PARTS:
                if part != "scheduler" or sampling is None:
                    link_tree(self.path / part, temporary / part)
            for file in self.path.glob("*.json"):
                shutil.copyfile(file, temporary / file.name)
            if sampling is not None:
                write_scheduler(temporary, sampling)
            save_part(module, temporary / "transformer")
            if self.causal and isinstance(module, self.causal.network):
                index = read_json(self.path / "model_index.json", dict[str, Any], MEND)
                named = {"transformer": [type(module).__module__, type(module).__name__]}
                write_json(temporary / "model_index.json", index | named)

    def load_student(self, folder: Path) -> nn.Module:
        """The denoiser of a folder written by `save_student`, float32, ready to run or train."""
        return self.load_network(Path(folder) / "transformer")

    @property
    def text_shape(self) -> tuple[int, int]:
        """(L, D) of a prompt's embedding, by the configs alone."""
        folder = self.path / "transformer"
        config = read_config(folder, self.network_in(folder))
        return self.defaults.max_sequence_length, int(config[self.text_width_key])

    @property
    def head_dim(self) -> int:
        """Channels of an attention head, by the config alone; 128 where it does not say."""
        folder = self.path / "transformer"
        return int(read_config(folder, self.network_in(folder)).get("attention_head_dim", 128))

    def weight_dtype(self, module: nn.Module) -> torch.dtype:
        """Of the module's weights."""
        return module.get_parameter(self.first_layer).dtype

    def feature_width(self, module: nn.Module) -> int:
        """D of the hidden states."""
        return module.get_parameter(self.first_layer).shape[0]

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The transformer blocks in their order: what is cut, gathered and recomputed as one."""
        return list(module.get_submodule(self.block_list))  # type: ignore[call-overload, no-any-return]

    def block_count(self, module: nn.Module) -> int:
        """How many blocks `features` can tap."""
        return len(self.blocks(module))

    def predict_with_features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        """v̂ and the hidden states (B L D) after each of `blocks`, of one pass."""
        hidden: dict[int, Tensor] = {}
        handles = [
            module.get_submodule(f"{self.block_list}.{block}").register_forward_hook(
                lambda _module, _inputs, output, block=block: hidden.__setitem__(block, output)
            )
            for block in blocks
        ]
        try:
            v = self.predict(module, x_t, t, conditioning)
        finally:
            for handle in handles:
                handle.remove()
        return v, [self._free_tokens(hidden[block], x_t.shape[2]) for block in blocks]

    def _free_tokens(self, hidden: Tensor, frames: int) -> Tensor:
        """Hidden states (B L D) without those of the given frames, which come first."""
        if not self.conditioning_frames:
            return hidden
        return hidden.unflatten(1, (frames, -1))[:, self.conditioning_frames :].flatten(1, 2)

    def features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> list[Tensor]:
        """Hidden states (B L D) after each of `blocks`, without the tokens of given frames."""
        return self.predict_with_features(module, x_t, t, conditioning, blocks)[1]

    def _latent_scale(self) -> tuple[Tensor, Tensor]:
        def values(key: str) -> Tensor:
            return torch.tensor(self._vae_config[key], device=self.device).view(1, -1, 1, 1, 1)

        return values("latents_mean"), values("latents_std")

    def clips_at_once(self, latents: Sequence[int]) -> int:
        """How many clips, of latents (…, T, H, W), the autoencoder takes in one pass.

        On a GPU one: the memory of one, however many are given. On a CPU more where they are small:
        PyTorch's convolutions of one small clip take a path that is three times slower.
        """
        frames, height, width = latents[-3:]
        small = CPU_CELLS // (frames * height * width) if self.device.type == "cpu" else 1
        return max(1, small)

    @torch.no_grad()
    def encode_video(self, video: Tensor) -> Tensor:
        """Normalised latents (mode of the posterior) of (B 3 T H W) in [−1, 1]."""
        mean, std = self._latent_scale()
        at_once = self.clips_at_once(self.latent_shape(*video.shape[2:]))
        parts = [
            self.vae.encode(part.to(self.device, torch.float32)).latent_dist.mode()
            for part in video.split(at_once)
        ]
        return (torch.cat(parts) - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """(B 3 T H W) in [−1, 1], clamped."""
        mean, std = self._latent_scale()
        scaled, at_once = latents.to(self.device, torch.float32), self.clips_at_once(latents.shape)
        rows = (scaled * std + mean).split(at_once)
        parts = [self.vae.decode(row).sample.clamp_(-1, 1) for row in rows]
        return torch.cat(parts) if len(parts) > 1 else parts[0]  # not a copy of one

    def stream_decoder(self) -> Callable[[Tensor], Tensor]:
        """Decodes the latents (B C T H W) of one clip piece by piece, in their order.

        Together the pieces' frames (B 3 T H W) are those of `decode_latents` of the whole.
        """
        (mean, std), decoder = self._latent_scale(), StreamDecoder(self.vae)
        return lambda latents: decoder(latents.to(self.device, torch.float32) * std + mean)

    @property
    def frames_per_latent(self) -> int:
        """Frames of a latent frame after the first, which is one frame."""
        return int(self._vae_config.get("scale_factor_temporal") or 4)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the latents of such a clip; UserError for one that does not fit."""
        config = self._vae_config
        spatial = config.get("scale_factor_spatial") or 8
        temporal = self.frames_per_latent
        if (frames - 1) % temporal or height % (2 * spatial) or width % (2 * spatial):
            raise UserError(
                f"a clip of {frames} frames at {height}x{width} does not fit {self.path.name}; "
                f"frames must be 1 + a multiple of {temporal}, sides multiples of {2 * spatial}"
            )
        return config["z_dim"], 1 + (frames - 1) // temporal, height // spatial, width // spatial
