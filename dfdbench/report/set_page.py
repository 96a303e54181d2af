"""The page of `data describe`: tables and histograms of a set, and of another one beside it.

One HTML file without anything beside it: figures are SVG in the page. Names are anyone's: they are
escaped (utils/table.py), and in figures they are no markup.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dfdbench.evaluate.set_numbers import NEAR, QUANTITIES
from dfdbench.evaluate.set_rows import Described
from dfdbench.report.figures import new_figure, shown, styled
from dfdbench.utils.table import escape_html, of_texts, to_html

BINS = 30
COLOURS = ("#1f6fb2", "#d1662a")
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.2rem auto; max-width: 62rem;
  padding: 0 1rem; color: #222 }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 1.8rem }
table { border-collapse: collapse } td, th { border-bottom: 1px solid #ddd; padding: .2rem .7rem;
  text-align: right } td:first-child, th:first-child { text-align: left }
.scroll { overflow-x: auto }
svg { max-width: 100%; height: auto } .note { color: #555 } td { overflow-wrap: anywhere }
"""
DEFINITIONS = {
    "seconds": "length of a clip",
    "frames": "frames of a clip",
    "fps": "frames a second",
    "saturation": "mean HSV saturation over sixteen frames (metric saturation_mean)",
    "motion": "speed of the fastest 5 % of pixels by DIS flow (metric dis_flow_magnitude)",
    "latent_change": "mean |z(t+1) − z(t)| of latents",
}


class DescribedSet:
    """A set as the page shows it: its name, its rows and their numbers."""

    def __init__(self, name: str, rows: Sequence[Described], numbers: Mapping[str, Any]) -> None:
        self.name, self.numbers = name, numbers
        self.rows = [row for row in rows if row.left_out is None]
        self.left_out = [(row.id, row.left_out) for row in rows if row.left_out]

    def values(self, quantity: str) -> list[float]:
        """Of all clips that have it; `words LEVEL` is a caption's length."""
        kind, _, level = quantity.partition(" ")
        found = [row.words.get(level) if level else getattr(row, kind) for row in self.rows]
        return [value for value in found if value is not None]


def set_page(sets: Sequence[DescribedSet], against: Mapping[str, Any] | None) -> str:
    """The page of one set, or of two with how they lie beside each other.

    Args:
        against: of `set_numbers.against`, with two sets.
    """
    names = " against ".join(own.name for own in sets)
    parts = [f"<h1>{escape_html(names)}</h1>", _overview(sets)]
    if against:
        parts.append(_beside(sets[0].name, sets[1].name, against))
    parts.append("<h2>Of a clip</h2>")
    parts.append(_quantities(sets))
    quantities = _there(sets)
    if quantities:
        parts.append(svg(histograms(sets, quantities)))
    parts.append("<h2>Sizes</h2>")
    parts.append(_sizes(sets))
    for own in sets:
        parts += [_pairs(own), _left_out(own)]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape_html(names)}'
        f'</title><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>\n{body}\n'
        "</body></html>\n"
    )


def _overview(sets: Sequence[DescribedSet]) -> str:
    rows = []
    for own in sets:
        n, copies, diversity = (own.numbers[k] for k in ("clips", "duplicates", "diversity"))
        value = "—" if diversity["value"] is None else f"{diversity['value']:.4f}"
        rows.append(
            [
                own.name,
                str(n),
                str(own.numbers["left_out"]),
                f"{own.numbers['seconds_in_all']:g}",
                f"{own.numbers['captions']['clips']} of {n}",
                f"{copies['count']} of {copies['n']}",
                f"{value} (n = {diversity['n']})",
            ]
        )
    head = ("set", "clips", "left out", "seconds in all", "captioned", "duplicates", "diversity")
    note = (
        "Diversity is the mean cosine distance of two clips' features, over all pairs. A duplicate "
        f"differs from an earlier clip in fewer than {NEAR} of 64 bits at all three hashes; "
        "latents are duplicates if they have the same bits."
    )
    return f"{to_html(of_texts(head, rows))}<p class='note'>{note}</p>"


def _beside(name: str, other: str, against: Mapping[str, Any]) -> str:
    value, copies = against["coverage"], against["shared"]
    head = ("", "covered", "density", "n")
    title = "<h2>One set against the other</h2>"
    like = f"{copies['count']} of {copies['n']} clips of {name} are like a clip of {other}."
    if value["why"]:
        return f"{title}<p>No coverage: {escape_html(value['why'])}.</p><p>{escape_html(like)}</p>"
    rows = [
        [f"{name} by {other}", f"{value['covered']:.1%}", f"{value['density']:.3f}",
         str(value["n"])],
        [f"{other} by {name}", f"{value['covers']:.1%}", f"{value['other_density']:.3f}",
         str(value["other_n"])],
    ]  # fmt: skip
    note = (
        f"Covered: the share of a set's clips that have a clip of the other one nearer than their "
        f"own neighbour number k = {value['k']} in their set (Naeem et al. 2020). Density: how "
        "many such balls a clip of the other set lies in, over k."
    )
    table = to_html(of_texts(head, rows))
    return f"{title}{table}<p class='note'>{note}</p><p>{escape_html(like)}</p>"


def _there(sets: Sequence[DescribedSet]) -> list[str]:
    """The quantities that a set has values of, captions by level among them."""
    levels = dict.fromkeys(level for own in sets for level in own.numbers["captions"]["words"])
    names = [*QUANTITIES, *(f"words {level}" for level in levels)]
    return [name for name in names if any(own.values(name) for own in sets)]


def _quantities(sets: Sequence[DescribedSet]) -> str:
    rows = []
    for quantity in _there(sets):
        kind, _, level = quantity.partition(" ")
        for own in sets:
            numbers = own.numbers
            value = numbers["captions"]["words"].get(level) if level else None
            value = value or numbers["quantities"].get(kind)
            if value:
                shown_values = [value[p] for p in ("mean", "p0", "p5", "p50", "p95", "p100")]
                cells = [f"{number:.4g}" for number in shown_values]
                unit = QUANTITIES.get(kind, "")
                label = f"{quantity}{f' ({unit})' if unit else ''}"
                rows.append([label, own.name, *cells, str(value["n"])])
    head = ("", "set", "mean", "least", "5 %", "median", "95 %", "most", "n")
    notes = [f"{name}: {text}" for name, text in DEFINITIONS.items() if name in _there(sets)]
    return f"{to_html(of_texts(head, rows))}<p class='note'>{escape_html('; '.join(notes))}.</p>"


@styled
def histograms(sets: Sequence[DescribedSet], quantities: Sequence[str]) -> Figure:
    """A panel a quantity: the share of each set's clips in equal bins of its range."""
    columns = min(3, len(quantities))
    rows = -(-len(quantities) // columns)
    figure, axes = new_figure(3.2 * columns, 2.1 * rows, rows, columns)
    for axis, quantity in zip(axes.flat, quantities, strict=False):
        of_sets = [own.values(quantity) for own in sets]
        together = np.concatenate([np.asarray(values, float) for values in of_sets])
        edges = np.histogram_bin_edges(together, BINS)
        for own, values, colour in zip(sets, of_sets, COLOURS, strict=False):
            if values:
                label = f"{shown(own.name, 30)} (n = {len(values)})"
                weights = np.full(len(values), 1 / len(values))
                axis.hist(values, edges, weights=weights, color=colour, alpha=0.55, label=label)
        kind = quantity.partition(" ")[0]
        unit = QUANTITIES.get(kind, "")
        axis.set_xlabel(f"{quantity}{f' ({unit})' if unit else ''}")
        axis.set_ylabel("share of clips")
    for axis in list(axes.flat)[len(quantities) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure


@styled
def svg(figure: Figure) -> str:
    """A figure as an <svg> element, the same for the same data."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _sizes(sets: Sequence[DescribedSet]) -> str:
    rows = [
        [size, own.name, str(count)]
        for own in sets
        for size, count in list(own.numbers["sizes"].items())[:BINS]
    ]
    return to_html(of_texts(("width × height", "set", "clips"), rows))


def _pairs(own: DescribedSet) -> str:
    copies = own.numbers["duplicates"]
    if not copies["count"]:
        return ""
    rows = [[clip, earlier] for clip, earlier in copies["first"]]
    title = f"<h2>Duplicates in {escape_html(own.name)}: {copies['count']}</h2>"
    return f"{title}{to_html(of_texts(('clip', 'like'), rows))}"


def _left_out(own: DescribedSet) -> str:
    if not own.left_out:
        return ""
    title = f"<h2>Left out of {escape_html(own.name)}: {len(own.left_out)}</h2>"
    rows = [[name, reason or ""] for name, reason in own.left_out[:BINS]]
    return f"{title}{to_html(of_texts(('clip', 'reason'), rows))}"
