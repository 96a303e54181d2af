"""Measures the toy against its own truth: VAE, oracle and teacher. Writes quality.json.

Run by `dfdbench toy quality`; the shipped model's numbers lie in results/toy/teacher/.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfdbench.evaluate.metrics import oracle as oracle_metrics
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import batch_noise, predictor, sample_teacher
from dfdbench.toy import oracle, world
from dfdbench.toy.train import held_out
from dfdbench.utils.files import write_json
from dfdbench.utils.progress import track
from dfdbench.utils.run import weights_sha256
from dfdbench.utils.video import to_uint8

SATURATION_TOLERANCE = 0.05  # a saturation is read right within this, on a range of 0.15


def to_frames(video: torch.Tensor) -> np.ndarray:
    """(B 3 T H W) in [-1, 1] to uint8 (B T H W 3)."""
    return np.stack([to_uint8(clip) for clip in video])


def oracle_accuracy(frames: np.ndarray, truth: world.Attributes) -> dict[str, float]:
    """Share of clips (B T H W 3) in which each attribute is read right, and of intact sprites."""
    readings = [oracle.read(clip) for clip in frames]

    def share(name: str, column: torch.Tensor) -> float:
        hits = [getattr(r, name) == int(c) for r, c in zip(readings, column, strict=True)]
        return float(np.mean(hits))

    saturation = np.array([r.saturation for r in readings]) - truth.saturation.numpy()
    return {
        "shape": share("shape", truth.shape),
        "scene": share("scene", truth.scene),
        "hue": share("hue", truth.hue_mode),
        "direction": share("direction", truth.direction),
        "pan": share("pan", truth.pan),
        "saturation": float((np.abs(saturation) <= SATURATION_TOLERANCE).mean()),
        "saturation_bias": float(saturation.mean()),
        "saturation_rms_error": float(np.sqrt((saturation**2).mean())),
        "sprite_intact": float(np.mean([r.intact for r in readings])),
    }


@torch.no_grad()
def vae_quality(family: ModelFamily, count: int = 512, batch: int = 16) -> dict[str, Any]:
    """PSNR of held-out clips through the VAE, and the oracle's accuracy before and after it."""
    clips = held_out(count)
    psnr: list[float] = []
    before, after = [], []
    for start in track(range(0, count, batch), "VAE round trip"):
        video = world.render(clips[slice(start, start + batch)]) * 2 - 1
        decoded = family.decode_latents(family.encode_video(video))
        mse = (decoded - video).square().mean((1, 2, 3, 4))
        psnr += (-10 * (mse / 4).log10()).tolist()
        before.append(to_frames(video))
        after.append(to_frames(decoded))
    return {
        "clips": count,
        "psnr_mean_db": statistics.fmean(psnr),
        "psnr_min_db": min(psnr),
        "oracle_on_rendered": oracle_accuracy(np.concatenate(before), clips),
        "oracle_after_vae": oracle_accuracy(np.concatenate(after), clips),
    }


@torch.no_grad()
def teacher_samples(
    family: ModelFamily, count: int, cfg: float, steps: int, batch: int = 32, decoded: bool = True
) -> tuple[np.ndarray, list[world.Caption]]:
    """`count` clips (B T H W 3) spread evenly over the captions, and the caption of each."""
    prompts = world.captions()
    chosen = [prompts[i % len(prompts)] for i in range(count)]
    defaults = family.defaults
    shape = family.latent_shape(defaults.frames, defaults.height, defaults.width)
    embedded = family.encode_prompt([p.text for p in prompts])
    negative = family.encode_prompt([defaults.negative_prompt])
    frames = []
    for start in track(range(0, count, batch), f"teacher at CFG {cfg:g}, {steps} steps"):
        index = torch.arange(start, min(start + batch, count))
        ids = [f"quality-{chosen[i].id}" for i in index]
        noise = batch_noise(ids, index.tolist(), shape)
        predict = predictor(
            family,
            family.teacher,
            embedded.select(index % len(prompts)),
            negative.repeat(len(index)),
            cfg,
        )
        x0, _ = sample_teacher(predict, noise, steps, defaults.shift)
        frames.append(to_frames(family.decode_latents(x0)))
    return np.concatenate(frames), chosen


def fidelity_and_diversity(frames: np.ndarray, chosen: list[world.Caption]) -> dict[str, float]:
    """The oracle family's scores of clips (B T H W 3): means over clips, or over captions.

    Those over captions are the entropies of the free attributes, which count intact sprites only,
    and the accuracies. Captions with fewer than two intact sprites have no entropy.
    """
    values = [oracle_metrics.values_of(clip) for clip in frames]
    means: dict[str, list[float]] = {}
    for name in ("sprite_intact", "sprite_saturation", "sprite_area"):
        means[name] = [row[name] for row in values if name in row]
    for caption in dict.fromkeys(chosen):
        rows = [row for row, c in zip(values, chosen, strict=True) if c == caption]
        fixed = {"shape": caption.shape, "scene": caption.scene}
        for name, group in oracle_metrics.group(rows, fixed).items():
            means.setdefault(name, []).append(group.value)
    return {"samples": float(len(frames))} | {
        name: float(np.mean(numbers)) for name, numbers in means.items() if numbers
    }


def measure(model: str | Path, out: str | Path, samples: int = 512, clips: int = 512) -> dict:
    """Measure `model` and write `out` (JSON); returns what it wrote."""
    family, started = load_family(str(model)), time.monotonic()
    result: dict[str, Any] = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "vae": vae_quality(family, clips),
        "teacher": {},
    }
    for cfg in dict.fromkeys((family.defaults.cfg, 1.0)):
        frames, chosen = teacher_samples(family, samples, cfg, family.defaults.steps)
        result["teacher"][f"cfg_{cfg:g}"] = fidelity_and_diversity(frames, chosen)
    result["steps"], result["shift"] = family.defaults.steps, family.defaults.shift
    result["seconds"] = round(time.monotonic() - started, 1)
    write_json(out, result)
    return result
