"""Measures the toy against its own truth: VAE, oracle and teacher. Writes quality.json.

Run by `dfdbench toy quality`; the shipped model's numbers lie in results/toy/teacher/.
"""

import statistics
import time
from collections.abc import Sequence
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
from dfdbench.utils.files import atomic_path, write_json
from dfdbench.utils.progress import track
from dfdbench.utils.run import weights_sha256
from dfdbench.utils.video import to_uint8

GUIDED = 3.0  # what the shipped recipes' teacher is guided by
SATURATION_TOLERANCE = 0.05  # a saturation is read right within this, on a range of .45
PICTURED = 16  # clips a row of the picture
LARGER = 2  # pixels of the picture a pixel of a clip, each way


def write_picture(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write rows of pictures, uint8 (N H W 3) each, as a PNG; a short row ends white."""
    from PIL import Image

    width = max(map(len, rows))
    lines = []
    for row in rows:
        filled = np.full((width, *row.shape[1:]), 255, np.uint8)
        filled[: len(row)] = row
        lines.append(np.concatenate([*filled], axis=1))
    sheet = np.concatenate(lines).repeat(LARGER, 0).repeat(LARGER, 1)
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, "PNG")


def middle_frames(clips: np.ndarray) -> np.ndarray:
    """The middle frame (N H W 3) of each of the first PICTURED clips (N T H W 3)."""
    return clips[:PICTURED, clips.shape[1] // 2]


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
        "size": share("size", truth.size),
        "saturation": float((np.abs(saturation) <= SATURATION_TOLERANCE).mean()),
        "saturation_bias": float(saturation.mean()),
        "saturation_rms_error": float(np.sqrt((saturation**2).mean())),
        "sprite_intact": float(np.mean([r.intact for r in readings])),
    }


@torch.no_grad()
def vae_quality(family: ModelFamily, count: int = 512, batch: int = 16) -> dict[str, Any]:
    """PSNR of held-out clips through the VAE, and the oracle's accuracy before and after it.

    `spread`: of what captions leave open, over these clips after the VAE, as for the teacher's.
    """
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
    captions = world.captions()
    chosen = [captions[int(i)] for i in world.caption_index(clips)]
    decoded_frames = np.concatenate(after)
    return {
        "clips": count,
        "psnr_mean_db": statistics.fmean(psnr),
        "psnr_min_db": min(psnr),
        "oracle_on_rendered": oracle_accuracy(np.concatenate(before), clips),
        "oracle_after_vae": oracle_accuracy(decoded_frames, clips),
        "spread": fidelity_and_diversity(decoded_frames, chosen),
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

    Those over captions are the spread of what they leave open, which counts whole clips only, and
    the accuracies. Captions with too few whole clips have no spread.
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


def measure(model: str | Path, out: str | Path, samples: int = 1024, clips: int = 512) -> dict:
    """Measure `model` and write `out` (JSON), and a picture beside it; returns what `out` holds.

    The picture's rows: rendered clips, the same through the autoencoder, and the teacher's at each
    guidance, one a caption; middle frames.
    """
    family, started = load_family(str(model)), time.monotonic()
    video = world.render(held_out(PICTURED)) * 2 - 1
    decoded = family.decode_latents(family.encode_video(video))
    rows = [middle_frames(to_frames(v)) for v in (video, decoded)]
    result: dict[str, Any] = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "vae": vae_quality(family, clips),
        "teacher": {},
    }
    for cfg in dict.fromkeys((family.defaults.cfg, 1.0, GUIDED)):
        frames, chosen = teacher_samples(family, samples, cfg, family.defaults.steps)
        result["teacher"][f"cfg_{cfg:g}"] = fidelity_and_diversity(frames, chosen)
        rows.append(middle_frames(frames))
    result["steps"], result["shift"] = family.defaults.steps, family.defaults.shift
    result["seconds"] = round(time.monotonic() - started, 1)
    write_json(out, result)
    write_picture(Path(out).with_suffix(".png"), rows)
    return result
