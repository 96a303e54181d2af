"""A table, and its text in Markdown, LaTeX, CSV and HTML.

The one place that writes tables and that escapes text for each format: names of arms, prompts and
entries are anyone's. Used by the report, the leaderboards and what eval writes beside a store.
"""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dfdbench.utils.errors import clean


class Cell(NamedTuple):
    """What a cell shows: a value, the limits of its interval such as `[0.4, 0.6]`, bold if best."""

    text: str
    limits: str = ""
    best: bool = False

    @property
    def plain(self) -> str:
        """Value and limits as one text."""
        return f"{self.text} {self.limits}" if self.limits else self.text


MISSING = Cell("—")


class Table(NamedTuple):
    """Names of the columns, a list of cells a row, and a title that the writer may print above."""

    head: list[str]
    rows: list[list[Cell]]
    title: str = ""


def of_texts(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A table whose cells are plain texts."""
    return Table(list(head), [[Cell(text) for text in row] for row in rows], title)


# Markdown


def markdown(table: Table) -> str:
    """The table as Markdown (GitHub's), best cells bold."""
    rows = [
        [f"**{escape_markdown(c.plain)}**" if c.best else escape_markdown(c.plain) for c in row]
        for row in table.rows
    ]
    texts = [f"| {' | '.join(row)} |" for row in (map(escape_markdown, table.head), *rows)]
    return "\n".join([texts[0], "|" + "---|" * len(table.head), *texts[1:]]) + "\n"


CODE = re.compile(r"(`(?:dfdbench|verify|eval|pip|code|--)[^`<>&]*`)")
"""Commands that our own sentences name."""
MARKUP = (
    (re.compile(r"[\\`*|$~]"), r"\\\g<0>"),
    (re.compile(r"\]([(:])"), r"]\\\1"),  # links, and where links lead
    (re.compile(r"(?<![^\W_])_|_(?![^\W_])"), r"\\_"),  # emphasis, but not within a word
    (re.compile(r"://|(?<=www)\.", re.IGNORECASE), r"\\\g<0>"),  # bare addresses
)


def escape_markdown(text: str) -> str:
    """`text` as Markdown shows it letter by letter: no markup, no HTML, no link, no new line."""
    return _without_markup(one_line(text))


def escape_prose(text: str) -> str:
    """A sentence of ours that holds names of others: the same, but commands stay code."""
    parts = CODE.split(one_line(text))
    return "".join(p if i % 2 else _without_markup(p) for i, p in enumerate(parts))


def _without_markup(text: str) -> str:
    for pattern, instead in MARKUP:
        text = pattern.sub(instead, text)
    return html.escape(text, quote=False)


def one_line(text: str) -> str:
    """`text` in one line, with what no one sees as its escape (utils/errors.py)."""
    return clean(" ".join(text.splitlines()))


# HTML


def to_html(table: Table) -> str:
    """The table as HTML; it scrolls where it is too wide."""
    head = "".join(f"<th>{escape_html(text)}</th>" for text in table.head)
    rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>\n" for row in table.rows)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{rows}</table></div>'


def escape_html(text: str) -> str:
    """`text` as HTML shows it, in one line."""
    return html.escape(one_line(text))


def _html_cell(cell: Cell) -> str:
    mark = ' class="best"' if cell.best else ""
    return f"<td{mark}>{escape_html(cell.plain)}</td>"


# CSV

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "'")
"""First signs of a text that a spreadsheet would run, and the sign that says text."""


def to_csv(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Rows of values in full precision; a text that a spreadsheet would run begins with `'`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        # A lone return would begin a row for some programs; others move a terminal's cursor.
        value = re.sub(r"[^\n\t]+", lambda part: clean(part[0]), value)
    if not isinstance(value, str) or not value.startswith((*FORMULA, " ")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_csv(text: str) -> str:
    """A text as it was before `to_csv`."""
    return text.removeprefix("'")


# LaTeX

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$",
    "−": r"$-$", "×": r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "–": "--", "—": "---",
    "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}", "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
PACKAGES = r"\usepackage{booktabs,graphicx}"


def latex(table: Table, note: str, narrow: bool = False) -> str:
    """The table as a tabular of booktabs that shrinks to the line where it is wider.

    It compiles with plain pdflatex in any document that has PACKAGES; best cells are bold.

    Args:
        note: goes into a comment above it.
        narrow: heads but the first turned by 90°, limits below their value: for many columns.
    """
    head = [escape_latex(text) for text in table.head]
    if narrow:
        head[1:] = [rf"\rotatebox{{90}}{{{text}}}" for text in head[1:]]
    lines = [
        f"% needs {PACKAGES}; {' '.join(note.split())}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{l" + "c" * (len(head) - 1) + "}",
        r"\toprule",
        _latex_line(head),
        r"\midrule",
        *(_latex_line([_latex_cell(cell, narrow) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}%",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell, narrow: bool) -> str:
    value, limits = escape_latex(cell.text), rf"{{\scriptsize {escape_latex(cell.limits)}}}"
    value = rf"\textbf{{{value}}}" if cell.best else value
    if not cell.limits:
        return value
    return rf"\shortstack{{\strut {value}\\{limits}}}" if narrow else f"{value} {limits}"


def _latex_line(cells: Sequence[str]) -> str:
    # After the \\ of the line before, a [ or * would be taken for its option.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """`text` as LaTeX: specials escaped, the signs of our tables translated.

    Other letters lose their accents and what is left beyond ASCII becomes a question mark, because
    plain pdflatex stops at characters that its fonts lack.
    """
    return "".join(SPECIAL.get(sign) or _ascii(sign) for sign in text)


def _ascii(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else "?"
    kept = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(part, part) for part in kept) or "?"
