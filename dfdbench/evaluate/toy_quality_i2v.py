"""Measures image-to-video on the toy: the frame is kept, its sprite goes on, the ways it can go.

Used by `dfdbench toy quality` for the shipped toy-i2v (`measure`); `quality_of` scores what its
students make.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfdbench.evaluate.metrics import oracle as oracle_metrics
from dfdbench.evaluate.metrics.first_frame import psnr
from dfdbench.evaluate.metrics.oracle_i2v import OPEN
from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import batch_noise, predictor, sample_teacher
from dfdbench.toy import oracle, world
from dfdbench.toy.continuation import continuations, direction_probabilities
from dfdbench.toy.data import prompts_of
from dfdbench.toy.train import held_out
from dfdbench.utils.files import write_json
from dfdbench.utils.progress import track
from dfdbench.utils.run import weights_sha256


def quality_of(frames: np.ndarray, given: world.Attributes) -> dict[str, float]:
    """Scores of clips made from first frames.

    Args:
        frames: uint8 (N K T H W 3), K clips from each of N first frames.
        given: the N clips whose first frames were given.

    Returns:
        Means over all clips: PSNR (dB) of the first frame against the given one, the least of
        them, and the shares that are intact, of the given shape, of the given hue, steady, and all
        of these (`continues`). Means over first frames: Miller–Madow entropies of direction and
        pan over clips that continue, in units of log 8 and log 3; frames with fewer than two such
        clips have none. `entropy_frames` counts the others.
    """
    first_frames = to_frames(world.render(given) * 2 - 1)[:, 0]
    shapes, hues = given.shape.tolist(), given.hue_mode.tolist()
    rows: dict[str, list[float]] = {
        name: [] for name in ("psnr", "intact", "shape", "hue", "steady", "wobble", "continues")
    }
    entropies: dict[str, list[float]] = {name: [] for name in OPEN}
    for clips, first, shape, hue in zip(frames, first_frames, shapes, hues, strict=True):
        readings = [oracle.read(clip) for clip in clips]
        going = [oracle.continues(r, shape, hue) for r in readings]
        rows["psnr"] += [psnr(clip[0], first) for clip in clips]
        rows["intact"] += [r.intact for r in readings]
        rows["shape"] += [r.shape == shape for r in readings]
        rows["hue"] += [r.hue == hue for r in readings]
        rows["steady"] += [r.wobble <= oracle.STEADY for r in readings]
        rows["wobble"] += [r.wobble for r in readings]
        rows["continues"] += going
        if sum(going) >= oracle_metrics.MIN_CLIPS:
            continuing = [r for r, good in zip(readings, going, strict=True) if good]
            for name, classes in OPEN.items():
                labels = np.array([getattr(r, name) for r in continuing])
                entropies[name].append(oracle_metrics.normalised_entropy(labels, classes))
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    means |= {f"{k}_entropy": float(np.mean(v)) for k, v in entropies.items() if v}
    return {
        "clips": float(len(rows["psnr"])),
        "psnr_min": min(rows["psnr"]),
        "entropy_frames": float(len(entropies["pan"])),
        **means,
    }


@torch.no_grad()
def teacher_samples(
    family: ModelFamily, given: world.Attributes, count: int, cfg: float, steps: int, shift: float
) -> np.ndarray:
    """uint8 (N K T H W 3): `count` samples from the first frame of each of the N clips."""
    (captions, prompts), d = prompts_of(given), family.defaults
    shape = family.latent_shape(d.frames, d.height, d.width)
    embedded = family.encode_prompt(prompts)
    negative = family.encode_prompt([d.negative_prompt]).repeat(count)
    frames = []
    for i in track(range(len(given)), f"toy-i2v at CFG {cfg:g}, {steps} steps"):
        row = slice(i, i + 1)
        first = family.encode_video(world.render(given[row])[:, :, :1] * 2 - 1)
        conditioning = embedded.select(captions[row]).given(first).repeat(count)
        noise = batch_noise([f"quality-{i}-{prompts[captions[i]]}"] * count, range(count), shape)
        predict = predictor(family, family.teacher, conditioning, negative, cfg)
        x0, _ = sample_teacher(predict, noise, steps, shift)
        frames.append(to_frames(family.decode_latents(x0)))
    return np.stack(frames)


@torch.no_grad()
def real_samples(family: ModelFamily, given: world.Attributes, count: int) -> np.ndarray:
    """Like `teacher_samples`, of real continuations through the autoencoder."""
    clips = [continuations(given[slice(i, i + 1)], count, i) for i in range(len(given))]
    return np.stack(
        [
            to_frames(family.decode_latents(family.encode_video(world.render(several) * 2 - 1)))
            for several in track(clips, "real continuations")
        ]
    )


def measure(
    folder: str | Path, out: str | Path, images: int = 48, samples: int = 16
) -> dict[str, Any]:
    """Measure the model in `folder` and write `out` (JSON); returns what it wrote."""
    family, started = load_family(folder), time.monotonic()
    defaults, given = family.defaults, held_out(images, seed=1)
    p = direction_probabilities(given)
    nats = torch.special.entr(p).sum(1).mean()
    result: dict[str, Any] = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "images": images,
        "samples_an_image": samples,
        "direction_entropy_exact": float(nats) / float(np.log(world.DIRECTIONS)),
        "real": quality_of(real_samples(family, given, samples), given),
        "steps": defaults.steps,
        "shift": defaults.shift,
        "teacher": {},
    }
    for cfg in dict.fromkeys((defaults.cfg, 1.0)):
        frames = teacher_samples(family, given, samples, cfg, defaults.steps, defaults.shift)
        result["teacher"][f"cfg_{cfg:g}"] = quality_of(frames, given)
    result["seconds"] = round(time.monotonic() - started, 1)
    write_json(out, result)
    return result
