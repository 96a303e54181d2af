"""Five of VBench's dimensions by the official package and by one scoring call, on a CPU.

    DFDBENCH_VBENCH_SITE=FOLDER python benchmarks/bench_vbench.py [--threads N]

FOLDER holds vbench 0.1.5 and what it imports, as in tests/evaluate/vbench/official.py. Both
sides read the same clips and the same random checkpoints of the published architectures (those of
tests/evaluate/vbench/), each in a process of its own with as many threads as it chooses, or N:

- official: `VBench.evaluate`, which takes one dimension after the other;
- ours: `dfdbench.evaluate.engine.score` with the same five families.

They take turns (official, ours, official, ...), so that a drift of the machine hits both; a ratio
is formed within each pair. The released clips (of $DFDBENCH_VIDEOS, or ../shared/videos beside the
repository) are cut to their first frames, a toy clip is enlarged to the 128 pixels that RAFT and
AMT-S need. dynamic_degree costs us less for a clip that moves, since a verdict ends the search, so
the large clips are measured twice: with RAFT's last layer scaled so that all of them move, and so
that none does. Only that scale differs between the two; the official code always computes all.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "vbench"
FAMILIES = {
    "subject_consistency": "vbench_subject_consistency",
    "background_consistency": "vbench_background_consistency",
    "temporal_flickering": "flicker",
    "motion_smoothness": "vbench_motion_smoothness",
    "dynamic_degree": "vbench_dynamic_degree",
}
CLIPS = ("anim_fox_teacher", "vipe_turtle_dfd")
FASTER = 20.0  # of RAFT's last layer where every clip is to move, none at 1
RAFT = "raft_model/models/raft-things.pth"


class Stopwatch:
    """Seconds by name, summed: CPU of the calling thread or, if asked, of the process, and wall."""

    def __init__(self, cpu: Callable[[], float]) -> None:
        self.cpu, self.seconds = cpu, dict[str, list[float]]()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to `name`."""

        def call(*args: Any, **options: Any) -> Any:
            cpu, wall = self.cpu(), time.perf_counter()
            found = function(*args, **options)
            spent = self.seconds.setdefault(name, [0.0, 0.0])
            spent[0] += self.cpu() - cpu
            spent[1] += time.perf_counter() - wall
            return found

        return call


def official(job: dict[str, Any]) -> dict[str, Any]:
    """VBench.evaluate over a folder; its loops over clips are timed apart from loading."""
    import torch
    from official_features import shim
    from vbench import VBench

    shim()
    clock = Stopwatch(time.process_time)
    for name in FAMILIES:
        module = import_module(f"vbench.{name}")
        setattr(module, name, clock.timed(name, getattr(module, name)))
    Path(os.environ["VBENCH_CACHE_DIR"], "dino_model", "facebookresearch_dino_main").mkdir(
        exist_ok=True  # so that it clones nothing; the shim reads DINO's definition elsewhere
    )
    judge = VBench(torch.device("cpu"), "", job["out"])
    judge.evaluate(
        job["videos"], "bench", dimension_list=list(FAMILIES), local=True, mode="custom_input"
    )
    results = json.loads(Path(job["out"], "bench_eval_results.json").read_text(encoding="utf-8"))
    return {
        "dimensions": clock.seconds,
        "scores": {
            name: {Path(v["video_path"]).name: float(v["video_results"]) for v in videos}
            for name, (_, videos) in results.items()
        },
        "threads": torch.get_num_threads(),
    }


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """One scoring call; each family's function and the loading of models are timed."""
    from dfdbench.evaluate import engine as scoring
    from dfdbench.evaluate.metrics import Compute, Setting, get_family
    from dfdbench.evaluate.store import Store

    # clips run in threads of their own, and networks in none beside them
    clock, loading = Stopwatch(time.thread_time), Stopwatch(time.process_time)
    metrics = {family: name for name, family in FAMILIES.items()}

    def family_of(name: str) -> Any:
        family = get_family(name)

        def load(setting: Setting) -> Compute:
            compute = loading.timed("load", family.load)(setting)
            return clock.timed(metrics[name], compute)

        return replace(family, load=load)

    scoring.get_family = family_of  # type: ignore[attr-defined]
    scoring.read_video = clock.timed("decoding", scoring.read_video)  # type: ignore[attr-defined]
    run = Stopwatch(time.process_time)
    run.timed("score", scoring.score)(
        [job["videos"]],
        "clips",
        Path(job["out"]) / "s.sqlite",
        families=list(metrics),
        workers=job["threads"] or None,
    )
    with Store(Path(job["out"]) / "s.sqlite") as store:
        table = store.values("clips", FAMILIES)
    files = [Path(path).name for path in table["path"]]
    scores = {name: dict(zip(files, table[name], strict=True)) for name in FAMILIES}
    score, load = run.seconds["score"], loading.seconds["load"]
    return {
        "dimensions": clock.seconds,
        "loop": [a - b for a, b in zip(score, load, strict=True)],
        "scores": scores,
        "threads": job["threads"] or min(os.cpu_count() or 1, scoring.MOST_WORKERS),
    }


def run(side: str, site: str, cache: Path, videos: Path, threads: int) -> dict[str, Any]:
    """One side in a process of its own, with seconds and CPU seconds of the whole process."""
    with tempfile.TemporaryDirectory() as out:
        path = [site, str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "VBENCH_CACHE_DIR": str(cache),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        start, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, __file__, "--side", side],
            input=json.dumps({"videos": str(videos), "out": out, "threads": threads}),
            capture_output=True,
            text=True,
            env=environment,
        )
        wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    used = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    loop = found.get("loop") or [sum(v[i] for v in found["dimensions"].values()) for i in (0, 1)]
    load = round(os.getloadavg()[0], 2)
    return found | {"process": [used, wall], "loop": loop, "load": load}


def scaled(cache: Path, target: Path, factor: float) -> Path:
    """The checkpoints of `cache`, RAFT's last layer `factor` times as large."""
    import torch

    for file in cache.rglob("*.pt*"):
        other = target / file.relative_to(cache)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.symlink_to(file)
    state = torch.load(cache / RAFT, weights_only=True)
    state["module.update_block.flow_head.conv2.weight"] *= factor
    (target / RAFT).unlink()
    torch.save(state, target / RAFT)
    return target


def write_sets(folder: Path, frames: int) -> dict[str, str]:
    """Folders `large` and `toy` of clips; says what is in each."""
    from dfdbench.toy.world import render, sample_attributes
    from dfdbench.utils.video import read_video, write_video

    videos = Path(os.environ.get("DFDBENCH_VIDEOS", ROOT.parent / "shared" / "videos"))
    for name in CLIPS:
        clip = read_video(videos / "t2v" / f"{name}.mp4")
        write_video(folder / "large" / f"{name}.mp4", clip.frames[:frames], clip.fps)
    height, width = clip.frames.shape[1:3]
    toy = (render(sample_attributes(4, seed=5)).permute(0, 2, 3, 4, 1) * 255).byte().numpy()
    for i, one in enumerate(toy):
        write_video(folder / "toy" / f"toy{i}.mp4", one.repeat(2, 1).repeat(2, 2), 8)
    return {
        "large": f"{', '.join(CLIPS)}: {width}x{height}, first {frames} frames, {clip.fps:g} fps",
        "toy": f"4 toy clips enlarged to 128x128, {toy.shape[1]} frames, 8 fps",
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median, least and largest, to three digits."""
    numbers = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in numbers.items()}


def compare(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Ratios official / ours over the pairs of runs, and how far the scores lie apart."""
    ratios: dict[str, Any] = {}
    for part, meaning in (("process", "with loading"), ("loop", "without loading")):
        for i, unit in enumerate(("CPU", "wall")):
            values = [theirs[part][i] / our[part][i] for theirs, our in pairs]
            ratios[f"{unit}, {meaning}"] = spread(values)
    for name in FAMILIES:
        values = [t["dimensions"][name][0] / o["dimensions"][name][0] for t, o in pairs]
        ratios[f"CPU, {name}"] = spread(values)
    seconds = {
        side: {
            "process": [
                round(statistics.median(p[k]["process"][i] for p in pairs), 2) for i in (0, 1)
            ],
            "loop": [round(statistics.median(p[k]["loop"][i] for p in pairs), 2) for i in (0, 1)],
            "CPU by dimension": {
                name: round(statistics.median(p[k]["dimensions"][name][0] for p in pairs), 2)
                for name in pairs[0][k]["dimensions"]
            },
        }
        for k, side in enumerate(("official", "ours"))
    }
    apart = {
        name: max(
            abs(o["scores"][name][v] - x) for t, o in pairs for v, x in t["scores"][name].items()
        )
        for name in FAMILIES
    }
    return {
        "ratio": ratios,
        "median seconds, [CPU, wall]": seconds,
        "largest difference of a score": apart,
        "dynamic_degree": pairs[0][0]["scores"]["dynamic_degree"],
        "threads": {"official": pairs[0][0]["threads"], "ours": pairs[0][1]["threads"]},
        "pairs of runs": len(pairs),
        "load after each": [our["load"] for _, our in pairs],
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    from importlib.metadata import version

    model = [
        s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")
    ]
    return {
        "device": f"CPU, {os.cpu_count()} cores, {model[0].split(':')[1].strip()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "official": "vbench 0.1.5",
    }


def measure(repeats: int, frames: int, threads: int, out: Path) -> None:
    """All sets, the two sides in turn; writes what is known after each pair of runs."""
    import random_features
    from official import run_official

    from dfdbench.utils.files import write_json

    site = os.environ.get("DFDBENCH_VBENCH_SITE", "")
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "still"
        cache.mkdir()
        run_official("official_motion.py", site, cache, {"cache": str(cache)})
        random_features.write_dino(cache)
        random_features.write_clip(cache, "ViT-B-32")
        moving = scaled(cache, folder / "moving", FASTER)
        result["clips"] = write_sets(folder, frames)
        sets = {"moving": ("large", moving), "still": ("large", cache), "toy": ("toy", cache)}
        for kind, (clips, weights) in sets.items():
            pairs = list[tuple[dict[str, Any], dict[str, Any]]]()
            for _ in range(repeats):
                theirs, our = (
                    run(side, site, weights, folder / clips, threads)
                    for side in ("official", "ours")
                )
                pairs.append((theirs, our))
                result[kind] = compare(pairs)
                write_json(out, result)
                print(kind, [s["process"] + s["loop"] for s in (theirs, our)], flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=int, default=9, help="of each large clip")
    parser.add_argument("--threads", type=int, default=0, help="of both; 0: what each chooses")
    parser.add_argument("--out", type=Path, default=ROOT / "results/vbench-speed/summary.json")
    parser.add_argument("--side", choices=("official", "ours"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        with redirect_stdout(sys.stderr):
            found = (official if given.side == "official" else ours)(json.load(sys.stdin))
        print(json.dumps(found))
        return
    sys.path.insert(0, str(TESTS))
    measure(given.repeats, given.frames, given.threads, given.out)
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
