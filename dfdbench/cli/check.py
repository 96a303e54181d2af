"""`dfdbench check`: repeats a fixed small experiment and compares it with committed numbers.

The experiment: a short DMD2 on the shipped toy, then DFD and the DMD2 control from it, clips of the
three, scores. Two kinds of numbers lie in results/toy/reference.json, and a wheel has a copy:

golden  losses of the first updates of DMD2, DP-DMD and DFD, compared within a relative tolerance
        that rounding on another CPU stays under: a silent numerical change shows here.
bands   scores after training, as intervals that a new run with another training seed would hit
        with 99 % probability: a change of behaviour shows here.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.files import check_output, write_json
from dfdbench.utils.reading import Open, read_json
from dfdbench.utils.run import Run

FORMAT = 1
BANDS = Path("results/toy/reference.json")
DEVICE = "cpu"  # the committed numbers are a CPU's; another device's differ by more than is allowed
ENOUGH = "close other programs: the experiment needs the same memory each time"
# Relative. One and two threads differed by at most 1e-6 in three updates of each method; another
# CPU's instructions may move more, a changed formula moves far more.
GOLDEN_TOLERANCE = 2e-4
CONFIDENCE = 0.99
LEAST_SPREAD = 0.01  # of a band's half width: few repeats can agree by chance
ARMS = ("dmd2", "dmd2_control", "dfd")
METRICS = (
    "open_gini",
    "prompt_accuracy",
    "sprite_intact",
    "sprite_saturation",
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


QUICK = Size("quick", updates=30, further=15, clips=256, seeds=12)
FULL = Size("full", updates=120, further=50, clips=512, seeds=16)


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
    return distill(load_recipe(recipe, changes), out, resume=True, init=init, device=DEVICE)


def golden_losses(size: Size, work: Path) -> dict[str, list[dict[str, float]]]:
    """Method → the logged numbers of its first updates from the teacher, at training seed 0."""
    losses = {}
    for method in ("dmd2", "dp_dmd", "dfd", "regression"):
        settings = ("init.recipe=''", "log.every=1", "log.probe_every=0", "log.decode_every=0")
        run = train(f"toy/{method}", work / f"golden-{method}", size.golden, size, settings)
        losses[method] = [
            {key: value for key, value in line.items() if key not in ("kind", "update")}
            for line in run.metrics("update")
        ]
    return losses


def measure(size: Size, work: Path, seed: int) -> dict[str, float]:
    """Train, generate and score once; finished parts under `work` are reused.

    Returns the means over prompts of METRICS by `arm metric`, and those of dfd − dmd2_control.
    """
    from dfdbench.evaluate.engine import score
    from dfdbench.evaluate.metrics import Setting
    from dfdbench.generate.clips import generate, open_family
    from dfdbench.generate.suites import get_suite
    from dfdbench.report.collect import collect

    first, settings = work / "dmd2", (f"seed={seed}",)
    runs = [train("toy/dmd2", first, size.updates, size, settings)]
    for arm in ("dmd2_control", "dfd"):
        runs.append(train(f"toy/{arm}", work / arm, size.further, size, settings, first))
    suite, family = get_suite("toy-t2v"), open_family(size.model, DEVICE)
    for run in runs:
        generate(run, suite, range(1, size.seeds + 1), family=family)
    score([run.path for run in runs], suite, setting=Setting(DEVICE))
    scores = collect([run.path for run in runs]).values
    means = scores.groupby(["arm", "metric", "prompt_id"])["value"].mean()
    by_arm = means.groupby(["arm", "metric"]).mean()
    values = {f"{a} {m}": float(by_arm[a, m]) for a in ARMS for m in METRICS if (a, m) in by_arm}
    for metric in METRICS:
        a, b = values.get(f"dfd {metric}"), values.get(f"dmd2_control {metric}")
        if a is not None and b is not None:
            values[f"dfd - dmd2_control {metric}"] = a - b
    return values


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


class Provenance(Open):
    """What made the numbers, as far as the check reads it."""

    teacher_sha256: str


class Band(Open):
    """The least and the largest value that is no regression."""

    low: float
    high: float


class Experiment(Open):
    """The numbers of one size."""

    size: dict[str, Any]
    provenance: Provenance
    golden: dict[str, list[dict[str, float]]]
    bands: dict[str, Band]


class Reference(Open):
    """The file of bands."""

    quick: Experiment | None = None
    full: Experiment | None = None


def find_bands() -> Path:
    """The committed bands: of the working folder, else of the repository or the wheel."""
    package = Path(__file__).parents[1]
    places = (BANDS, package / "_results" / BANDS.name, package.parent / BANDS)
    return next((path for path in places if path.is_file()), BANDS)


def _read(bands: Path, size: Size) -> Experiment:
    remedy = f"make it: dfdbench check update{' --quick' if size.name == 'quick' else ''}"
    if not bands.is_file():
        raise UserError(f"{bands}: no such file of bands; give --bands, or {remedy}")
    experiment: Experiment | None = getattr(read_json(bands, Reference, remedy), size.name)
    if experiment is None:
        raise UserError(f"{bands}: holds no {size.name} experiment; {remedy}")
    if experiment.size != _plain(size):
        raise UserError(f"{bands}: made by another {size.name} experiment; {remedy}")
    return experiment


def _plain(size: Size) -> dict[str, Any]:
    return asdict(size) | {"settings": list(size.settings)}


def compare_golden(
    now: dict[str, list[dict[str, float]]], pinned: dict[str, list[dict[str, float]]]
) -> list[Line]:
    """A line for each pinned number of each update; one that is no longer logged fails."""
    lines = []
    for method, updates in pinned.items():
        for i, numbers in enumerate(updates):
            for key, value in numbers.items():
                logged = now[method][i].get(key) if i < len(now.get(method, [])) else None
                room = GOLDEN_TOLERANCE * abs(value)
                what = f"golden {method} update {i + 1} {key}"
                lines.append(Line(what, logged, value - room, value + room))
    return lines


@memory_remedy(ENOUGH)
def check(size: Size, bands: Path | None = None) -> Result:
    """Repeat the experiment in a temporary folder at training seed 0 and compare.

    Args:
        bands: file of the committed numbers; that of `find_bands` if None.

    Raises:
        UserError: no bands of this size, this experiment or this teacher.
    """
    bands = bands or find_bands()
    committed = _read(bands, size)
    if teacher_sha256(size) != committed.provenance.teacher_sha256:
        raise UserError(
            f"{bands}: made with other weights of {size.model}; "
            "make it anew with dfdbench check update"
        )
    result = Result(size.name)
    with tempfile.TemporaryDirectory(prefix="dfdbench-check-") as folder:
        result.lines += compare_golden(golden_losses(size, Path(folder)), committed.golden)
        values = measure(size, Path(folder), seed=0)
    for what, allowed in committed.bands.items():
        result.lines.append(Line(what, values.get(what), allowed.low, allowed.high))
    return result


@memory_remedy(ENOUGH)
def update(
    size: Size, bands: Path | None = None, repeats: int = 5, work: Path = Path("runs/check")
) -> Path:
    """Measure golden losses and bands anew and write them beside the other size's.

    Runs lie under `work`, in a folder of their own for each state of the code, so that a stopped
    update goes on.

    Args:
        bands: file to write; that of the working folder if None.
    """
    from dfdbench.utils.run import code_sha256, provenance

    bands = bands or BANDS
    check_output(bands)
    remedy = "mend it, or delete it to begin anew"
    content = read_json(bands, dict[str, Any], remedy) if bands.is_file() else {}
    folder = work / f"{size.name}-{code_sha256()[:8]}"
    golden = golden_losses(size, folder)
    values = [measure(size, folder / f"seed{seed}", seed) for seed in range(repeats)]
    shared = [what for what in values[0] if all(what in one for one in values)]
    content |= {"format": FORMAT, "method": METHOD}
    content[size.name] = {
        "provenance": {**provenance(), "teacher_sha256": teacher_sha256(size), "repeats": repeats},
        "size": _plain(size),
        "golden_tolerance": GOLDEN_TOLERANCE,
        "golden": golden,
        "bands": {what: band([one[what] for one in values]) for what in shared},
    }
    write_json(bands, content)
    return bands
