"""Scoring all families in one pass against one process a family; second runs; memory.

    python benchmarks/bench_scoring.py [--clips 10] [--many 100] [--metrics a,b] [--out FILE]

Writes 832×480×81 clips (moving texture, H.264), then runs `dfdbench eval` as a user would:

- together: one process, every family, each clip decoded once;
- separate: one process a family, one after the other, each decoding for itself, with as many
  workers as `together`: what sharing the decoded clip and the start-up saves;
- plain: the same with one worker, as tools score that take one clip after another;
- second: `together` again on the same store;
- without networks: the same for the families that run no network, where decoding weighs more;
- memory: peak resident memory of `together` for --clips clips and for --many.

Everything runs on the same machine in one go; read the ratios, not the seconds. Times are of
single runs; `repeats` says how often, and the spread is given.
"""

import argparse
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdbench.evaluate.metrics import Setting, families_of, get_family
from dfdbench.generate.suites import get_suite
from dfdbench.utils.errors import MissingWeights
from dfdbench.utils.files import write_json
from dfdbench.utils.video import write_video

HEIGHT, WIDTH, FRAMES, FPS = 480, 832, 81, 16
LIMITS = {"separate / together": 3.0, "second / first": 0.02, "peak MB": 1500.0}


def texture(seed: int) -> np.ndarray:
    """A textured picture of twice the size of a frame, uint8 RGB."""
    rng = np.random.default_rng(seed)
    layers = [rng.uniform(0, 255, (2 * HEIGHT // s, 2 * WIDTH // s, 3)) for s in (96, 32, 8)]
    size = (2 * WIDTH, 2 * HEIGHT)
    grown = [cv2.resize(layer, size, interpolation=cv2.INTER_CUBIC) for layer in layers]
    return np.clip(np.average(grown, axis=0, weights=(4, 2, 1)), 0, 255).astype(np.uint8)


def write_clip(path: Path, seed: int) -> None:
    """A camera that moves over a texture in a circle, differently for every seed."""
    picture = texture(seed)
    angles = np.linspace(0, 2 * np.pi, FRAMES) + seed
    corners = ((np.cos(angles) + 1) * 0.4 * WIDTH, (np.sin(angles) + 1) * 0.4 * HEIGHT)
    frames = [
        picture[int(y) : int(y) + HEIGHT, int(x) : int(x) + WIDTH]
        for x, y in zip(*corners, strict=True)
    ]
    write_video(path, np.stack(frames), FPS)


def copies(source: Path, target: Path, count: int) -> None:
    """`count` files of other bytes but the same frames: an MP4 may end in a box that is skipped."""
    target.mkdir()
    files = sorted(source.glob("*.mp4"))
    for i in range(count):
        mark = f"copy {i}".encode()
        box = struct.pack(">I4s", 8 + len(mark), b"free") + mark
        name = f"prompt {i // 8}-{i % 8}.mp4"
        (target / name).write_bytes(files[i % len(files)].read_bytes() + box)


def run(folder: Path, out: Path, metrics: str, *options: str) -> tuple[float, float]:
    """Seconds and peak resident MB of one `dfdbench eval`."""
    command = [sys.executable, "-m", "dfdbench", "eval", str(folder), "--out", str(out)]
    command += ["--suite", "clips", "--metrics", metrics, *options]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = round(time.perf_counter() - start, 2)
    if status:
        message = process.stderr.read().decode() if process.stderr else ""
        raise SystemExit(f"{' '.join(command)} failed:\n{message}")
    return seconds, usage.ru_maxrss / 1024


def available() -> list[str]:
    """The general families whose weights are here."""
    names = []
    for name in families_of(get_suite("clips").metrics):
        family = get_family(name)
        try:
            if family.find:
                family.find(Setting())
            names.append(name)
        except MissingWeights:
            pass
    return names


def measure(clips: int, many: int, families: list[str], repeats: int) -> dict[str, Any]:
    """All figures; prints each as it comes."""
    result: dict[str, Any] = {
        "clip": f"{WIDTH}x{HEIGHT}x{FRAMES}",
        "clips": clips,
        "families": families,
        "repeats": repeats,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "limits": LIMITS,
    }
    everything = ",".join(families)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for seed in range(10):
            write_clip(work / "drawn" / f"{seed}.mp4", seed)
        copies(work / "drawn", work / "few", clips)
        run(work / "few", work / "warm-up", families[0])  # compiled Python files, disk cache
        light = [family for family in families if not get_family(family).model]
        rows = []
        for _ in range(repeats):
            alone, plain = dict[str, float](), dict[str, float]()
            for family in families:
                for found, options in ((alone, ()), (plain, ("--workers", "1"))):
                    found[family], _ = run(work / "few", work / "alone", family, *options)
                    shutil.rmtree(work / "alone")
            row: dict[str, Any] = {"separate s": alone, "plain s": plain}
            for name, chosen in (("all", families), ("without networks", light)):
                seconds, peak = run(work / "few", work / "together", ",".join(chosen))
                second, _ = run(work / "few", work / "together", ",".join(chosen))
                shutil.rmtree(work / "together")
                row[name] = {
                    "together s": round(seconds, 2),
                    "second s": round(second, 2),
                    "separate / together": round(sum(alone[f] for f in chosen) / seconds, 3),
                    "plain / together": round(sum(plain[f] for f in chosen) / seconds, 3),
                    "second / first": round(second / seconds, 4),
                    "peak MB": round(peak),
                }
            rows.append(row)
            print(json.dumps(row), flush=True)
        result["runs"] = rows
        if many:
            copies(work / "drawn", work / "many", many)
            seconds, peak = run(work / "many", work / "many-scores", everything)
            second, _ = run(work / "many", work / "many-scores", everything)
            result["many"] = {
                "clips": many,
                "seconds": round(seconds, 2),
                "second / first": round(second / seconds, 4),
                "peak MB": round(peak),
                "peak / peak of few": round(peak / rows[0]["all"]["peak MB"], 3),
            }
            print(json.dumps(result["many"]), flush=True)
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--many", type=int, default=100, help="0: leave the large run out")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--metrics", help="families; else all general ones whose weights are here")
    parser.add_argument("--out", type=Path, default=Path("results/scoring/bench.json"))
    given = parser.parse_args()
    families = given.metrics.split(",") if given.metrics else available()
    result = measure(given.clips, given.many, families, given.repeats)
    write_json(given.out, result)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
