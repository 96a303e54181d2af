"""Figures from training logs: curves over student updates, and discrepancies against t.

Used by page.py; reads what distill/diagnostics.py writes to metrics.jsonl: lines of kind "update"
and "probe" hold numbers by name, lines of kind "bins" hold a value and a count per bin of t.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from dfdbench.report.arms import ordered
from dfdbench.report.collect import RunRecord
from dfdbench.report.figures import drawn_looks, new_figure, styled

SMOOTH = 0.05  # of a run's points, the window of the moving mean
COLUMNS = 3
LARGEST = 1e100  # a logged number beyond is none that can be drawn
PANEL = (3.1, 2.3)  # inches


class Panel(NamedTuple):
    """One small plot: key in the log, title, label of the y axis, whether y is logarithmic."""

    key: str
    title: str
    unit: str
    log: bool


TRAINING = (
    Panel("matching", "student, distribution matching", "loss", False),
    Panel("diversity", "student, diversity (DP-DMD)", "loss", True),
    Panel("flow", "student, teacher forcing", "mean square error of v", True),
    Panel("ode", "student, ODE regression", "mean square error of x0", True),
    Panel("first_block_direction2", "fake minus teacher, first block", "E(f − r)²", True),
    Panel("later_blocks_direction2", "fake minus teacher, later blocks", "E(f − r)²", True),
    Panel("critic_fake_score", "fake score, denoising", "mean square error", True),
    Panel("gan", "student, GAN", "loss", False),
    Panel("student_gradient_norm", "student, gradient norm", "norm before clipping", True),
    Panel("critic_gradient_norm", "fake score, gradient norm", "norm before clipping", True),
    Panel(
        "saturation_generated", "saturation of training samples", "HSV saturation (0 to 1)", False
    ),
    Panel("contrast_generated", "contrast of training samples", "RMS contrast", False),
)
AGAINST_T = (
    Panel("probe_delta", "teacher score discrepancy", "E‖Δ‖ per element", True),
    Panel("probe_delta2", "its second moment", "E‖Δ‖² per element", True),
    Panel("distance2", "distance of real and generated", "E‖x − G‖² per element", False),
    Panel("direction2", "fake minus teacher, x0", "E(f − r)² per element", True),
    Panel("normaliser", "normaliser", "mean |G − r|", True),
    Panel("fake_score_error", "error of the fake score", "E(f − G)² per element", True),
)


def series(run: RunRecord, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Student updates and values of one logged number, gaps left out."""
    points = [
        (line["update"], line[key])
        for line in run.log
        if line.get("kind") != "bins"
        and _is_number(line.get(key))
        and _is_number(line.get("update"))
    ]
    updates, values = zip(*points, strict=True) if points else ((), ())
    return np.array(updates, float), np.array(values, float)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST


def _is_binned(line: dict[str, Any], key: str) -> bool:
    """Whether a line has a value and a count for each bin of t."""
    parts = [line.get(name) for name in ("t_edges", key, f"{key}_count")]
    if line.get("kind") != "bins" or not all(isinstance(part, list) for part in parts):
        return False
    edges, values, counts = (list(part or ()) for part in parts)
    numbers = all(map(_is_number, [*edges, *counts, *(v for v in values if v is not None)]))
    return numbers and len(edges) - 1 == len(values) == len(counts) > 0


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over SMOOTH of the points, shorter at both ends."""
    half = int(SMOOTH * len(values)) // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def over_t(runs: Sequence[RunRecord], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the bins of t and the mean over all lines of `runs`, weighted by count."""
    lines = [line for run in runs for line in run.log if _is_binned(line, key)]
    lines = [line for line in lines if line["t_edges"] == lines[0]["t_edges"]]
    if not lines:
        return np.array([]), np.array([])
    edges = np.array(lines[0]["t_edges"], float)
    values = np.array([line[key] for line in lines], float)  # null becomes NaN
    counts = np.array([line[f"{key}_count"] for line in lines], float)
    weight = counts.sum(0)
    total = np.where(counts > 0, np.nan_to_num(values) * counts, 0.0).sum(0)
    kept = weight > 0
    return ((edges[:-1] + edges[1:]) / 2)[kept], (total[kept] / weight[kept])


def discrepancies(run: RunRecord) -> dict[str, float]:
    """Each of AGAINST_T that a run has logged: the mean over its updates and noise levels.

    Of a run of an earlier report, whose log is not here, as that report has it.
    """
    means = dict(run.info.get("discrepancies", {}))
    for panel in AGAINST_T:
        lines = [line for line in run.log if _is_binned(line, panel.key)]
        pairs = [
            (value, count)
            for line in lines
            for value, count in zip(line[panel.key], line[f"{panel.key}_count"], strict=True)
            if value is not None
        ]
        if weight := sum(count for _, count in pairs):
            means[panel.key] = sum(value * count for value, count in pairs) / weight
    return means


def _canvas(panels: Sequence[Panel]) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(PANEL[0] * columns, PANEL[1] * rows + 0.35, rows, columns)
    flat = list(axes.ravel())
    for axis in flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(flat, panels, strict=False):
        axis.set_title(panel.title)
        axis.set_ylabel(panel.unit)
        if panel.log:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    return figure, flat[: len(panels)]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    found: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    place: Any = "outside upper center"  # the stubs do not know the outside places
    figure.legend(handles=list(found.values()), loc=place, ncols=max(1, len(found)))


@styled
def training_curves(runs: Sequence[RunRecord]) -> Figure | None:
    """A line a run, coloured by arm; only the numbers that some run has logged."""
    panels = [p for p in TRAINING if any(len(series(run, p.key)[0]) > 1 for run in runs)]
    if not panels:
        return None
    look = drawn_looks(run.arm for run in runs)
    figure, axes = _canvas(panels)
    for axis, panel in zip(axes, panels, strict=True):
        for arm in ordered(run.arm for run in runs):
            label: str | None = look[arm].label
            for run in (r for r in runs if r.arm == arm):
                updates, values = series(run, panel.key)
                if len(updates) < 2:
                    continue
                colour = look[arm].colour
                axis.plot(updates, values, color=colour, alpha=0.15, lw=0.6)
                axis.plot(updates, smooth(values), color=colour, lw=1.3, label=label)
                label = None
        axis.set_xlabel("student updates")
    _legend(figure, axes)
    drawn = sum(any(len(series(run, p.key)[0]) > 1 for p in panels) for run in runs)
    figure.set_label(f"Training: a line a run, smoothed over 5 % of its updates; n {drawn} runs.")
    return figure


@styled
def discrepancy_against_t(runs: Sequence[RunRecord]) -> Figure | None:
    """Mean over all updates and runs of an arm, in the bins of the noise level t."""
    panels = [p for p in AGAINST_T if len(over_t(runs, p.key)[0])]
    if not panels:
        return None
    look = drawn_looks(run.arm for run in runs)
    figure, axes = _canvas(panels)
    for axis, panel in zip(axes, panels, strict=True):
        for arm in ordered(run.arm for run in runs):
            t, values = over_t([run for run in runs if run.arm == arm], panel.key)
            if len(t):
                style = look[arm]
                axis.plot(
                    t, values, color=style.colour, marker=style.marker, ms=4, lw=1.2,
                    label=style.label,
                )  # fmt: skip
        axis.set_xlabel("noise level t (0 clean, 1 noise)")
    _legend(figure, axes)
    drawn = sum(any(len(over_t([run], p.key)[0]) for p in panels) for run in runs)
    figure.set_label(
        f"Discrepancies against the noise level t, mean over an arm's runs; n {drawn} runs."
    )
    return figure
