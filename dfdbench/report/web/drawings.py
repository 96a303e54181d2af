"""The figures of the page: one narrow SVG a panel, so that letters stay legible on a telephone.

Colours of lines and letters become variables of the page's style, so that they follow dark mode.
Used by render.py; the same figures lie as PNG and SVG in the report's folder of figures.
"""

import io
import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure as Plot

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report import figures
from dfdbench.report.arms import looks
from dfdbench.report.digits import number
from dfdbench.report.primary import headline
from dfdbench.report.summary import Summary
from dfdbench.utils.table import escape_html

VARIABLES = {
    "#222222": "var(--ink)", "#000000": "var(--ink)", "#444444": "var(--ink-2)",
    "#555555": "var(--ink-2)", "#666666": "var(--line-2)", "#ffffff": "var(--paper)",
}  # fmt: skip
UNUSED = re.compile(r"<metadata>.*?</metadata>|\sxmlns(:\w+)?=\"[^\"]*\"", re.DOTALL)
POINT = 4 / 3  # CSS pixels


class Drawing(NamedTuple):
    """An <svg> element, what is seen on it, and what stands below it."""

    svg: str
    alt: str
    caption: str


def panels(summary: Summary, references: Collection[str] = ()) -> Iterator[Drawing]:
    """A panel a headline metric, then diversity against saturation."""
    names = {arm: look.label for arm, look in looks(summary, references).items()}
    for metric in headline({metric for own in summary.values() for metric in own}):
        plot = figures.over_training_seeds(summary, references, [metric])
        means = ", ".join(
            f"{names[arm]} {number(own[metric].mean)}"
            for arm, own in summary.items()
            if metric in own
        )
        if plot is not None:
            alt = f"{metric}, mean of each arm: {means}."
            made = drawing(plot, f"seeds-{metric}", alt)
            yield made._replace(caption=all_metrics()[metric].definition)
    planes = [m for m in figures.DIVERSITY_LABELS if any(m in own for own in summary.values())]
    for metric in planes[: figures.PANELS]:
        plot = figures.diversity_against_saturation(summary, references, [metric])
        if plot is not None:
            places = ", ".join(
                f"{names[arm]} at {number(own['saturation_mean'].mean)} and "
                f"{number(own[metric].mean)}"
                for arm, own in summary.items()
                if metric in own and "saturation_mean" in own
            )
            alt = f"{metric} over saturation_mean: {places}."
            yield drawing(plot, f"plane-{metric}", alt)


def drawing(plot: Plot, name: str, alt: str) -> Drawing:
    """A figure as a part of the page; its label is the caption."""
    return Drawing(inline_svg(figure_svg(plot), name, alt), alt, str(plot.get_label()))


@figures.styled
def figure_svg(plot: Plot) -> str:
    """A figure as SVG, the same for the same data."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        plot.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()


def drawn_before(png: Path, caption: str) -> Drawing | None:
    """The SVG beside a figure's PNG; None where none is."""
    file = png.with_suffix(".svg")
    if not file.is_file() or "<image" in (text := file.read_text("utf-8")):
        return None
    return Drawing(inline_svg(text, png.stem, caption), caption, caption)


def inline_svg(text: str, name: str, alt: str) -> str:
    """matplotlib's SVG as an element of a page: its own ids, the page's colours, no namespaces."""
    body = UNUSED.sub("", text[text.index("<svg") :]).replace("xlink:href", "href")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(f": {colour}", f": {variable}")
    head, rest = body[: body.index(">") + 1], body[body.index(">") + 1 :]
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    width, height = (float(side) for side in found.groups()) if found else (0.0, 0.0)
    return (
        f'<svg role="img" aria-label="{escape_html(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width * POINT:.0f}" height="{height * POINT:.0f}">{rest}'
    )
