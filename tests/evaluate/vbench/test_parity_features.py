"""Six dimensions of VBench against the official code: the same clips, the same random checkpoints.

Slow: DINO ViT-B/16, CLIP ViT-B/32 and ViT-L/14 and DreamSim's ensemble at full size, on both sides.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_features
from clips import moving_texture, random_clip, released_videos
from official import TOLERANCE, record_parity, run_official, vbench_site
from PIL import Image

from dfdbench.evaluate.metrics import Compute, Setting, get_family
from dfdbench.evaluate.metrics.vbench import (
    appearance_style,
    i2v_background,
    i2v_subject,
    subject_consistency,
)
from dfdbench.evaluate.metrics.vbench.consistency import frame_weighted
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized
from dfdbench.toy.world import render, sample_attributes
from dfdbench.utils.video import Clip, read_video, write_video

pytestmark = pytest.mark.slow

T2V = ("subject_consistency", "background_consistency", "aesthetic_quality", "appearance_style")
DIMENSIONS = (*T2V, "i2v_subject", "i2v_background")
WEIGHTED = {"subject_consistency", "background_consistency", "appearance_style"}
STYLES = appearance_style.STYLES
DOWNSCALED = "noise.mp4"  # on which antialiasing shows


def toy_frames(count: int) -> np.ndarray:
    video = render(sample_attributes(1, seed=5))[0, :, :count]
    return (video.permute(1, 2, 3, 0).numpy() * 255).round().astype(np.uint8)


def write_clips(folder: Path) -> dict[str, Path]:
    """Clips of several lengths and ratios, the toy and a released one among them."""
    found = {
        "toy.mp4": toy_frames(4),
        "wide.mp4": moving_texture(3, 6, 90, 160),
        DOWNSCALED: random_clip(0, 5, 400, 300),
    }
    # whole, they would take an hour: a few frames, at their own size
    for i, path in enumerate(sorted((released_videos() / "t2v").glob("*.mp4"))[:9:4]):
        found[path.name] = read_video(path).frames[: 20 + 10 * i : 10]
    for name, frames in found.items():
        write_video(folder / name, frames, fps=8)
    return {name: folder / name for name in found}


class Sides:
    """The clips with prompts and images, the official results, and our functions."""

    def __init__(self, folder: Path) -> None:
        site = vbench_site("clip", "dreamsim", "peft", "vbench2_beta_i2v")
        self.cache = folder / "cache"
        random_features.write_dino(self.cache)
        random_features.write_clip(self.cache, "ViT-B-32")
        random_features.write_clip(
            self.cache, "ViT-L-14", random_features.one_text_layer("ViT-L-14")
        )
        random_features.write_head(self.cache)
        random_features.write_dreamsim(self.cache)
        self.clips: dict[str, Clip] = {}
        info, images = [], {}
        for i, (name, path) in enumerate(write_clips(folder).items()):
            prompt, image = f"a cat, {STYLES[i]}", folder / f"{name}.png"
            picture = random_clip(10 + i, 1, 300 + 40 * i, 400)[0]
            first = read_video(path).frames[0, :300, :400]
            picture[: first.shape[0], : first.shape[1]] = first
            Image.fromarray(picture).save(image)
            self.clips[name] = read_video(path)._replace(prompt=prompt, image=picture)
            info.append(
                {
                    "prompt_en": prompt,
                    "dimension": list(T2V),
                    "video_list": [str(path)],
                    "auxiliary_info": {"appearance_style": {"appearance_style": STYLES[i]}},
                }
            )
            images[str(path)] = str(image)
        job = {"dimensions": DIMENSIONS, "info": info, "images": images}
        self.official = run_official("official_features.py", site, self.cache, job)

    def load(self, dimension: str) -> Compute:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VBENCH_CACHE_DIR", str(self.cache))
            return get_family(f"vbench_{dimension}").load(Setting())


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(tmp_path_factory.mktemp("features"))


def test_every_video_and_the_aggregate_equal_the_official_ones(sides: Sides) -> None:
    table: dict[str, Any] = {}
    for dimension in DIMENSIONS:
        compute, official = sides.load(dimension), sides.official[dimension]
        values = {name: compute(clip) for name, clip in sides.clips.items()}
        ours = {name: float(value[dimension]) for name, value in values.items()}
        frames = [float(v.get(f"{dimension}_frames", 1)) for v in values.values()]
        total = frame_weighted(list(ours.values()), frames)
        assert (dimension in WEIGHTED) == (len(set(frames)) > 1)
        table[dimension] = {
            "official": official["videos"] | {"total": official["total"]},
            "ours": ours | {"total": total},
            "largest difference": max(
                abs(a - b)
                for a, b in zip(
                    [*ours.values(), total],
                    [*(official["videos"][name] for name in ours), official["total"]],
                    strict=True,
                )
            ),
        }
    record_parity("features", table)
    for dimension, row in table.items():
        assert row["largest difference"] <= TOLERANCE, (dimension, row)
        # what could hide a fault: clips that score alike, means that agree
        scores = list(row["ours"].values())[:-1]
        assert np.ptp(scores) > 10 * TOLERANCE, (dimension, row)
        if dimension in WEIGHTED:
            assert abs(row["ours"]["total"] - np.mean(scores)) > 2 * TOLERANCE, (dimension, row)


def swapped(frames: np.ndarray, size: Any, mode: Any, antialias: bool, crop: Any = None) -> Any:
    return resized(frames, size, mode, not antialias, crop)


def as_tensor(frames: np.ndarray, size: Any, crop: Any = None) -> Any:
    return resized(frames, size, "bicubic", antialias=False, crop=crop)


def cropped(frames: np.ndarray, size: Any, mode: Any, antialias: bool, crop: Any = None) -> Any:
    return resized(frames, size, mode, antialias, 224)


@pytest.mark.parametrize(
    ("dimension", "module", "name", "wrong"),
    [
        ("subject_consistency", subject_consistency, "resized", swapped),
        ("subject_consistency", subject_consistency, "resized", cropped),
        ("background_consistency", openai_clip, "resized", swapped),
        ("aesthetic_quality", openai_clip, "resized", swapped),
        ("appearance_style", appearance_style, "resized_by_pillow", as_tensor),
        ("i2v_subject", i2v_subject, "resized", swapped),
        ("i2v_background", i2v_background, "resized", swapped),
    ],
)
def test_another_preprocessing_breaks_parity(
    sides: Sides,
    monkeypatch: pytest.MonkeyPatch,
    dimension: str,
    module: Any,
    name: str,
    wrong: Callable[..., Any],
) -> None:
    monkeypatch.setattr(module, name, wrong)
    value = sides.load(dimension)(sides.clips[DOWNSCALED])[dimension]
    assert abs(value - sides.official[dimension]["videos"][DOWNSCALED]) > 10 * TOLERANCE
