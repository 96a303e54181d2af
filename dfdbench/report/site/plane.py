"""The plane of diversity and colour distance as SVG, drawn by hand so that its bytes never vary.

Used by render.py. The upper left is best; a line joins the methods that no other beats in both.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from markupsafe import Markup, escape

from dfdbench.report.digits import number
from dfdbench.report.site.data import Point

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 16, 50
TICKS = 8
LETTER, LINE = 6.6, 15  # pixels of a letter and of a line


class Axis(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        step = _step((self.high - self.low) / TICKS)
        first = ceil(self.low / step)
        values = [round((first + i) * step, 10) for i in range(2 * TICKS + 2)]
        return [value for value in values if self.low <= value <= self.high]


def _step(least: float) -> float:
    power = 10.0 ** int(f"{least:e}".partition("e")[2])
    return next(n * power for n in (1, 2, 5, 10) if n * power >= least)


def _axis(values: Sequence[float | None], start: float, end: float, floor: bool) -> Axis:
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    pad = 0.08 * (high - low or abs(high) or 1.0)
    return Axis(max(0.0, low - pad) if floor else low - pad, high + pad, start, end)


def plane_svg(
    points: Sequence[Point], colours: Mapping[str, str], x_label: str, y_label: str
) -> Markup:
    """The figure as an <svg> element."""
    x = _axis([v for p in points for v in p.x], LEFT, WIDTH - RIGHT, floor=True)
    y = _axis([v for p in points for v in p.y], HEIGHT - BOTTOM, TOP, floor=False)
    said = "; ".join(
        f"{p.entry.name} at distance {number(p.x[0])}, diversity {number(p.y[0])}" for p in points
    )
    parts = [
        f'<svg class="plane" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'aria-label="{escape(f"{y_label} against {x_label}: {said}.")}">'
    ]
    bottom, side = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in x.ticks():
        parts.append(f'<path class="rule" d="M{x.at(value):.1f} {TOP}V{bottom}"/>')
        parts.append(_text(f"{value:g}", x.at(value), bottom + 17, "middle", "tick"))
    for value in y.ticks():
        parts.append(f'<path class="rule" d="M{LEFT} {y.at(value):.1f}H{side}"/>')
        parts.append(_text(f"{value:g}", LEFT - 8, y.at(value) + 4, "end", "tick"))
    parts.append(_text(f"← nearer   {x_label}", (LEFT + side) / 2, HEIGHT - 10, "middle", "axis"))
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="rotate(-90 15 {middle:.1f})" '
        f'x="15" y="{middle:.1f}">{escape(y_label)} →</text>'
    )
    front = sorted((p.x[0], p.y[0]) for p in points if p.front)
    if len(front) > 1:
        line = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in front)
        parts.append(f'<polyline class="front" points="{line}"/>')
    taken: list[tuple[float, float, float]] = []
    for p in points:
        parts += _point(p, x, y, colours[p.entry.id])
    for p in sorted(points, key=lambda p: y.at(p.y[0])):
        parts.append(_label(p, x, y, taken))
    return Markup("".join(parts) + "</svg>")


def _point(p: Point, x: Axis, y: Axis, colour: str) -> list[str]:
    a, b = x.at(p.x[0]), y.at(p.y[0])
    parts = []
    if p.x[1] is not None and p.x[2] is not None:
        line = f"M{x.at(p.x[1]):.1f} {b:.1f}H{x.at(p.x[2]):.1f}"
        parts.append(f'<path class="span" stroke="{escape(colour)}" d="{line}"/>')
    if p.y[1] is not None and p.y[2] is not None:
        line = f"M{a:.1f} {y.at(p.y[1]):.1f}V{y.at(p.y[2]):.1f}"
        parts.append(f'<path class="span" stroke="{escape(colour)}" d="{line}"/>')
    parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" fill="{escape(colour)}"/>')
    return parts


def _label(p: Point, x: Axis, y: Axis, taken: list[tuple[float, float, float]]) -> str:
    """A method's name beside its point, moved down where another name is."""
    name = p.entry.name if len(p.entry.name) <= 28 else f"{p.entry.name[:27]}…"
    wide, a, b = LETTER * len(name), x.at(p.x[0]) + 10, y.at(p.y[0]) - 8
    if a + wide > WIDTH - RIGHT:
        a = x.at(p.x[0]) - 10 - wide
    while any(abs(b - top) < LINE and a < right and left < a + wide for left, right, top in taken):
        b += LINE
    taken.append((a, a + wide, b))
    return _text(name, a, b, "start", "name")


def _text(text: str, x: float, y: float, anchor: str, kind: str) -> str:
    return (
        f'<text class="{kind}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
    )
