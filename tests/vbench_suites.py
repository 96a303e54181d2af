"""VBench's info files in small, with other prompts than VBench's, and clips and images for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from clips import random_clip
from PIL import Image

from dfdbench.utils.video import write_video

STILL, STYLE, TWICE = "In a still frame, a kettle", "A façade at dusk, oil painting", "a red kite"
T2V = [
    {"prompt_en": STILL, "dimension": ["temporal_flickering"]},
    {
        "prompt_en": STYLE,
        "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}},
    },
    {"prompt_en": TWICE, "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "A person is juggling balls", "dimension": ["human_action"]},
    {"prompt_en": TWICE, "dimension": ["subject_consistency", "imaging_quality"]},
]
LAKE = "a lake between hills"
I2V = [
    {
        "prompt_en": LAKE,
        "dimension": ["i2v_background", "background_consistency", "temporal_flickering"],
        "image_type": "scenery",
        "image_name": f"{LAKE}.jpg",
    },
    {
        "prompt_en": f"{LAKE}, camera pans left",
        "dimension": ["camera_motion"],
        "image_type": "scenery",
        "image_name": f"{LAKE}.jpg",
    },
    {
        "prompt_en": "a dog on a sofa",
        "dimension": ["i2v_subject", "dynamic_degree", "imaging_quality"],
        "image_type": "animal",
        "image_name": "a dog on a sofa.jpg",
    },
]


def write_info(path: Path, entries: object) -> Path:
    """An info file with these entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of this test alone, without weights; VBench's small info file among them."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(folder / "vbench"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setenv("DFDBENCH_ASSETS", str(folder / "assets"))
    monkeypatch.setattr("dfdbench.generate.suites.vbench_info.find_spec", lambda name: None)
    write_info(folder / "vbench" / "VBench_full_info.json", T2V)


def image_suite(folder: Path, ratios: tuple[str, ...] = ("1-1", "8-5", "7-4", "16-9")) -> Path:
    """VBench-I2V's folder as its archives unpack; each crop has a colour of its own."""
    write_info(folder / "vbench2_i2v_full_info.json", I2V)
    for i, ratio in enumerate(ratios):
        for k, name in enumerate(dict.fromkeys(entry["image_name"] for entry in I2V)):
            path = folder / "data" / "crop" / ratio / str(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 40 * i + 10 * k, np.uint8)).save(path)
    return folder


def named_clips(folder: Path, texts: list[str], clips: int = 1, frames: int = 5) -> Path:
    """A folder of clips with VBench's names, all different."""
    for i, text in enumerate(texts):
        for k in range(clips):
            pixels = random_clip(100 * i + k, frames)
            write_video(folder / f"{text}-{k}.mp4", pixels, fps=8)
    return folder
