"""Score stores with known numbers, in run folders, as distill, generate and eval leave them."""

import hashlib
import json
from pathlib import Path

import numpy as np

from dfdbench.evaluate.metrics import GroupValue, all_metrics
from dfdbench.evaluate.schema import Key, Row
from dfdbench.evaluate.store import Store
from dfdbench.utils.run import Run
from dfdbench.utils.video import write_video

PROMPTS = ("ball-desert", "bar-snow", "cross-city", "triangle-snow")
SEEDS = tuple(range(1, 9))
SATURATION = {
    "real": 0.12, "teacher": 0.14, "dmd2": 0.22, "dmd2_control": 0.24, "dp_dmd": 0.19, "dfd": 0.13,
}  # fmt: skip
ENTROPY = {
    "real": 0.98, "teacher": 0.93, "dmd2": 0.41, "dmd2_control": 0.43, "dp_dmd": 0.55, "dfd": 0.82,
}  # fmt: skip


def write_log(run: Run, seed: int) -> None:
    """A training curve as distill/diagnostics.py writes it; the last line is cut short."""
    rng = np.random.default_rng(seed)
    lines: list[dict] = []
    for update in range(1, 81):
        loss = 0.3 * np.exp(-update / 30) + 0.05 + 0.02 * rng.normal()
        critic = 0.6 + 0.4 * np.exp(-update / 10)
        lines.append(
            {"kind": "update", "update": update, "matching": loss, "critic_fake_score": critic}
        )
        if update % 20 == 0:
            saturation = SATURATION[run.arm] * update / 80
            lines.append({"kind": "probe", "update": update, "saturation_generated": saturation})
            lines.append(
                {
                    "kind": "bins", "update": update, "t_edges": [0.0, 0.4, 0.8, 1.0],
                    "probe_delta": [seed, 1.0 + seed, None], "probe_delta_count": [1.0, 3.0, 0.0],
                    "distance2": [0.2, 0.5, 1.0 + seed], "distance2_count": [1.0, 1.0, 1.0 + seed],
                }
            )  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind"')


def write_clip(path: Path, arm: str, seed: int, grey: int = 90, frames: int = 5) -> None:
    """A clip of 64×64 in which a rectangle, its colour and place by arm and seed, moves right."""
    hue = np.zeros(3, np.uint8)
    hue[seed % 3] = int(60 + 600 * SATURATION[arm])
    clip = np.full((frames, 64, 64, 3), grey, np.uint8)
    for t, frame in enumerate(clip):
        frame[16 + 2 * seed : 40, 4 + 2 * t : 26 + 2 * t] += hue
    write_video(path, clip, 8)


def add_run(
    folder: Path,
    arm: str,
    training_seed: int | None,
    suite: str = "toy-t2v",
    filmed: int = 1,
    text: str = "a clip of {}",
) -> Run:
    """A run whose scores scatter about SATURATION and ENTROPY.

    filmed: so many prompts, the first ones, have clips. text: of a prompt, from its id.
    """
    trained = training_seed is not None
    info = {
        "arm": arm, "method": arm.removesuffix("_control"), "training_seed": training_seed,
        "student_updates": 100 + (training_seed or 0) if trained else 0,
        "wall_seconds": 60.0 if trained else 0.0, "model": "toy-t2v",
    }  # fmt: skip
    if arm in ("dfd", "dmd2_control"):
        info["parent"] = {"arm": "dmd2"}
    run = Run.create(folder, info)
    if trained:
        write_log(run, training_seed)
    rng = np.random.default_rng([len(arm), 99 if training_seed is None else training_seed])
    shift = rng.normal(0, 0.004)
    version = {name: metric.version for name, metric in all_metrics().items()}
    with Store(run.path / "scores.sqlite") as store:
        groups = {}
        for i, prompt in enumerate(PROMPTS):
            for seed in SEEDS:
                path = f"videos/{suite}/{prompt}/{seed}.mp4"
                if i < filmed:
                    grey = 90 + 8 * i + 2 * (training_seed or 0)
                    write_clip(folder / path, arm, seed, grey, 5 if filmed == 1 else 17)
                sha = hashlib.sha256(f"{arm}{training_seed}{path}".encode()).hexdigest()
                value = SATURATION[arm] + 0.01 * i + shift + rng.normal(0, 0.01)
                histogram = np.exp(-0.5 * ((np.arange(256) / 255 - value) / 0.1) ** 2)
                where = ("", "even16", "d", "float32", "cpu")
                store.add_scores(
                    Row(suite, path, prompt, text.format(prompt), seed, arm, sha),
                    {
                        Key(sha, name, version[name], *where): value
                        for name, value in (
                            ("saturation_mean", value),
                            ("oracle_hue", float(seed % 6)),
                            ("saturation_histogram", histogram / histogram.sum()),
                        )
                    },
                )
            entropy = ENTROPY[arm] + 0.02 * i + shift + rng.normal(0, 0.01)
            groups[arm, prompt] = {
                "hue_entropy": GroupValue(entropy, len(SEEDS)),
                "hue_gini": GroupValue(0.9 * entropy, len(SEEDS)),
            }
        store.set_groups(suite, {n: version[n] for n in ("hue_entropy", "hue_gini")}, groups)
    return run
