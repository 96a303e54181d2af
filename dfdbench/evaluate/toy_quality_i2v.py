"""Measures image-to-video on the toy: the frame is kept, its sprite goes on, the ways it can go.

Used by `dfdbench toy quality` for the shipped toy-i2v (`measure`); `quality_of` scores what its
students make.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfdbench.evaluate.metrics import oracle_i2v
from dfdbench.evaluate.metrics.first_frame import psnr
from dfdbench.evaluate.toy_quality import GUIDED, PICTURED, to_frames, write_picture
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import batch_noise, predictor, sample_teacher
from dfdbench.toy import world
from dfdbench.toy.continuation import continuations
from dfdbench.toy.data import prompts_of
from dfdbench.toy.train import held_out
from dfdbench.utils.files import write_json
from dfdbench.utils.progress import track
from dfdbench.utils.run import weights_sha256
from dfdbench.utils.video import Clip


def quality_of(frames: np.ndarray, given: world.Attributes) -> dict[str, float]:
    """Scores of clips made from first frames.

    Args:
        frames: uint8 (N K T H W 3), K clips from each of N first frames.
        given: the N clips whose first frames were given.

    Returns:
        Means over all clips: PSNR (dB) of the first frame against the given one, the least of
        them, and what metrics/oracle_i2v.py reads. Means over first frames: the spread of what
        they leave open, where enough clips continue them; `spread_frames` counts those.
    """
    first_frames = to_frames(world.render(given, reveal=True) * 2 - 1)[:, 0]
    psnrs: list[float] = []
    means: dict[str, list[float]] = {"sprite_continues": []}
    spread_frames = 0
    for clips, first in zip(frames, first_frames, strict=True):
        psnrs += [psnr(clip[0], first) for clip in clips]
        order = np.arange(clips.shape[1])
        readings = [
            oracle_i2v.compute(Clip(clip, world.FPS, "none", order, image=first)) for clip in clips
        ]
        for name in ("sprite_continues", "sprite_saturation_given_image"):
            means.setdefault(name, []).extend(r[name] for r in readings if name in r)
        values = oracle_i2v.group(readings, {})
        spread_frames += "open_gini_given_image" in values
        for name, value in values.items():
            means.setdefault(name, []).append(value.value)
    return {
        "clips": float(len(psnrs)),
        "psnr": float(np.mean(psnrs)),
        "psnr_min": min(psnrs),
        "spread_frames": float(spread_frames),
        **{name: float(np.mean(values)) for name, values in means.items() if values},
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
        first = family.encode_video(world.render(given[row], reveal=True)[:, :, :1] * 2 - 1)
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
            to_frames(
                family.decode_latents(family.encode_video(world.render(several, True) * 2 - 1))
            )
            for several in track(clips, "real continuations")
        ]
    )


def measure(
    folder: str | Path, out: str | Path, images: int = 32, samples: int = 32
) -> dict[str, Any]:
    """Measure the model in `folder` and write `out` (JSON), and a picture beside it.

    The picture has two rows for each of four given frames, of real continuations and of the
    teacher's at its own guidance: the given frame, then last frames. Returns what `out` holds.
    """
    family, started = load_family(folder), time.monotonic()
    defaults, given = family.defaults, held_out(images, seed=1)
    real = real_samples(family, given, samples)
    shown = [real]
    result: dict[str, Any] = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "images": images,
        "samples_an_image": samples,
        "real": quality_of(real, given),
        "steps": defaults.steps,
        "shift": defaults.shift,
        "teacher": {},
    }
    for cfg in dict.fromkeys((defaults.cfg, 1.0, GUIDED)):
        frames = teacher_samples(family, given, samples, cfg, defaults.steps, defaults.shift)
        result["teacher"][f"cfg_{cfg:g}"] = quality_of(frames, given)
        shown.append(frames)
    result["seconds"] = round(time.monotonic() - started, 1)
    write_json(out, result)
    firsts = to_frames(world.render(given[:4], reveal=True) * 2 - 1)[:, :1]
    rows = [
        np.concatenate([first, clips[i, : PICTURED - 1, -1]])
        for i, first in enumerate(firsts)
        for clips in shown[:2]
    ]
    write_picture(Path(out).with_suffix(".png"), rows)
    return result
