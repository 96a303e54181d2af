"""Clips for tests: small synthetic ones, and where the real released clips lie."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfdbench.utils.assets import ASSETS, locate
from dfdbench.utils.errors import MissingWeights
from dfdbench.utils.video import Clip, write_video


def released_videos() -> Path:
    """Folder of the DFD paper's released clips; skips the test where it is absent."""
    default = Path(__file__).parent.parent.parent / "shared" / "videos"
    folder = Path(os.environ.get("DFDBENCH_VIDEOS", default))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("the released clips are not here; set DFDBENCH_VIDEOS to their folder")
    return folder


def random_clip(seed: int = 0, frames: int = 17, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth coloured noise that moves: uint8 (T, H, W, 3), every channel different."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (frames // 4 + 2, height // 8 + 1, width // 8 + 1, 3))
    t = np.linspace(0, len(coarse) - 1.001, frames)
    whole, part = t.astype(int), (t % 1)[:, None, None, None]
    mixed = coarse[whole] * (1 - part) + coarse[whole + 1] * part
    return mixed.repeat(8, 1).repeat(8, 2)[:, :height, :width].astype(np.uint8)


def write_manifest(folder: Path, count: int = 4, method: str = "dmd2") -> Path:
    """`count` random clips of two prompts with a manifest.jsonl; returns the manifest."""
    rows = []
    for i in range(count):
        path = folder / f"{method}-{i}.mp4"
        write_video(path, random_clip(i), fps=8)
        prompt = f"p{i % 2}"
        rows.append({"path": path.name, "prompt_id": prompt, "seed": i // 2, "method": method})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


def as_clip(frames: np.ndarray, fps: float = 16.0) -> Clip:
    """The frames as if they had been decoded."""
    return Clip(frames, fps, "test", np.arange(len(frames)))


def moving_texture(
    frames: int, step: int, height: int = 128, width: int = 192, seed: int = 0
) -> np.ndarray:
    """A smooth texture that moves `step` pixels to the left a frame: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    length = width + step * (frames - 1)
    coarse = rng.integers(0, 256, (height // 8, length // 8 + 1, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (length, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, i * step : i * step + width] for i in range(frames)])


def needs(*assets: str) -> None:
    """Skip the test where the files of an asset are not here."""
    for name in assets:
        try:
            locate(name)
        except MissingWeights as error:
            pytest.skip(str(error))


def forget_hashes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let files of an asset pass that are not the pinned ones, to test what looks inside them."""
    asset = ASSETS[name]
    monkeypatch.setitem(ASSETS, name, replace(asset, files=dict.fromkeys(asset.files, "")))


def put_no_file(path: Path, kind: str) -> None:
    """What stands at `path` in place of a regular file; a socket's path must be short."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("gone")
