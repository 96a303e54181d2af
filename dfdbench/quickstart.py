"""`dfdbench quickstart`: the whole chain at a reduced size, from training to a report.

DMD2, its control, DP-DMD and DFD on the toy with one training seed, then clips of every arm, the
teacher and real clips, scores, a report. Every stage skips what an earlier call finished.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfdbench.run import Run

SUITE = "toy-t2v"


@dataclass(frozen=True)
class Sizes:
    """How much is trained and generated; the defaults fit in 15 minutes on two cores.

    updates, further, dp_dmd: student updates of DMD2, of DFD and the control after it, of DP-DMD.
    clips: real clips to train on. batch: samples an update. seeds: clips a prompt and arm.
    settings: more `--set` values for every recipe.
    """

    updates: int = 120
    further: int = 50
    dp_dmd: int = 120
    clips: int = 512
    batch: int = 16
    seeds: int = 8
    settings: tuple[str, ...] = ()


def train(
    recipe: str, out: Path, updates: int, sizes: Sizes, model: str, init: Path | None = None
) -> Run:
    """One training stage; goes on with what is there, and returns at once when it is finished."""
    from dfdbench.distill.loop import distill
    from dfdbench.recipe import load_recipe

    changes = [
        f"model='{model}'",
        f"data.count={sizes.clips}",
        f"optim.batch={sizes.batch}",
        f"schedule.student_updates={updates}",
        "checkpoint.every_seconds=60",
        *sizes.settings,
    ]
    return distill(load_recipe(recipe, changes), out, resume=True, init=init)


def quickstart(out: Path, model: str = "toy-t2v", sizes: Sizes = Sizes()) -> Path:
    """Run what is missing of the chain under `out`; returns the report's index.html."""
    from dfdbench.generate import generate, open_family, reference_run
    from dfdbench.report.page import report
    from dfdbench.scoring import score
    from dfdbench.suites import get_suite

    runs = out / "runs"
    dmd2 = runs / "dmd2"
    stages: dict[str, Callable[[], Run]] = {
        "DMD2": lambda: train("toy/dmd2", dmd2, sizes.updates, sizes, model),
        "DMD2 control": lambda: train(
            "toy/dmd2_control", runs / "dmd2_control", sizes.further, sizes, model, dmd2
        ),
        "DFD": lambda: train("toy/dfd", runs / "dfd", sizes.further, sizes, model, dmd2),
        "DP-DMD": lambda: train("toy/dp_dmd", runs / "dp_dmd", sizes.dp_dmd, sizes, model),
        "teacher": lambda: reference_run("teacher", runs / "teacher", model),
        "real clips": lambda: reference_run("real", runs / "real", model),
    }
    start = time.monotonic()

    def say(text: str) -> None:
        seconds = int(time.monotonic() - start)
        print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}", file=sys.stderr, flush=True)

    arms = []
    for name, stage in stages.items():
        say(name)
        arms.append(stage())
    suite = get_suite(SUITE)
    say(f"clips: {len(suite.prompts)} prompts × {sizes.seeds} seeds × {len(arms)} arms")
    family = open_family(model)
    for arm in arms:
        generate(arm, suite, range(1, sizes.seeds + 1), family=family)
    say("scores")
    score([arm.path for arm in arms], suite)
    say("report")
    page = report([arm.path for arm in arms], out / "report")
    say("done")
    return page
