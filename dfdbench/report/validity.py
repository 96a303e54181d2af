"""DFD's validity condition as a figure: what it gains against how near its clips are to real ones.

Eq. 7 of 2606.18478 asks for E‖x − G‖² ≤ δ(c)², δ(c)² the spread of real clips of one caption. Each
study of toy/validity has captions of another spread. Reads the reports of such studies; used by
benchmarks/validity_figure.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dfdbench.report.earlier import Earlier, read_report
from dfdbench.report.figures import new_figure, styled
from dfdbench.report.primary import headline
from dfdbench.report.summary import compare
from dfdbench.utils.errors import UserError

SIGNS = ("o", "s", "D", "^", "v", "P")
COLOURS = {
    ("noised_real", True): ("#009E73", "after DMD2, paired"),
    ("noised_real", False): ("#56B4E9", "from scratch, paired"),
    ("backward_simulation", True): ("#D55E00", "after DMD2, unpaired"),
    ("backward_simulation", False): ("#CC79A7", "from scratch, unpaired"),
}
"""Student input and whether a first stage came before → colour and label."""


class Point(NamedTuple):
    """One DFD arm of one study.

    condition: E‖x − G‖² / δ(c)², mean over its runs; the paper asks for 1 or less. gains: metric →
    training seed → difference to the DMD2 control of the same input.
    """

    study: str
    arm: str
    kind: tuple[str, bool]
    condition: float
    gains: dict[str, dict[int, float]]


def points_of(report: Earlier) -> list[Point]:
    """The DFD arms of a report that have a control.

    Raises:
        UserError: the report has none, or its runs did not log what the condition is about.
    """
    of_arm: dict[str, list[dict[str, Any]]] = {}
    for info in report.runs.values():
        of_arm.setdefault(str(info["arm"]), []).append(info)
    controls = {_input(i[0]): a for a, i in of_arm.items() if _is(i[0], "dmd2") and _before(i[0])}
    arms = {a: i for a, i in of_arm.items() if _is(i[0], "dfd") and _input(i[0]) in controls}
    pairs = {arm: (arm, controls[_input(infos[0])]) for arm, infos in arms.items()}
    if not pairs:
        raise UserError(
            f"{report.path}: holds no DFD arm with a DMD2 control of the same input; write the "
            "report of a study such as toy/validity1"
        )
    deltas, _ = compare(report.cells, list(pairs.values()))
    points = []
    for arm, pair in pairs.items():
        gains = {d.metric: dict(d.by_seed) for d in deltas if (d.a, d.b) == pair}
        kind, infos = (_input(arms[arm][0]), _before(arms[arm][0])), arms[arm]
        condition = float(np.mean([_condition(report, arm, info) for info in infos]))
        points.append(Point(report.path.name, arm, kind, condition, gains))
    return points


def _is(info: dict[str, Any], method: str) -> bool:
    return bool(info.get("method") == method and info.get("recipe"))


def _before(info: dict[str, Any]) -> bool:
    return bool(info.get("parent"))


def _input(info: dict[str, Any]) -> str:
    return str(info["recipe"]["student"]["input"])


def _condition(report: Earlier, arm: str, info: dict[str, Any]) -> float:
    distance = info.get("discrepancies", {}).get("distance2")
    spread = info.get("fairness", {}).get("real_spread_given_caption")
    if not distance or not spread:
        raise UserError(
            f"{report.path}: a run of {arm} says no E‖x − G‖² or no spread of its clips"
        )
    return float(distance / spread)


@styled
def against_condition(reports: Sequence[Path]) -> Figure:
    """A panel a headline metric: the gain over the control against E‖x − G‖² / δ(c)².

    Dots are training seeds, the sign their mean; colour tells start and pairing, the sign the
    study.
    """
    points = [point for path in reports for point in points_of(read_report(path))]
    panels = headline({metric for point in points for metric in point.gains})
    studies = list(dict.fromkeys(point.study for point in points))
    figure, axes = new_figure(3.4 * len(panels), 3.4, 1, len(panels))
    for axis, metric in zip(axes[0], panels, strict=True):
        axis.axhline(0, color="#888888", lw=0.8)
        axis.axvline(1, color="#888888", lw=0.8, ls=":")
        for point in points:
            gains = list(point.gains.get(metric, {}).values())
            if gains:
                colour, label = COLOURS[point.kind]
                sign = SIGNS[studies.index(point.study) % len(SIGNS)]
                label = f"{label}, {point.study}"
                x = point.condition
                axis.plot([x] * len(gains), gains, ".", ms=4, color=colour, alpha=0.5)
                axis.plot(x, np.mean(gains), sign, ms=6, color=colour, label=label)
        axis.set_xscale("log")
        axis.set_xlabel("E‖x − G‖² / δ(c)²")
        axis.set_title(f"{metric}, minus control", fontsize=9)
    counts = sorted({len(g) for point in points for g in point.gains.values()})
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.set_label(
        "DFD minus its DMD2 control against the validity condition, which asks to be left of the "
        "dotted line; dots are training seeds, signs their means; training seeds an arm: "
        f"{', '.join(map(str, counts))}."
    )
    return figure
