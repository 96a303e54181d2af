"""The figures of a report: seed grid, saturation histograms, diversity against saturation, curves.

Every function takes gathered data and returns a matplotlib Figure, or None where the data for it
are missing; the figure's label is its caption, which claims only what is in it. page.py saves each
as PNG and SVG. Names and prompts are anyone's: no sign of theirs is markup here.
"""

import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfdbench.evaluate.metrics.colour import wasserstein
from dfdbench.report.arms import Look, looks, ordered, reference_arm
from dfdbench.report.collect import Collected
from dfdbench.report.primary import headline
from dfdbench.report.sets import of_size
from dfdbench.report.summary import Summary
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.files import atomic_path
from dfdbench.utils.video import read_video

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "dfdbench",  # same data, same bytes
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a prompt is a dollar
}
DPI = 160
GRID_COLUMNS = 8
UNKNOWN_SEED = -1  # of clips whose manifest names no seed
SHIFTED = "An arm of other seeds is shown in the order of its own."
CELL_INCHES = 0.8
LONGEST_LABEL = 40
DIVERSITY_LABELS = {
    "modes": "distinct modes among 32 clips, whole ones only",
    "open_gini": "Gini–Simpson index, open attributes",
    "hue_entropy": "hue entropy given the caption (1 = uniform)",
    "modes_given_image": "distinct modes among 32 clips that continue the picture",
    "open_gini_given_image": "Gini–Simpson index of what the picture leaves open",
    "clip_vit_l14_diversity": "CLIP ViT-L/14 diversity over seeds",
    "dinov2_l_diversity": "DINOv2-L diversity over seeds",
    "dinov3_l_diversity": "DINOv3-L diversity over seeds",
    "effnet_lite2_diversity": "EfficientNet-Lite2 diversity over seeds",
    "lpips_alex_diversity": "LPIPS (Alex) diversity over seeds",
}  # the panels, in this order; a figure has at most PANELS of them
PANELS = 3
DOTS = "dots are training seeds, hollow diamonds their medians"


styled = matplotlib.rc_context(STYLE)
"""Decorator of the functions that draw, so that all of a figure is in the report's style."""
ROW_LABEL: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 6}


def shown(text: str, longest: int) -> str:
    """`text` in one line of at most so many signs, all of which XML and fonts can take."""
    text = clean(" ".join(text[: 2 * longest].split())).translate({0xFFFE: "?", 0xFFFF: "?"})
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def drawn_looks(arms: Iterable[str], references: Collection[str] = ()) -> dict[str, Look]:
    """`looks` with labels that fit into a figure."""
    every = looks(arms, references).items()
    return {arm: look._replace(label=shown(look.label, LONGEST_LABEL)) for arm, look in every}


@styled
def note(axis: Axes, text: str) -> None:
    """A small grey remark in the upper right corner."""
    axis.annotate(
        text, (0.995, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=7.5,
        color="#555555",
    )  # fmt: skip


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **kw: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of this size in inches and its axes, always a 2-D array."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kw)


@styled
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg atomically under `folder`, without dates in them."""
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        path = folder / f"{name}.{suffix}"
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # such signs become boxes
            figure.savefig(temporary, metadata=metadata, dpi=DPI)
        paths.append(path)
    return paths


def grid_prompt(clips: pd.DataFrame, prompt: str | None) -> str:
    """The prompt id to show: `prompt` if given, else the first with the most (arm, seed) cells."""
    known = clips.drop_duplicates(["arm", "prompt_id", "seed"]).groupby("prompt_id").size()
    if prompt is None:
        return str(known.index[int(np.argmax(known.to_numpy()))])
    if prompt not in known.index:
        raise UserError(f"--prompt {prompt}: not among the clips; known: {', '.join(known.index)}")
    return prompt


@styled
def seed_grid(
    collected: Collected, prompt: str | None = None, frame: int | None = None
) -> Figure | None:
    """Rows arms, columns up to 8 seeds: one frame, the middle one, of each clip of one prompt.

    An arm with several training seeds is shown with its lowest. The place of a clip that is gone or
    cannot be read stays empty, and `collected.skipped` names it.
    """
    if collected.clips.empty:
        return None
    there = collected.clips[[Path(path).exists() for path in collected.clips["path"]]]
    chosen = grid_prompt(there if prompt is None and len(there) else collected.clips, prompt)
    clips = collected.clips[collected.clips["prompt_id"] == chosen]
    clips = clips.assign(seed=clips["seed"].fillna(UNKNOWN_SEED).astype(int))
    arms = ordered(clips["arm"])
    look = drawn_looks(collected.arms, collected.references)
    of_arm = {arm: own[own["training_seed"] == own["training_seed"].min()] for arm, own in
              clips.groupby("arm")}  # fmt: skip
    seeds = _grid_seeds(of_arm[arm]["seed"] for arm in reversed(arms))
    frames: dict[tuple[str, int], np.ndarray] = {}
    for arm in arms:
        own = _in_columns(of_arm[arm], seeds)
        for seed, path in zip(own["seed"], own["path"], strict=True):
            if seed in seeds and Path(path).exists():
                try:
                    video = read_video(path, allow_damaged=True).frames
                except (UserError, OSError) as error:
                    collected.skipped.append(f"picture of a clip: {error}")
                    continue
                shown_frame = len(video) // 2 if frame is None else min(frame, len(video) - 1)
                frames[arm, seed] = video[shown_frame]
    if not frames:
        return None
    height, width = next(iter(frames.values())).shape[:2]
    figure, axes = new_figure(
        CELL_INCHES * len(seeds) + 1.1,
        CELL_INCHES * height / width * len(arms) + 0.45,
        len(arms),
        len(seeds),
    )
    for row, arm in enumerate(arms):
        for column, seed in enumerate(seeds):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if (arm, seed) in frames:
                axis.imshow(frames[arm, seed], interpolation="nearest")
            if row == 0:
                title = "" if seed == UNKNOWN_SEED else f"seed {seed}"
                axis.set_title(title, fontsize=7.5, loc="center", color="#444444", pad=3)
        axes[row, 0].set_ylabel(
            look[arm].label, color=look[arm].colour, fontweight="bold", **ROW_LABEL
        )
    width_in_letters = int(13 * figure.get_figwidth())
    prompts = clips["prompt"].dropna()
    text = shown(str(prompts.iloc[0]) if len(prompts) else chosen, 2 * width_in_letters)
    figure.suptitle(fill(f"“{text}”", width_in_letters), fontsize=9, x=0.01, ha="left")
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    shifted = any(set(seeds).isdisjoint(own["seed"]) for own in of_arm.values())
    caption = _grid_caption(len(frames) == len(arms) * len(seeds) and not shifted, seeds)
    caption += " One prompt; of an arm's training seeds the lowest."
    figure.set_label(f"{caption} {SHIFTED}" if shifted else caption)
    return figure


def _grid_seeds(of_arms: Iterable[pd.Series]) -> list[int]:
    """The columns: the first seeds of the last arm in the order of drawing, and of all that share
    some with it."""
    seeds = set[int]()
    for own in of_arms:
        if not seeds or not seeds.isdisjoint(own):
            seeds |= set(own)
    return sorted(seeds)[:GRID_COLUMNS]


def _in_columns(clips: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """An arm's clips; of an arm that has none of the seeds, by their order instead."""
    if not set(seeds).isdisjoint(clips["seed"]):
        return clips
    first = clips.sort_values("seed").head(len(seeds))
    return first.assign(seed=list(seeds)[: len(first)])


def _grid_caption(is_full: bool, seeds: Collection[int]) -> str:
    if UNKNOWN_SEED in seeds:
        return "Middle frames of clips of one prompt, a row an arm; their seeds are not known."
    if is_full:
        return "The same prompt and seeds in every arm."
    return (
        "Middle frames of clips of one prompt: a row an arm, a column a seed; an empty place has "
        "no clip with this seed, or none that can be read."
    )


@styled
def saturation_histograms(
    collected: Collected, summary: Summary, metric: str = "saturation_mean"
) -> Figure | None:
    """One row an arm. Left: mean HSV saturation of each video. Right: of all pixels, log shares.

    Dots are training seeds, the stroke their median. The dashed line is the mean of the reference
    (real clips, else the teacher); W₁ is the Wasserstein distance of an arm's pixel histogram to
    the reference's.
    """
    values = collected.values[collected.values["metric"] == metric]
    arms, references = ordered(values["arm"]), collected.references
    look = drawn_looks(collected.arms, references)
    if not arms:
        return None
    low, high = float(values["value"].min()), float(values["value"].max())
    pad = max(0.02, 0.05 * (high - low))
    bins = np.linspace(max(0.0, low - pad), min(1.0, high + pad), 41)
    figure, axes = new_figure(7.4, 0.68 * len(arms) + 0.8, len(arms), 2, sharex="col")
    reference = reference_arm(list(collected.histograms), references)
    aim_arm = reference_arm(arms, references)
    aim = summary.get(aim_arm or "", {}).get(metric)
    for (left, right), arm in zip(axes, arms, strict=True):
        own, colour = values[values["arm"] == arm]["value"], look[arm].colour
        left.hist(own, bins=bins, color=colour, alpha=0.85, density=True, linewidth=0)
        if aim:
            left.axvline(aim.mean, color="#444444", linestyle=(0, (4, 3)), lw=0.9)
        left.set_ylabel(look[arm].label, color=colour, fontweight="bold", **ROW_LABEL)
        left.set_ylim(top=1.35 * left.get_ylim()[1])
        interval = summary.get(arm, {}).get(metric)
        if interval:
            text = f"mean {interval.mean:.3f}"
            if interval.seeds:
                seeds = list(interval.by_seed.values())
                height = [0.06 * left.get_ylim()[1]] * len(seeds)
                left.plot(seeds, height, "o", ms=4, mfc="white", mec="#222222", mew=0.8)
                left.plot(interval.median, height[0], "|", ms=10, color="#222222", mew=1.2)
                text += f", median {interval.median:.3f}"
            note(left, f"{text}; {of_size(interval.seeds, interval.prompts, interval.clips)}")
        if arm in collected.histograms:
            shares = collected.histograms[arm].reshape(64, -1).sum(axis=1)
            right.stairs(shares, np.linspace(0, 1, 65), fill=True, color=colour, alpha=0.85)
            right.set_yscale("log")
            right.set_ylim(1e-5, 3)
            if reference and arm != reference:
                distance = wasserstein(collected.histograms[arm], collected.histograms[reference])
                note(right, f"W₁ to {look[reference].label} {distance:.3f}")
        for axis in (left, right):
            axis.set_yticks([])
            axis.minorticks_off()
            axis.spines["left"].set_visible(False)
    axes[-1, 0].set_xlabel("mean HSV saturation of a video (0 to 1)")
    axes[-1, 1].set_xlabel("HSV saturation of a pixel (0 to 1), log shares")
    caption = f"Saturation of videos{' and of their pixels' if collected.histograms else ''}"
    dashed = f"; the dashed line is the mean of {look[aim_arm].label}" if aim_arm else ""
    figure.set_label(f"{caption}; dots are training seeds, a stroke their median{dashed}.")
    return figure


@styled
def over_training_seeds(
    summary: Summary, references: Collection[str] = (), panels: Sequence[str] | None = None
) -> Figure | None:
    """A panel a metric, a row an arm: training seeds as dots, their mean and median.

    references: arms that are labelled so. panels: the metrics; None: the headline metrics.
    """
    if panels is None:
        panels = headline({metric for own in summary.values() for metric in own})
    if not panels:
        return None
    arms, look = list(summary), drawn_looks(summary, references)
    figure, axes = new_figure(
        3.0 * len(panels) + 1.2, 0.3 * len(arms) + 0.9, 1, len(panels), sharey="row"
    )
    for axis, metric in zip(axes[0], panels, strict=True):
        for row, arm in enumerate(arms):
            interval, colour = summary[arm].get(metric), look[arm].colour
            if interval is None:
                continue
            if interval.seeds:
                seeds = list(interval.by_seed.values())
                axis.plot(seeds, [row] * len(seeds), "o", ms=4, color=colour, alpha=0.6, mew=0)
                axis.plot(interval.median, row, "D", ms=6, mfc="none", mec="#222222", mew=0.9)
            if np.isfinite(interval.low):
                axis.plot([interval.low, interval.high], [row, row], color=colour, lw=1)
            axis.plot(interval.mean, row, "|", ms=13, color=colour, mew=2)
        axis.set_xlabel(metric)
        axis.set_yticks(range(len(arms)), [look[arm].label for arm in arms])
    axes[0, 0].invert_yaxis()
    lines = any(np.isfinite(own[m].low) for own in summary.values() for m in panels if m in own)
    limits = ", lines 95 % intervals" if lines else ""
    sizes = _sizes(summary, panels)
    figure.set_label(f"Headline metrics: {DOTS}, a bar the mean{limits}; {sizes}.")
    return figure


def _sizes(summary: Summary, metrics: Sequence[str]) -> str:
    """The n behind a figure: training seeds and prompts of the arms, as ranges, and all clips."""
    shown = [own[m] for own in summary.values() for m in metrics if m in own]
    seeds = sorted({i.seeds for i in shown if i.seeds})
    prompts = sorted({i.prompts for i in shown})
    clips = sorted({i.clips for i in shown})
    parts = [(seeds, "training seeds"), (prompts, "prompts"), (clips, "clips")]
    return "n " + ", ".join(
        f"{own[0]}{'' if own[0] == own[-1] else f' to {own[-1]}'} {what}"
        for own, what in parts
        if own
    )


@styled
def diversity_against_saturation(
    summary: Summary, references: Collection[str] = (), metrics: Sequence[str] = ()
) -> Figure | None:
    """Each arm's diversity over its saturation: training seeds as dots, means with 95 % intervals,
    medians; real clips as dotted lines.

    references: arms that are labelled so. metrics: a panel each, its legend below; none: the first
    PANELS that there are.
    """
    names = metrics or DIVERSITY_LABELS
    panels = [m for m in names if any(m in own for own in summary.values())][:PANELS]
    arms = [a for a in summary if "saturation_mean" in summary[a] and set(panels) & set(summary[a])]
    if not panels or not arms:
        return None
    look = drawn_looks(summary, references)
    beside = 0.0 if metrics else 1.2
    figure, axes = new_figure(4.1 * len(panels) + beside, 3.5, 1, len(panels))
    for axis, metric in zip(axes[0], panels, strict=True):
        for arm in (a for a in arms if metric in summary[a]):
            x, y = summary[arm]["saturation_mean"], summary[arm][metric]
            colour = look[arm].colour
            if x.seeds:
                both = [seed for seed in x.by_seed if seed in y.by_seed]
                axis.plot(
                    [x.by_seed[s] for s in both], [y.by_seed[s] for s in both], "o", ms=3.5,
                    color=colour, alpha=0.6, mew=0,
                )  # fmt: skip
                axis.plot(x.median, y.median, "D", ms=5, mfc="none", mec=colour, mew=1)
            known = np.isfinite(x.low) and np.isfinite(y.low)
            axis.errorbar(
                x.mean, y.mean,
                xerr=[[max(0, x.mean - x.low)], [max(0, x.high - x.mean)]] if known else None,
                yerr=[[max(0, y.mean - y.low)], [max(0, y.high - y.mean)]] if known else None,
                fmt=look[arm].marker, color=colour, label=look[arm].label,
                markersize=12 if arm == "real" else 8, elinewidth=1.1,
                markeredgecolor="white", markeredgewidth=0.7,
            )  # fmt: skip
            if arm == "real":
                axis.axvline(x.mean, color=colour, lw=0.7, ls=":", zorder=0)
                axis.axhline(y.mean, color=colour, lw=0.7, ls=":", zorder=0)
        axis.set_xlabel("mean HSV saturation (0 to 1)")
        label = DIVERSITY_LABELS[metric]
        axis.set_ylabel(fill(label, 40) if metrics else label)
        axis.margins(0.08)
        if metric.endswith("_diversity"):
            axis.set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    place: Any = "outside lower center" if metrics else "outside right center"
    figure.legend(handles, labels, loc=place, ncols=3 if metrics else 1)
    intervals = any(np.isfinite(summary[a][m].low) for a in arms for m in panels if m in summary[a])
    caption = f"Diversity against saturation: {DOTS}, large signs means"
    caption += " with 95 % intervals" if intervals else ""
    dotted = f"; the dotted lines are those of {look['real'].label}" if "real" in arms else ""
    figure.set_label(f"{caption}{dotted}; {_sizes(summary, panels)}.")
    return figure
