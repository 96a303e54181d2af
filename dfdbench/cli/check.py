"""`dfdbench check`: repeats a fixed small experiment and compares it with committed numbers.

The experiment: a short DMD2 on the shipped toy, then DFD and the DMD2 control from it, clips of the
three, scores. Two kinds of numbers lie in results/toy/reference.json:

golden  losses of the first updates of DMD2, DP-DMD and DFD, compared within a relative tolerance
        that rounding on another CPU stays under: a silent numerical change shows here.
bands   scores after training, as intervals that a new run with another training seed would hit
        with 99 % probability: a change of behaviour shows here.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.run import Run

FORMAT = 1
# Relative. One and two threads differed by at most 1e-6 in three updates of each method; another
# CPU's instructions may move more, a changed formula moves far more.
GOLDEN_TOLERANCE = 2e-4
CONFIDENCE = 0.99
LEAST_SPREAD = 0.01  # of a band's half width: few repeats can agree by chance
ARMS = ("dmd2", "dmd2_control", "dfd")
METRICS = (
    "hue_entropy",
    "joint_coverage",
    "prompt_accuracy",
    "sprite_intact",
    "saturation_mean",
    "contrast_rms",
    "temporal_flickering",
)
METHOD = (
    "A band is mean ± t·s·√(1 + 1/n), half width at least LEAST_SPREAD: Student's 99 % prediction "
    "interval for one more run, from n runs of the same experiment that differ in the training "
    "seed alone. `dfd - dmd2_control` is banded as the difference within a seed. Golden values "
    "are the losses of the first updates at training seed 0 on one CPU thread."
)


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    updates, further: student updates of DMD2, and of DFD and the control after it. clips: real
    clips to train on. seeds: clips a prompt. golden: updates whose losses are pinned. settings:
    more `--set` values for every recipe.
    """

    name: str
    updates: int
    further: int
    clips: int
    seeds: int
    golden: int = 3
    batch: int = 8
    model: str = "toy-t2v"
    settings: tuple[str, ...] = ()


QUICK = Size("quick", updates=30, further=15, clips=256, seeds=4)
FULL = Size("full", updates=120, further=50, clips=512, seeds=8)


@dataclass(frozen=True)
class Line:
    """One comparison: a value against what is allowed."""

    what: str
    value: float | None
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value is there and within the band."""
        return self.value is not None and self.low <= self.value <= self.high


@dataclass
class Result:
    """All comparisons of one check."""

    size: str
    lines: list[Line] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every line passed."""
        return all(line.passed for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        rows = [asdict(line) | {"passed": line.passed} for line in self.lines]
        return {"passed": self.passed, "size": self.size, "lines": rows}

    def table(self) -> str:
        """For people: what failed is marked and comes first."""
        rows = sorted(self.lines, key=lambda line: line.passed)
        width = max((len(line.what) for line in rows), default=4)
        text = [f"{'':4} {'what':{width}} {'value':>10}   allowed"]
        for line in rows:
            value = "missing" if line.value is None else f"{line.value:.6g}"
            mark = "ok" if line.passed else "FAIL"
            text.append(
                f"{mark:4} {line.what:{width}} {value:>10}   {line.low:.6g} to {line.high:.6g}"
            )
        failed = sum(not line.passed for line in self.lines)
        verdict = "no regression" if self.passed else f"{failed} outside: a regression"
        return "\n".join([*text, f"{self.size} check: {len(rows)} comparisons, {verdict}"])


def train(
    recipe: str,
    out: Path,
    updates: int,
    size: Size,
    settings: Sequence[str],
    init: Path | None = None,
) -> Run:
    """One training stage; goes on with what is there, and returns at once when it is finished."""
    from dfdbench.distill.loop import distill
    from dfdbench.distill.recipe import load_recipe

    changes = [
        f"model='{size.model}'",
        f"data.count={size.clips}",
        f"optim.batch={size.batch}",
        f"schedule.student_updates={updates}",
        "checkpoint.every_seconds=60",
        *size.settings,
        *settings,
    ]
    return distill(load_recipe(recipe, changes), out, resume=True, init=init)


def golden_losses(size: Size, work: Path) -> dict[str, list[dict[str, float]]]:
    """Method → the logged numbers of its first updates from the teacher, at training seed 0."""
    found = {}
    for method in ("dmd2", "dp_dmd", "dfd"):
        settings = ("init.recipe=''", "log.every=1", "log.probe_every=0", "log.decode_every=0")
        run = train(f"toy/{method}", work / f"golden-{method}", size.golden, size, settings)
        found[method] = [
            {key: value for key, value in line.items() if key not in ("kind", "update")}
            for line in run.metrics("update")
        ]
    return found


def measure(size: Size, work: Path, seed: int) -> dict[str, float]:
    """Train, generate and score once; finished parts under `work` are reused.

    Returns the means over prompts of METRICS by `arm metric`, and those of dfd − dmd2_control.
    """
    from dfdbench.evaluate.engine import score
    from dfdbench.generate.clips import generate, open_family
    from dfdbench.generate.suites import get_suite
    from dfdbench.report.collect import collect

    first, settings = work / "dmd2", (f"seed={seed}",)
    runs = [train("toy/dmd2", first, size.updates, size, settings)]
    for arm in ("dmd2_control", "dfd"):
        runs.append(train(f"toy/{arm}", work / arm, size.further, size, settings, first))
    suite, family = get_suite("toy-t2v"), open_family(size.model)
    for run in runs:
        generate(run, suite, range(1, size.seeds + 1), family=family)
    score([run.path for run in runs], suite)
    values = collect([run.path for run in runs]).values
    means = values.groupby(["arm", "metric", "prompt_id"])["value"].mean()
    by_arm = means.groupby(["arm", "metric"]).mean()
    found = {f"{a} {m}": float(by_arm[a, m]) for a in ARMS for m in METRICS if (a, m) in by_arm}
    for metric in METRICS:
        a, b = found.get(f"dfd {metric}"), found.get(f"dmd2_control {metric}")
        if a is not None and b is not None:
            found[f"dfd - dmd2_control {metric}"] = a - b
    return found


def teacher_sha256(size: Size) -> str:
    """Hash of the teacher that the experiment would use."""
    from dfdbench.models.registry import resolve_folder
    from dfdbench.utils.run import weights_sha256

    return weights_sha256(resolve_folder(size.model) / "transformer")


def band(values: Sequence[float]) -> dict[str, Any]:
    """Prediction interval for one more value; see METHOD."""
    import numpy as np
    from scipy import stats

    n, mean = len(values), float(np.mean(values))
    t = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = max(LEAST_SPREAD, t * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / n))
    return {"low": mean - half, "high": mean + half, "mean": mean, "values": list(values)}


def _read(reference: Path, size: Size) -> dict[str, Any]:

    remedy = f"make it: dfdbench check --update{' --quick' if size.name == 'quick' else ''}"
    if not reference.is_file():
        raise UserError(f"{reference}: no such reference; give --reference, or {remedy}")
    try:
        known = json.loads(reference.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{reference}: not valid JSON ({error.msg}); {remedy}") from None
    if size.name not in known:
        raise UserError(f"{reference}: holds no {size.name} experiment; {remedy}")
    part: dict[str, Any] = known[size.name]
    if part["size"] != _plain(size):
        raise UserError(f"{reference}: made by another {size.name} experiment; {remedy}")
    return part


def _plain(size: Size) -> dict[str, Any]:
    return asdict(size) | {"settings": list(size.settings)}


def compare_golden(
    found: dict[str, list[dict[str, float]]], known: dict[str, list[dict[str, float]]]
) -> list[Line]:
    """A line for each pinned number of each update; one that is no longer logged fails."""
    lines = []
    for method, updates in known.items():
        for i, numbers in enumerate(updates):
            for key, value in numbers.items():
                now = found[method][i].get(key) if i < len(found.get(method, [])) else None
                room = GOLDEN_TOLERANCE * abs(value)
                what = f"golden {method} update {i + 1} {key}"
                lines.append(Line(what, now, value - room, value + room))
    return lines


def check(size: Size, reference: Path) -> Result:
    """Repeat the experiment in a temporary folder at training seed 0 and compare.

    Raises:
        UserError: no reference for this size, this experiment or this teacher.
    """
    known = _read(reference, size)
    if teacher_sha256(size) != known["provenance"]["teacher_sha256"]:
        raise UserError(
            f"{reference}: made with other weights of {size.model}; "
            "make it anew with dfdbench check --update"
        )
    result = Result(size.name)
    with tempfile.TemporaryDirectory(prefix="dfdbench-check-") as folder:
        result.lines += compare_golden(golden_losses(size, Path(folder)), known["golden"])
        found = measure(size, Path(folder), seed=0)
    for what, allowed in known["bands"].items():
        result.lines.append(Line(what, found.get(what), allowed["low"], allowed["high"]))
    return result


def update(size: Size, reference: Path, repeats: int, work: Path = Path("runs/check")) -> Path:
    """Measure golden losses and bands anew and write them beside the other size's.

    Runs lie under `work`, in a folder of their own for each state of the code, so that a stopped
    update goes on.
    """
    from dfdbench.utils.run import code_sha256, provenance

    folder = work / f"{size.name}-{code_sha256()[:8]}"
    golden = golden_losses(size, folder)
    values = [measure(size, folder / f"seed{seed}", seed) for seed in range(repeats)]
    shared = [what for what in values[0] if all(what in found for found in values)]
    known = json.loads(reference.read_text(encoding="utf-8")) if reference.is_file() else {}
    known |= {"format": FORMAT, "method": METHOD}
    known[size.name] = {
        "provenance": {**provenance(), "teacher_sha256": teacher_sha256(size), "repeats": repeats},
        "size": _plain(size),
        "golden_tolerance": GOLDEN_TOLERANCE,
        "golden": golden,
        "bands": {what: band([found[what] for found in values]) for what in shared},
    }
    write_json(reference, known)
    return reference
