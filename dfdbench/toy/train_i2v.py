"""The image-to-video stage of `dfdbench toy train`: a small Cosmos-Predict2.5 on toy-t2v's VAE.

Two resumable parts: the latents of more clips beside those of toy-t2v's training set, and the
flow-matching teacher on all of them with caption dropout. More clips, because a first frame names
its clip: on few, the network would learn by heart where each of them went, and lose the diversity
that image-to-video is here to measure.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any  # diffusers classes are untyped

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn import functional as F

from dfdbench.files import atomic_path
from dfdbench.models.cosmos import network_v
from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import (
    TOY_I2V,
    ToyI2VSpec,
    build_transformer,
    write_checkpoint_i2v,
)
from dfdbench.toy.data import prompts_of
from dfdbench.toy.fit import Fit, flow_draw, rank_and_processes, share_of_batch
from dfdbench.toy.text_i2v import I2VCaptionEmbeddings
from dfdbench.toy.train import LATENTS, encode_clips, record_settings, shared, step_seed

CHUNK = 512  # clips in a file of latents


@dataclass(frozen=True)
class I2VSettings:
    """What the shipped weights were trained with.

    seed: of the initial weights and, for good, of the frozen text encoder.
    """

    seed: int = 0
    clips: int = 6144  # beside those of toy-t2v's training set
    steps: int = 8000
    batch: int = 32
    lr: float = 1e-3
    matrix_lr: float = 5e-3  # Muon's, of the matrices in the blocks
    caption_dropout: float = 0.1
    shift: float = 2.0  # of the training times
    ema: float = 0.998


def own_clips(settings: I2VSettings) -> world.Attributes:
    """Attributes of the clips that only this stage is trained on."""
    return world.sample_attributes(settings.clips, step_seed("i2v-clips", 0))


def latents_files(settings: I2VSettings, out: Path) -> list[Path]:
    """Where the latents of this stage's own clips lie, `CHUNK` clips a file."""
    return [out / f"latents-i2v-{i}.pt" for i in range(-(-settings.clips // CHUNK))]


def encode_own_clips(settings: I2VSettings, spec: ToyI2VSpec, out: Path) -> None:
    """Write the normalised latents (N C T H W) of own clips; processes share the files."""
    vae: Any = AutoencoderKLWan.from_pretrained(out / "toy-t2v" / "vae", torch_dtype=torch.float32)
    vae.requires_grad_(False).eval()
    shape = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std")
    )
    clips = own_clips(settings)
    rank, processes = rank_and_processes()
    for i, file in enumerate(latents_files(settings, out)):
        if i % processes == rank and not file.exists():
            latents = encode_clips(vae, clips[slice(i * CHUNK, (i + 1) * CHUNK)])
            with atomic_path(file) as temporary:
                torch.save((latents - mean) / std, temporary)


def training_set(settings: I2VSettings, out: Path) -> tuple[Tensor, Tensor]:
    """Normalised latents (N C T H W) of both clip sets, and each clip's caption (N,) of the 12."""
    t2v = torch.load(out / LATENTS, weights_only=True)["latents"]
    own = [torch.load(file, weights_only=True) for file in latents_files(settings, out)]
    sets = (world.sample_attributes(len(t2v), step_seed("clips", 0)), own_clips(settings))
    return torch.cat([t2v, *own]), torch.cat([prompts_of(clips)[0] for clips in sets])


def train_teacher(settings: I2VSettings, spec: ToyI2VSpec, out: Path) -> Any:
    """Flow matching on all but the given frame, at t = shift(U[0, 1], settings.shift)."""
    torch.manual_seed(settings.seed + 2)
    transformer = build_transformer(spec)
    latents, captions = training_set(settings, out)
    fit = Fit(
        "teacher-i2v",
        transformer,
        settings.steps,
        settings.lr,
        settings.ema,
        out,
        settings.matrix_lr,
    )
    embeddings = I2VCaptionEmbeddings(spec, settings.seed)

    def loss(step: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(step_seed("i2v", step))
        size = settings.batch
        index = torch.randint(len(latents), (size,), generator=rng)
        prompt = embeddings.draw(captions[index], rng, settings.caption_dropout)
        x0 = latents[index]
        x_t, t, target = flow_draw(x0, settings.shift, rng)
        mine = share_of_batch(size)
        v = network_v(transformer, x_t[mine], t[mine], x0[mine, :, :1], prompt[mine])
        return {"loss": F.mse_loss(v[:, :, 1:], target[mine, :, 1:])}

    fit.run(loss)
    return transformer.eval()


def train_i2v(
    out: str | Path,
    settings: I2VSettings | None = None,
    spec: ToyI2VSpec = TOY_I2V,
    processes: int = 1,
) -> Path:
    """Train into folder `out`, which holds toy-t2v, resuming what is there; returns out/toy-i2v.

    The autoencoder is copied from toy-t2v: a checkpoint folder is whole by itself.

    Raises:
        UserError: `out` holds a run with other settings.
    """
    settings, out = settings or I2VSettings(), Path(out)
    record_settings(out / "settings-i2v.json", settings, spec)
    shared(encode_own_clips, settings, spec, out, processes)
    transformer = shared(train_teacher, settings, spec, out, processes)
    vae = AutoencoderKLWan.from_pretrained(out / "toy-t2v" / "vae")
    return write_checkpoint_i2v(
        out / "toy-i2v", spec, settings.seed, vae, transformer, dtype=torch.float16
    )
