"""Figures of long clips: how quantities and diversity move over time, and frames over time.

Used by page.py where clips were scored with the family `drift`. Curves are means of what the stores
hold of each segment, over clips, then prompts, then training seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dfdbench.evaluate.metrics import diversity
from dfdbench.evaluate.metrics.drift import QUANTITIES, SERIES
from dfdbench.evaluate.metrics.oracle_drift import PARTS, spread_over_time
from dfdbench.evaluate.store import Store
from dfdbench.report.arms import ordered
from dfdbench.report.collect import Collected
from dfdbench.report.figures import (
    CELL_INCHES,
    DIVERSITY_LABELS,
    ROW_LABEL,
    drawn_looks,
    new_figure,
    shown,
    styled,
)
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video

COLUMNS = 8  # frames of a strip
EMBEDDINGS = tuple(
    name.removesuffix("_diversity") for name in DIVERSITY_LABELS if name.endswith("_diversity")
)
LABELS = {
    "saturation": "mean HSV saturation",
    "luma": "mean luma",
    "contrast": "contrast (std of luma)",
    "sharpness": "sharpness (levels a pixel)",
}
Curve = tuple[np.ndarray, np.ndarray]  # seconds and values (P,)
Curves = Mapping[str, Sequence[Curve]]  # of the training seeds of each arm


class Panel(NamedTuple):
    """A small plot: what stands at its y axis, and its curves."""

    label: str
    curves: Curves


def arrays_of(collected: Collected, metric: str) -> pd.DataFrame:
    """An array metric of every clip: arm, training_seed, prompt_id, seed, path, seconds, array.

    Of clips of several lengths those with the most common number of rows.
    """
    parts = []
    for source in collected.sources:
        with Store.reading(source.path) as store:
            frame = store.arrays(metric, collected.suite)
            samples, shapes = store.samples(collected.suite), store.shapes()
        hashes = samples.set_index("path")["sha256"]
        frame = frame[frame["path"].isin(set(source.clips["name"]))]
        if frame.empty:
            continue
        seconds = [(shape := shapes[hashes[path]]).frames / shape.fps for path in frame["path"]]
        frame = frame.assign(seconds=seconds)
        if source.record:
            frame["method"] = next(iter(source.arms))
        files = source.clips.set_index("name")["path"]
        parts.append(source.owned(frame).assign(path=frame["path"].map(files)))
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True)
    lengths = whole["array"].map(len)
    return whole[lengths == lengths.mode().max()]


def _curves(
    frame: pd.DataFrame, of_prompt: Callable[[list[np.ndarray]], np.ndarray], ends: bool = False
) -> Curves:
    """`of_prompt` of each prompt's arrays, a value a row of them; its mean over prompts.

    ends: rows stand for frames from the first to the last, not for segments.
    """
    curves: dict[str, list[Curve]] = {}
    for (arm, _), own in frame.groupby(["arm", "training_seed"]):
        rows = [of_prompt(list(clips["array"])) for _, clips in own.groupby("prompt_id")]
        values = pd.DataFrame(np.stack(rows)).mean().to_numpy()
        count = len(values)
        seconds = own["seconds"].mean()
        time = np.linspace(0, 1, count) if ends else (np.arange(count) + 0.5) / count
        if np.isfinite(values).any():
            curves.setdefault(str(arm), []).append((seconds * time, values))
    return curves


def _column(number: int) -> Callable[[list[np.ndarray]], np.ndarray]:
    return lambda clips: np.mean([clip[:, number] for clip in clips], axis=0)


def _hue_spread(clips: list[np.ndarray]) -> np.ndarray:
    over_time = spread_over_time(clips)["hue"]
    return np.array([found.value if found else np.nan for found in over_time])


def _feature_diversity(clips: list[np.ndarray]) -> np.ndarray:
    frames = np.stack(clips, axis=1)  # (frames, clips, D)
    if frames.shape[1] < 2:
        return np.full(len(frames), np.nan)
    return np.array([diversity.pairwise_diversity(frame) for frame in frames])


def panels_of(collected: Collected) -> list[Panel]:
    """The plots that there are values for; none where no clip was scored with `drift`."""
    series = arrays_of(collected, SERIES)
    if series.empty:
        return []
    panels = [
        Panel(LABELS[name], _curves(series, _column(number)))
        for number, name in enumerate(QUANTITIES)
    ]
    parts = arrays_of(collected, PARTS)
    if len(parts):
        panels.append(Panel("share of whole sprites", _curves(parts, _column(0))))
        panels.append(Panel("hue Gini–Simpson of a prompt's clips", _curves(parts, _hue_spread)))
    for name in EMBEDDINGS:
        if f"{name}_diversity" in set(collected.values["metric"]):
            features = arrays_of(collected, f"{name}_features")
            features = features[features["path"].isin(set(series["path"]))]
            if len(features):
                label = DIVERSITY_LABELS[f"{name}_diversity"]
                panels.append(Panel(label, _curves(features, _feature_diversity, True)))
            break
    return [panel for panel in panels if panel.curves]


@styled
def curves_over_time(collected: Collected) -> Figure | None:
    """A panel a quantity: its mean over time, a line an arm, thin ones single training seeds."""
    panels = panels_of(collected)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    arms = ordered({arm for panel in panels for arm in panel.curves})
    look = drawn_looks(collected.arms, collected.references)
    figure, axes = new_figure(3.1 * columns + 1.2, 2.2 * rows + 0.3, rows, columns)
    flat = list(axes.ravel())
    for axis in flat[len(panels) :]:
        axis.remove()
    handles = {}
    for axis, panel in zip(flat, panels, strict=False):
        for arm in (arm for arm in arms if arm in panel.curves):
            curves, colour = panel.curves[arm], look[arm].colour
            if len(curves) > 1:
                for time, values in curves:
                    axis.plot(time, values, color=colour, lw=0.6, alpha=0.45)
            means = [pd.DataFrame(np.stack([own[i] for own in curves])).mean() for i in (0, 1)]
            (handles[arm],) = axis.plot(
                *means, color=colour, marker=look[arm].marker, ms=3.5, lw=1.6
            )
        axis.set_ylabel(panel.label)
        axis.set_xlabel("seconds of the clip")
        axis.margins(y=0.12)
        axis.set_xlim(left=0)
    figure.legend(
        list(handles.values()), [look[arm].label for arm in handles], loc="outside right center"
    )
    several = any(len(own) > 1 for panel in panels for own in panel.curves.values())
    seeds = "; thick lines are means of training seeds, thin ones single seeds" if several else ""
    figure.set_label(f"Over the length of long clips: means over clips, then prompts{seeds}.")
    return figure


@styled
def frames_over_time(collected: Collected, prompt: str | None = None) -> Figure | None:
    """Rows arms, columns times: frames of one long clip of each arm, of one prompt and seed.

    A row whose clip is gone or cannot be read is left out, and `collected.skipped` names it.
    """
    series = arrays_of(collected, SERIES)
    if series.empty:
        return None
    known = series.groupby("prompt_id")["arm"].nunique()
    chosen = str(prompt if prompt in known.index else known.idxmax())
    own = series[series["prompt_id"] == chosen].sort_values(["training_seed", "seed"])
    strips: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for arm in ordered(own["arm"]):
        path = own[own["arm"] == arm]["path"].iloc[0]
        try:
            clip = read_video(path, "even16", allow_damaged=True)
        except (UserError, OSError) as error:
            collected.skipped.append(f"picture of a clip: {error}")
            continue
        places = np.linspace(0, len(clip.frames) - 1, COLUMNS).round().astype(int)
        strips[arm] = clip.frames[places], clip.indices[places] / clip.fps
    if not strips:
        return None
    look = drawn_looks(collected.arms, collected.references)
    height, width = next(iter(strips.values()))[0].shape[1:3]
    figure, axes = new_figure(
        CELL_INCHES * COLUMNS + 1.1,
        CELL_INCHES * height / width * len(strips) + 0.25,
        len(strips),
        COLUMNS,
    )
    for number, (arm, (frames, seconds)) in enumerate(strips.items()):
        row = axes[number]
        for axis, frame, second in zip(row, frames, seconds, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            axis.imshow(frame, interpolation="nearest")
            if number == 0:
                axis.set_title(
                    f"{second:.1f} s", fontsize=7.5, loc="center", color="#444444", pad=3
                )
        row[0].set_ylabel(look[arm].label, color=look[arm].colour, fontweight="bold", **ROW_LABEL)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    figure.set_label(
        f"Frames of one long clip of each arm, prompt {shown(chosen, 60)}: the lowest training "
        "seed and clip seed of each."
    )
    return figure
