"""temporal_style, overall_consistency and human_action against VBench's own code, same weights.

VBench 0.1.5 is looked for among the installed packages and in $DFDBENCH_VBENCH_SITE, a folder made
with `pip install --no-deps --target` from vbench, openai-clip and einops. The differences found are
written to $DFDBENCH_PARITY/<test>.json where that names a folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from clips import random_clip, released_videos
from official import vbench_site
from text_networks import TINY_CLIP, TINY_UMT, expect_tiny, write_umt, write_viclip

from dfdbench.evaluate.metrics import Setting, get_family, get_metric
from dfdbench.evaluate.metrics.vbench import human_action as umt
from dfdbench.evaluate.metrics.vbench.nets import viclip
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, IMAGENET, normalised, resized
from dfdbench.evaluate.vbench.export import full_info
from dfdbench.evaluate.vbench.totals import dimension_scores
from dfdbench.toy import world
from dfdbench.utils.files import write_json
from dfdbench.utils.video import read_video, write_video

pytestmark = pytest.mark.slow  # VBench starts in an interpreter of its own
TOLERANCE = 1e-4
DIMENSIONS = ("temporal_style", "overall_consistency")
TINY = {
    "viclip": {"vision": (32, 2, 2, 24), "text": (32, 2, 2)},
    "umt": TINY_UMT,
}


def official(folder: Path, info: list[dict[str, Any]], **job: Any) -> dict[str, Any]:
    """What VBench's code says of the videos of an info file."""
    site = vbench_site()
    cache = folder / "cache"
    vocabulary = cache / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(open_clip.tokenizer.default_bpe(), vocabulary)
    (folder / "info.json").write_text(json.dumps(info))
    job |= {
        "info": str(folder / "info.json"),
        "viclip_weights": str(cache / viclip.WEIGHTS),
        "umt_weights": str(cache / umt.WEIGHTS),
    }
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("official_text.py")
    environment = os.environ | {"PYTHONPATH": site, "VBENCH_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, script, folder / "job.json", folder / "answer.json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def toy_frames(seed: int) -> np.ndarray:
    video = world.render(world.sample_attributes(1, seed))[0]
    return (video * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def write_clips(folder: Path) -> list[Path]:
    """Square, landscape, portrait and large clips; one has fewer frames than either network."""
    frames = [
        toy_frames(0),
        toy_frames(1),
        random_clip(2, frames=33, height=96, width=168),
        random_clip(3, frames=5, height=150, width=86),
        random_clip(4, frames=20, height=300, width=444),
    ]
    paths = [folder / f"clip {i}-0.mp4" for i in range(len(frames))]
    for path, clip in zip(paths, frames, strict=True):
        write_video(path, clip, fps=8)
    return paths


PROMPTS = ["a red ball rolls, zoom in", "snow &amp; ice", "Ünïcode  spaces", "long " * 60, "x"]


def styles_of(
    videos: list[Path], prompts: list[str], dimensions: Sequence[str]
) -> dict[str, list[float]]:
    """Our values of each dimension."""
    values = {}
    for dimension in dimensions:
        family = get_family(get_metric(dimension).family)
        compute = family.load(Setting())
        values[dimension] = [
            float(compute(read_video(video, family.policy)._replace(prompt=prompt))[dimension])
            for video, prompt in zip(videos, prompts, strict=True)
        ]
    return values


def record(test: str, differences: dict[str, float]) -> None:
    """Keep what a test measured."""
    if folder := os.environ.get("DFDBENCH_PARITY"):
        write_json(Path(folder) / f"{test}.json", differences)


def compare_styles(
    folder: Path,
    videos: list[Path],
    prompts: list[str],
    dimensions: Sequence[str] = DIMENSIONS,
    spoils: Sequence[Callable[[], None]] = (),
    **job: Any,
) -> dict[str, float]:
    """Largest difference of a video, and that of the aggregate, for each dimension.

    With each of `spoils`, other ways to prepare frames, ours must differ by far more.
    """
    ours = styles_of(videos, prompts, dimensions)
    clips = {"method": "m", "prompt_id": prompts, "prompt": prompts, "path": [*map(str, videos)]}
    table = pd.DataFrame(clips | ours)
    # what we export is what VBench reads
    theirs = official(folder, full_info(table), dimensions=dimensions, **job)
    scores = dimension_scores(table).set_index("dimension")["score"]
    differences = {}
    for dimension in dimensions:
        score, results = theirs[dimension]
        found = {result["video_path"]: result["video_results"] for result in results}
        values = [found[str(video)] for video in videos]
        assert np.diff(sorted(values)).min() > 10 * TOLERANCE
        differences[dimension] = largest(values, ours[dimension])
        differences[f"{dimension} aggregate"] = abs(score - scores[dimension])
    for spoil in spoils:
        spoil()
        spoilt = styles_of(videos, prompts, dimensions)
        assert all(largest(spoilt[d], ours[d]) > 10 * TOLERANCE for d in dimensions)
    return differences


def largest(a: Any, b: Any) -> float:
    return float(np.abs(np.subtract(a, b)).max())


def actions_of(videos: list[Path]) -> np.ndarray:
    """Our probabilities of the classes (videos, 400)."""
    network = umt.load_network("cpu")
    policy = umt.FAMILY.policy
    clips = [umt.preprocess(read_video(video, policy).frames) for video in videos]
    with torch.inference_mode():
        return torch.stack([umt.probabilities(network, clip) for clip in clips]).numpy()


def compare_actions(
    folder: Path,
    videos: list[Path],
    names: Sequence[int] = (-3, 0),
    spoils: Sequence[Callable[[], None]] = (),
    **job: Any,
) -> dict[str, float]:
    """Largest difference of a class's probability; VBench's verdicts must be the family's.

    names: after which classes, by probability, each clip is named: -3 is seen in it, 0 is not.
    spoils: as of `compare_styles`.
    """
    ours = actions_of(videos)
    info, verdicts = [], []
    for number, (video, probability) in enumerate(zip(videos, ours, strict=True)):
        order = probability.argsort()
        for place in names:
            prompt = f"A person is {umt.categories()[order[place]]}"
            path = folder / f"{prompt}-{number}.mp4"
            shutil.copy(video, path)
            info.append(
                {"prompt_en": prompt, "dimension": ["human_action"], "video_list": [str(path)]}
            )
            verdicts.append(umt.action_of(prompt) in umt.seen(torch.from_numpy(probability)))
    answer = official(folder, info, dimensions=["human_action"], **job)["human_action"]
    score, results, theirs = answer
    assert verdicts == [result["video_results"] for result in results]
    assert verdicts == [place < 0 for place in names] * len(videos)
    probabilities = np.array(theirs[:: len(names)])
    assert np.abs(np.diff(probabilities, axis=0)).max(1).min() > 10 * TOLERANCE
    for spoil in spoils:
        spoil()
        assert largest(actions_of(videos), ours) > 10 * TOLERANCE
    return {
        "human_action probabilities": largest(probabilities, ours),
        "human_action aggregate": abs(score - float(np.mean(verdicts))),
    }


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for one comparison, with tiny random weights in its cache."""
    vbench_site()
    expect_tiny(monkeypatch)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    # weights this large show in the score how frames were prepared
    write_viclip(tmp_path / "cache", scale=1)
    write_umt(tmp_path / "cache", scale=1)
    return tmp_path


def test_tiny_network_has_the_sizes_that_official_code_is_told() -> None:
    vision, text = TINY_CLIP["vision_cfg"], TINY_CLIP["text_cfg"]
    heads = vision["width"] // vision["head_width"]
    assert TINY["viclip"]["vision"] == (
        vision["width"], vision["layers"], heads, TINY_CLIP["embed_dim"],
    )  # fmt: skip
    assert TINY["viclip"]["text"] == (text["width"], text["layers"], text["heads"])


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Makes both families prepare frames as other code does: antialiased, or without rounding."""

    def change(antialias: bool) -> None:
        def prepare(frames: np.ndarray, mode: Any, statistics: Any) -> torch.Tensor:
            return normalised(resized(frames, 224, mode, antialias, crop=224), statistics)

        monkeypatch.setattr(viclip, "preprocess", lambda f: prepare(f, "bicubic", CLIP))
        monkeypatch.setattr(umt, "preprocess", lambda f: prepare(f, "bilinear", IMAGENET))

    return [lambda: change(True), lambda: change(False)]


def test_styles_equal_the_official_code(tiny: Path, wrong: list[Callable[[], None]]) -> None:
    differences = compare_styles(tiny, write_clips(tiny), PROMPTS, spoils=wrong, **TINY)
    record("styles_tiny", differences)
    assert max(differences.values()) <= TOLERANCE


def test_human_action_equals_the_official_code(tiny: Path, wrong: list[Callable[[], None]]) -> None:
    differences = compare_actions(tiny, write_clips(tiny), spoils=wrong, **TINY)
    record("human_action_tiny", differences)
    assert max(differences.values()) <= TOLERANCE


def test_categories_are_those_of_the_official_file() -> None:
    site = vbench_site()
    package = Path(site) / "vbench" if site else Path(str(find_spec("vbench").origin)).parent
    lines = (package / "third_party" / "umt" / "kinetics_400_categories.txt").read_text()
    pairs = [line.split("\t") for line in lines.splitlines()]
    assert {int(number): name.lower() for name, number in pairs} == dict(
        enumerate(umt.categories())
    )


def test_styles_equal_the_official_code_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vbench_site()
    released = sorted((released_videos() / "t2v").glob("*.mp4"))[:2]
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    write_viclip(tmp_path / "cache", viclip.MODEL, scale=0.05)
    differences = compare_styles(tmp_path, released, PROMPTS[:2], DIMENSIONS[:1], viclip=None)
    record("styles_full", differences)
    assert max(differences.values()) <= TOLERANCE


def test_human_action_equals_the_official_code_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vbench_site()
    released = sorted((released_videos() / "t2v").glob("*.mp4"))[:2]
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    write_umt(tmp_path / "cache", umt.ARCHITECTURE, scale=0.05)
    differences = compare_actions(tmp_path, released, names=(-3,), umt=None)
    record("human_action_full", differences)
    assert max(differences.values()) <= TOLERANCE
