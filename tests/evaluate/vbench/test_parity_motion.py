"""VBench's motion, quality and camera dimensions: ours against the official code, same weights.

Slow, but for the rules alone. A dimension's test fails, too, if the clips do not tell right from
wrong: each has a plausible mistake that must break the parity.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from clips import moving_texture, random_clip, released_videos
from hub_tracker import write_hub
from official import TOLERANCE, record_parity, run_official, vbench_site

from dfdbench.evaluate.metrics import Setting, get_family
from dfdbench.evaluate.metrics.vbench import (
    dynamic_degree as vbench_dynamic_degree,
)
from dfdbench.evaluate.metrics.vbench import (
    imaging_quality as vbench_imaging_quality,
)
from dfdbench.evaluate.metrics.vbench import (
    motion_smoothness as vbench_motion_smoothness,
)
from dfdbench.evaluate.metrics.vbench import (
    static_filter as vbench_static_filter,
)
from dfdbench.evaluate.metrics.vbench.nets import pairs, raft
from dfdbench.toy.world import render, sample_attributes
from dfdbench.utils.video import Clip, read_video, reduced, write_video

# official dimension -> our family, metric, and VBench's value of a clip in parts of ours
OURS = {
    "temporal_flickering": ("flicker", "temporal_flickering", 1),
    "motion_smoothness": ("vbench_motion_smoothness", "motion_smoothness", 1),
    "dynamic_degree": ("vbench_dynamic_degree", "dynamic_degree", 1),
    "static_filter": ("vbench_static_filter", "static", 1),
    "imaging_quality": ("vbench_imaging_quality", "imaging_quality", 100),
    "camera_motion": ("vbench_camera_motion", "camera_motion", 1),
}
FLOW = ("dynamic_degree", "static_filter")


class Sides(NamedTuple):
    """The official results, and the same clips and weights for ours."""

    official: dict[str, Any]
    clips: dict[str, Clip]


def write_clips(folder: Path) -> tuple[list[str], list[str]]:
    """Small clips for all dimensions, and large ones for those that a CPU manages."""
    toy = (render(sample_attributes(1, seed=5))[0, :, ::4].permute(1, 2, 3, 0) * 255).byte().numpy()
    small = {
        "toy": (toy.repeat(2, 1).repeat(2, 2), 8),
        "still": (moving_texture(1, 0, 130, 200).repeat(5, 0), 8),
        "slow": (moving_texture(6, 2, 136, 180), 16),
        "noise": (np.random.default_rng(0).integers(0, 256, (4, 128, 136, 3), np.uint8), 8),
        "large": (random_clip(1, 5, 288, 288), 8),
    }
    large = {}
    for path in sorted((released_videos() / "t2v").glob("anim_fox_*.mp4"))[:3]:
        frames = read_video(path).frames
        large[path.stem] = (frames[:3], 16)
        small[f"{path.stem}_small"] = (np.stack([reduced(f, 160) for f in frames[:12:4]]), 8)
    for name, (frames, fps) in (small | large).items():
        write_video(folder / f"{name}.mp4", frames, fps)
    return [[str(folder / f"{name}.mp4") for name in kind] for kind in (small, large)]


def write_camera_clips(folder: Path) -> list[str]:
    """A bright spot that moves, or a picture that brightens: see hub_tracker."""
    ways = {
        "pans left": (9, 0, 1),
        "pans right": (9, 0, 1),
        "tilts up": (7, 8, 1),
        "zooms in": (0, 0, 1.5),
        "zooms out": (0, 0, 1.5),
        "static": (0, 0, 1),
    }
    files = []
    for words, (x, y, growth) in ways.items():
        frames = np.full((4, 72, 96, 3), 60, np.uint8)
        for i, frame in enumerate(frames):
            frame[:] = 60 * growth ** (i / 3)
            frame[20 + i * y : 24 + i * y, 30 + i * x : 34 + i * x] = 255
        files.append(str(folder / f"a room, camera {words}-0.mp4"))
        write_video(files[-1], frames, 8)
    return files


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory):
    site = vbench_site("pyiqa", "omegaconf", "easydict", "vbench2_beta_i2v")
    folder = tmp_path_factory.mktemp("motion")
    run_official("official_motion.py", site, folder, {"cache": str(folder)})
    small, large = write_clips(folder)
    camera = write_camera_clips(folder)
    hub = write_hub(folder / "torch")
    videos = {d: small if d in FLOW else small + large for d in OURS} | {"camera_motion": camera}
    job = {"cache": str(folder), "hub": str(hub), "videos": videos}
    official = run_official("official_motion.py", site, folder, job)
    clips = {}
    for file in (*small, *large, *camera):
        prompt = Path(file).stem.removesuffix("-0")
        clips[file] = read_video(file)._replace(prompt=prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBENCH_CACHE_DIR", str(folder))
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.syspath_prepend(site) if site else None
        yield Sides(official, clips)


def differences(sides: Sides, dimension: str) -> dict[str, float]:
    """|ours − VBench's| by clip, in VBench's unit, and of the aggregate."""
    family, metric, unit = OURS[dimension]
    theirs, compute = sides.official[dimension], get_family(family).load(Setting())
    ours = {file: compute(sides.clips[file])[metric] for file in theirs["videos"]}
    found = {Path(f).stem: abs(ours[f] * unit - v) for f, v in theirs["videos"].items()}
    found["aggregate"] = abs(float(np.mean(list(ours.values()))) - theirs["score"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dimension", OURS)
def test_scores_equal_the_official_ones(sides, dimension):
    values = sides.official[dimension]["videos"].values()
    assert max(values) - min(values) > 10 * TOLERANCE
    found = differences(sides, dimension)
    record_parity(dimension, found)
    assert max(found.values()) <= TOLERANCE, json.dumps(found)


@pytest.mark.slow
def test_magnitudes_of_flow_equal_the_official_ones(sides):
    """Verdicts are 0 or 1: what they rest on is compared as well, in pixels."""
    network, found = raft.load_raft("cpu"), {}
    for dimension, share in zip(FLOW, (0.05, 0.02), strict=True):
        for file, theirs in sides.official[dimension]["magnitudes"].items():
            clip = sides.clips[file]
            total = len(clip.frames)
            if dimension == "dynamic_degree":
                chosen = list(pairwise(vbench_dynamic_degree.sampled(total, clip.fps)))
            else:
                chosen = [*pairwise(range(total)), (0, total - 1), (total - 1, 0)]
            ours = list(raft.Magnitudes(network, share)(clip.frames, chosen))
            found[f"{dimension} {Path(file).stem}"] = float(np.abs(np.subtract(ours, theirs)).max())
    record_parity("magnitudes", found)
    assert max(found.values()) <= TOLERANCE, json.dumps(found)


def rounded(network, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The frames halfway, to the nearest whole levels."""
    height, width = before.shape[-2:]
    first, second = (pairs.padded(images / 255, 16) for images in (before, after))
    middle = first.new_full((len(first), 1, 1, 1), 0.5)
    found = network(first, second, middle, eval=True)["imgt_pred"]
    return (pairs.cropped(found, height, width, 16) * 255).round()


@pytest.mark.slow
@pytest.mark.parametrize(
    "dimension, module, name, mistake",
    [
        # the prediction rounded, not cut
        ("motion_smoothness", vbench_motion_smoothness, "interpolated", rounded),
        # larger frames kept as they are
        ("imaging_quality", vbench_imaging_quality, "SIDE", 10_000),
        # thresholds of the other dimension
        ("dynamic_degree", vbench_dynamic_degree, "THRESHOLD", 3 / 256),
        ("static_filter", vbench_static_filter, "THRESHOLD", 6 / 256),
    ],
)  # fmt: skip
def test_a_mistake_would_show(sides, monkeypatch, dimension, module, name, mistake):
    monkeypatch.setattr(module, name, mistake)
    assert max(differences(sides, dimension).values()) > 2 * TOLERANCE


@pytest.mark.slow
def test_antialiasing_would_show(sides, monkeypatch):
    plain = torch.nn.functional.interpolate

    def antialiased(x, size, mode):
        return plain(x, size, mode=mode, antialias=True)

    preprocess = vbench_imaging_quality.preprocess

    def changed(frames):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "interpolate", antialiased)
            return preprocess(frames)

    monkeypatch.setattr(vbench_imaging_quality, "preprocess", changed)
    assert max(differences(sides, "imaging_quality").values()) > 2 * TOLERANCE


@pytest.mark.slow
def test_the_number_of_pairs_at_once_changes_nothing(sides, monkeypatch):
    compute = get_family("vbench_motion_smoothness").load(Setting())
    clip = next(clip for file, clip in sides.clips.items() if file.endswith("slow.mp4"))
    together = compute(clip)["motion_smoothness"]
    monkeypatch.setattr(pairs, "MOST", 1)
    assert compute(clip)["motion_smoothness"] == pytest.approx(together, abs=1e-5)


def test_the_rules_of_dynamic_degree_and_static_filter_are_the_official_ones(tmp_path):
    """1,000 clips of 2 to 40 frames whose magnitudes lie around the thresholds."""
    site, rng = vbench_site("easydict"), np.random.default_rng(0)
    cases = []
    for _ in range(1000):
        frames, side = int(rng.integers(2, 41)), int(rng.integers(121, 720))
        level = rng.choice([0.5, 1, 2, 4]) * rng.choice([3, 6]) * side / 256
        magnitudes = (level * rng.uniform(0.2, 1.3, frames + 1)).tolist()
        height, width = (side, 2 * side) if rng.random() < 0.5 else (side + 40, side)
        cases.append({"magnitudes": magnitudes, "frames": frames, "height": height, "width": width})
    official = run_official("official_motion.py", site, tmp_path, {"verdicts": cases})
    ours = []
    for case in cases:
        steps, ends = case["magnitudes"][:-2], case["magnitudes"][-2:]
        frames, side = case["frames"], min(case["height"], case["width"])
        moves = vbench_dynamic_degree.moves(iter(steps), frames, side)
        ours.append([moves, vbench_static_filter.is_static(iter(ends), iter(steps), frames, side)])
    assert ours == official
    for column in zip(*official, strict=True):
        assert 100 < sum(column) < 900
