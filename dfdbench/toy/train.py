"""`dfdbench toy train`: rebuilds the toy's VAE and teacher from seeds.

Stages, each resumable: the VAE on fresh clips in two rounds, the folding of its main channels into
a narrower VAE, that one's decoder alone, the latents of a fixed clip set, and the flow-matching
teacher on those latents with caption dropout. The data of step k come from the stage and k alone,
so a resumed run sees what an unbroken one would have seen.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any  # diffusers classes are untyped

import torch
from torch import distributed, multiprocessing
from torch.nn import functional as F

from dfdbench.models.loading import channels_last
from dfdbench.toy import channels, world
from dfdbench.toy.checkpoint import TOY, ToySpec, build_transformer, build_vae, write_checkpoint
from dfdbench.toy.fit import Fit, flow_draw, load_tensors, share_of_batch, unusable
from dfdbench.toy.text import CaptionEmbeddings
from dfdbench.utils.errors import UserError, as_user_error, memory_remedy
from dfdbench.utils.files import atomic_path, write_json
from dfdbench.utils.folders import locked
from dfdbench.utils.progress import track
from dfdbench.utils.reading import read_json
from dfdbench.utils.stopping import end_with
from dfdbench.utils.weights import fault_of

LATENTS = "latents.pt"
FOLD_CLIPS = 256  # whose latents fix the main directions
FEWER = "take fewer --processes, or close other programs; give the same command again to go on"


@dataclass(frozen=True)
class Settings:
    """What the shipped weights were trained with.

    seed: of the initial weights and, for good, of the frozen text encoder.
    """

    seed: int = 0
    vae_channels: int = 16  # while the VAE is trained; folded into the spec's fewer ones
    vae_steps: int = 1600
    vae_batch: int = 4  # of 9-frame clips; every fourth step takes half as many of 17 frames
    vae_lr: float = 1e-3
    chroma_weight: float = 8.0  # pixels weigh 1 + this · chroma
    kl_weight: float = 1e-5
    polish_steps: int = 1000
    polish_batch: int = 8
    polish_lr: float = 8e-4
    decoder_steps: int = 800  # on the folded latents
    decoder_batch: int = 8
    decoder_lr: float = 7e-4
    sprite_weight: float = 20.0  # of both: pixels near the sprite weigh 1 + this · its chroma
    clips: int = 8192  # in the teacher's training set
    teacher_steps: int = 12000
    teacher_batch: int = 32
    teacher_lr: float = 1e-3
    matrix_lr: float = 5e-3  # Muon's, of the matrices in the teacher's blocks
    caption_dropout: float = 0.1
    shift: float = 2.0  # of the teacher's training times
    ema: float = 0.998


def step_seed(stage: str, step: int) -> int:
    """One seed a step; stages and held-out clips (see `held_out`) never share one."""
    stages = ("vae", "clips", "teacher", "polish", "decoder", "i2v", "i2v-clips")
    return stages.index(stage) * 10**7 + step


def held_out(count: int, seed: int = 0) -> world.Attributes:
    """Attributes of clips that no training stage draws."""
    return world.sample_attributes(count, 2**40 + seed)


def train_vae(settings: Settings, spec: ToySpec, out: Path) -> Any:
    """Train the VAE on fresh clips from random weights."""
    torch.manual_seed(settings.seed)
    vae = build_vae(spec)
    # Start with little posterior noise (std .05): at std 1 it drowns what is local for long.
    torch.nn.init.constant_(vae.quant_conv.bias[spec.latent_channels :].detach(), -6.0)
    fit = Fit("vae", channels_last(vae), settings.vae_steps, settings.vae_lr, settings.ema, out)
    fit.run(lambda step: _vae_loss(vae, settings, "vae", step, settings.vae_batch))
    return vae.eval()


def polish_vae(settings: Settings, spec: ToySpec, out: Path) -> Any:
    """Go on with the trained VAE: a warm restart with larger batches, sprites weighed heavier."""
    vae = train_vae(settings, spec, out).train()
    fit = Fit("polish", vae, settings.polish_steps, settings.polish_lr, settings.ema, out)
    fit.run(lambda step: _vae_loss(vae, settings, "polish", step, settings.polish_batch))
    return vae.eval()


def finish_vae(settings: Settings, spec: ToySpec, out: Path) -> Any:
    """All stages of the VAE: wide, folded to the spec's channels, and that one's decoder alone."""
    wide = replace(spec, latent_channels=settings.vae_channels)
    vae = fold_vae(polish_vae(settings, wide, out), settings, spec).train()
    for part in (vae.encoder, vae.quant_conv):  # latents stay what they are
        part.requires_grad_(False)
    fit = Fit("decoder", vae, settings.decoder_steps, settings.decoder_lr, settings.ema, out)
    fit.run(lambda step: _vae_loss(vae, settings, "decoder", step, settings.decoder_batch))
    return vae.eval()


def _vae_loss(
    vae: Any, settings: Settings, stage: str, step: int, batch: int
) -> dict[str, torch.Tensor]:
    """½ L1 + 5 MSE in [-1, 1], weighed where the sprite is, and a small KL to N(0, I).

    Nine frames of each clip, in every fourth step all 17 of half as many clips; in every third step
    clips as image to video has them.
    """
    seed, whole = step_seed(stage, step), step % 4 == 3
    clips = batch // 2 if whole else batch
    mine = share_of_batch(clips)
    video = world.render(world.sample_attributes(clips, seed)[mine], reveal=step % 3 == 2) * 2 - 1
    if not whole:
        video = video[:, :, seed % 9 : seed % 9 + 9]
    noise = torch.Generator().manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(video).latent_dist
        mean = posterior.mean.float()
        drawn = torch.randn((clips, *mean.shape[1:]), generator=noise)[mine]
        decoded = vae.decode(mean + posterior.std.float() * drawn).sample.float()
    error, kl = decoded - video, posterior.kl().float().mean() / mean[0].numel()
    mse = error.square().mean().detach()
    # The sprite covers a tenth of the pixels and carries most of what the oracle reads.
    chroma = (video.amax(1, keepdim=True) - video.amin(1, keepdim=True)) / 2
    weight = settings.chroma_weight
    if stage != "vae":  # both sides of its outline count alike
        weight = settings.sprite_weight
        chroma = F.max_pool3d(chroma, (1, 9, 9), stride=1, padding=(0, 4, 4))
    error = error * (1 + weight * chroma).sqrt()
    total = 0.5 * error.abs().mean() + 5 * error.square().mean() + settings.kl_weight * kl
    return {"loss": total, "psnr": -10 * (mse / 4).log10(), "kl": kl.detach()}


@torch.no_grad()
def encode_clips(
    vae: Any, attributes: world.Attributes, batch: int = 16, reveal: bool = False
) -> torch.Tensor:
    """Posterior means (N C 5 8 8), not normalised, of rendered clips."""
    parts = [
        vae.encode(world.render(attributes[slice(i, i + batch)], reveal) * 2 - 1).latent_dist.mean
        for i in track(range(0, len(attributes), batch), "encoding clips")
    ]
    return torch.cat(parts)


def fold_vae(vae: Any, settings: Settings, spec: ToySpec) -> Any:
    """The VAE with the spec's fewer channels, which hold the main directions of its latents."""
    latents = encode_clips(vae, teacher_clips(settings)[slice(0, FOLD_CLIPS)])
    return channels.fold(vae, build_vae(spec).eval(), latents)


def teacher_clips(settings: Settings) -> world.Attributes:
    """The teacher's training set."""
    return world.sample_attributes(settings.clips, step_seed("clips", 0))


def encode_training_set(vae: Any, settings: Settings, out: Path) -> None:
    """Write the training set's latents, normalised per channel, and their means and deviations."""
    if (out / LATENTS).exists():
        return
    latents = encode_clips(vae, teacher_clips(settings))
    mean, std = channels.scale(latents)
    normalised = (latents - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    with atomic_path(out / LATENTS) as temporary:
        torch.save({"latents": normalised, "mean": mean, "std": std}, temporary)


def load_latents(out: Path) -> dict[str, torch.Tensor]:
    """Latents (N C T H W) of the training set, and their means and deviations (C,)."""
    stored: dict[str, torch.Tensor] = load_tensors(out / LATENTS, dict)
    try:
        fault = fault_of((name, stored[name]) for name in ("latents", "mean", "std"))
    except KeyError as error:
        fault = f"no {error}"
    if fault:
        raise unusable(out / LATENTS, ValueError(fault))
    return stored


def train_teacher(settings: Settings, spec: ToySpec, out: Path) -> Any:
    """Flow matching: v-prediction MSE at t = shift(U[0, 1], settings.shift), caption dropout."""
    torch.manual_seed(settings.seed + 1)
    transformer = build_transformer(spec)
    latents = load_latents(out)["latents"]
    captions = [world.caption_index(teacher_clips(settings), level) for level in world.LEVELS]
    fit = Fit(
        "teacher",
        transformer,
        settings.teacher_steps,
        settings.teacher_lr,
        settings.ema,
        out,
        settings.matrix_lr,
    )
    embeddings = CaptionEmbeddings(spec, settings.seed)

    def loss(step: int) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(step_seed("teacher", step))
        size = settings.teacher_batch
        index = torch.randint(len(latents), (size,), generator=rng)
        prompt = embeddings.draw([c[index] for c in captions], rng, settings.caption_dropout)
        x0 = latents[index]
        x_t, t, target = flow_draw(x0, settings.shift, rng)
        mine = share_of_batch(size)
        v = transformer(x_t[mine], 1000 * t[mine], prompt[mine], return_dict=False)[0]
        return {"loss": F.mse_loss(v, target[mine])}

    fit.run(loss)
    return transformer.eval()


Stage = Callable[[Any, Any, Path], Any]  # of settings, spec and folder


def _in_process(
    rank: int, parent: int, processes: int, meeting: str, stage: Stage, *arguments: Any
) -> None:
    end_with(parent)  # also where the parent is killed, which tells no daemon
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes
    )
    try:
        with memory_remedy(FEWER):
            stage(*arguments)
    except Exception as error:
        if fault := as_user_error(error):  # an exception itself would arrive as a traceback
            Path(f"{meeting}.fault").write_text(str(fault), encoding="utf-8")
            raise SystemExit(2) from None
        raise
    distributed.destroy_process_group()


def shared(stage: Stage, settings: Any, spec: Any, out: Path, processes: int) -> Any:
    """Run a stage with each batch shared by `processes` (on a CPU faster than as many threads)."""
    if processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (os.getpid(), processes, f"{folder}/meeting", stage, settings, spec, out)
            try:
                multiprocessing.spawn(_in_process, arguments, processes, daemon=True)
            except multiprocessing.ProcessExitedException as error:
                fault = Path(f"{folder}/meeting.fault")
                said = fault.read_text(encoding="utf-8") if fault.is_file() else ""
                raise UserError(
                    said or f"a process of this stage ended ({error}); give the same command again"
                ) from None
    return stage(settings, spec, out)  # alone: trains; after the others: loads what they wrote


def record_settings(file: Path, settings: dict[str, Any], spec: Any) -> None:
    """Write what a folder is trained with.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    record = json.loads(json.dumps({"settings": settings, "spec": asdict(spec)}))
    remedy = "restore it, or choose another --out"
    if file.exists() and read_json(file, dict[str, Any], remedy) != record:
        raise UserError(f"{file} has other settings; choose another --out or delete the folder")
    write_json(file, record)


@memory_remedy(FEWER)
def train(
    out: str | Path,
    settings: Settings | None = None,
    spec: ToySpec = TOY,
    processes: int = 1,
) -> Path:
    """Train all stages into folder `out`, resuming what is there; returns out/toy-t2v.

    Args:
        processes: share the batches; another number sums in another order, so the
            weights agree to rounding only.

    Raises:
        UserError: `out` holds a run with other settings, or another process trains in it.
    """
    settings, out = settings or Settings(), Path(out)
    with locked(out):
        return _train(out, settings, spec, processes)


def _train(out: Path, settings: Settings, spec: ToySpec, processes: int) -> Path:
    record_settings(out / "settings.json", asdict(settings), spec)
    vae = shared(finish_vae, settings, spec, out, processes)
    encode_training_set(vae, settings, out)
    scale = load_latents(out)
    vae.register_to_config(latents_mean=scale["mean"].tolist(), latents_std=scale["std"].tolist())
    transformer = shared(train_teacher, settings, spec, out, processes)
    return write_checkpoint(
        out / "toy-t2v", spec, settings.seed, vae, transformer, dtype=torch.float16
    )
