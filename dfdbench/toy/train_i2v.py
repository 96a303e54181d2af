"""The image-to-video stage of `dfdbench toy train`: a small Cosmos-Predict2.5 on toy-t2v's VAE.

Two resumable parts: the latents of clips of its own, and the flow-matching teacher on them with
caption dropout. A first frame names its clip: on few clips, the network would learn by heart where
each of them went, and lose the diversity that image-to-video is here to measure.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any  # diffusers classes are untyped

import torch
from torch import Tensor
from torch.nn import functional as F

from dfdbench.models.cosmos import network_v
from dfdbench.models.wan import Wan
from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import TOY_I2V, ToyI2VSpec, build_transformer, write_checkpoint_i2v
from dfdbench.toy.fit import (
    Fit,
    flow_draw,
    load_tensors,
    rank_and_processes,
    share_of_batch,
    unusable,
)
from dfdbench.toy.text_i2v import I2VCaptionEmbeddings
from dfdbench.toy.train import FEWER, encode_clips, record_settings, shared, step_seed
from dfdbench.utils.errors import memory_remedy
from dfdbench.utils.files import atomic_path
from dfdbench.utils.folders import locked
from dfdbench.utils.run import weights_sha256
from dfdbench.utils.weights import fault_of

CHUNK = 512  # clips in a file of latents


@dataclass(frozen=True)
class I2VSettings:
    """What the shipped weights were trained with.

    seed: of the initial weights and, for good, of the frozen text encoder.
    """

    seed: int = 0
    clips: int = 8192
    steps: int = 14000
    batch: int = 32
    lr: float = 1e-3
    matrix_lr: float = 5e-3  # Muon's, of the matrices in the blocks
    caption_dropout: float = 0.1
    shift: float = 2.0  # of the training times
    ema: float = 0.998


def own_clips(settings: I2VSettings) -> world.Attributes:
    """Attributes of the clips that this stage is trained on."""
    return world.sample_attributes(settings.clips, step_seed("i2v-clips", 0))


def latents_files(settings: I2VSettings, out: Path) -> list[Path]:
    """Where their latents lie, `CHUNK` clips a file."""
    return [out / f"latents-i2v-{i}.pt" for i in range(-(-settings.clips // CHUNK))]


def frozen_vae(t2v: Path) -> Any:
    """The autoencoder of a toy-t2v folder, float32."""
    return Wan(t2v, torch.float32, torch.device("cpu")).vae


def encode_own_clips(settings: I2VSettings, t2v: Path, out: Path) -> None:
    """Write the normalised latents (N C T H W) of own clips; processes share the files."""
    vae = frozen_vae(t2v)
    shape = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std")
    )
    clips = own_clips(settings)
    rank, processes = rank_and_processes()
    for i, file in enumerate(latents_files(settings, out)):
        if i % processes == rank and not file.exists():
            latents = encode_clips(vae, clips[slice(i * CHUNK, (i + 1) * CHUNK)], reveal=True)
            with atomic_path(file) as temporary:
                torch.save((latents - mean) / std, temporary)


def load_chunk(file: Path) -> Tensor:
    """One of `latents_files`."""
    latents = load_tensors(file, Tensor)
    if fault := fault_of([("its tensor", latents)]):
        raise unusable(file, ValueError(fault))
    return latents


def training_set(settings: I2VSettings, out: Path) -> Tensor:
    """Normalised latents (N C T H W) of own clips."""
    return torch.cat([load_chunk(file) for file in latents_files(settings, out)])


def train_teacher(settings: I2VSettings, spec: ToyI2VSpec, out: Path) -> Any:
    """Flow matching on all but the given frame, at t = shift(U[0, 1], settings.shift)."""
    torch.manual_seed(settings.seed + 2)
    transformer = build_transformer(spec)
    latents, captions = training_set(settings, out), world.caption_index(own_clips(settings))
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
        prompt = embeddings.draw([captions[index]], rng, settings.caption_dropout)
        x0 = latents[index]
        x_t, t, target = flow_draw(x0, settings.shift, rng)
        mine = share_of_batch(size)
        v = network_v(transformer, x_t[mine], t[mine], x0[mine, :, :1], prompt[mine])
        return {"loss": F.mse_loss(v[:, :, 1:], target[mine, :, 1:])}

    fit.run(loss)
    return transformer.eval()


@memory_remedy(FEWER)
def train_i2v(
    out: str | Path,
    settings: I2VSettings | None = None,
    spec: ToyI2VSpec = TOY_I2V,
    processes: int = 1,
    t2v: str | Path | None = None,
) -> Path:
    """Train into folder `out`, resuming what is there; returns out/toy-i2v.

    Args:
        t2v: folder of the toy-t2v whose autoencoder is used, and copied: a checkpoint folder is
            whole by itself. By default out/toy-t2v.

    Raises:
        UserError: `out` holds a run with other settings, or another process trains in it.
    """
    settings, out = settings or I2VSettings(), Path(out)
    folder = Path(t2v) if t2v else out / "toy-t2v"
    with locked(out):
        about = asdict(settings) | {"vae_sha256": weights_sha256(folder / "vae")}
        record_settings(out / "settings-i2v.json", about, spec)
        shared(encode_own_clips, settings, folder, out, processes)
        transformer = shared(train_teacher, settings, spec, out, processes)
        vae, target = frozen_vae(folder), out / "toy-i2v"
        return write_checkpoint_i2v(
            target, spec, settings.seed, vae, transformer, dtype=torch.float16
        )
