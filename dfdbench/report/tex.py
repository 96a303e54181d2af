"""LaTeX that compiles with plain pdflatex: escaped text, and tables that fit their line.

Used by tables.py and paper.py. A table is a tabular of booktabs in a box that shrinks to the width
of the line where it is wider, so it can be put into any document with booktabs and graphicx.
"""

import unicodedata
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$",
    "−": r"$-$", "×": r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "–": "--", "—": "---",
    "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}", "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
NEEDS = r"\usepackage{booktabs,graphicx}"


def escape(text: str) -> str:
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


def interval(text: str, best: bool = False) -> str:
    """A cell such as `0.5 [0.4, 0.6]`: the mean, bold where best, and the interval small."""
    mean, _, limits = text.partition(" ")
    shown = rf"\textbf{{{escape(mean)}}}" if best else escape(mean)
    return f"{shown} {{\\scriptsize {escape(limits)}}}" if limits else shown


def upright(text: str) -> str:
    """A head turned by 90°, for columns narrower than their names."""
    return rf"\rotatebox{{90}}{{{escape(text)}}}"


def stacked(text: str) -> str:
    """A cell such as `0.5 [0.4, 0.6]` with the interval small below the mean."""
    mean, _, limits = text.partition(" ")
    if not limits:
        return escape(mean)
    return rf"\shortstack{{\strut {escape(mean)}\\{{\scriptsize {escape(limits)}}}}}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A table of escaped cells, the first column left, the others centred.

    note: goes into a comment above it.
    """
    lines = [
        f"% needs {NEEDS}; {note}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{l" + "c" * (len(head) - 1) + "}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *(_line(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}}%",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    # After the \\ of the line before, a [ or * would be taken for its option.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"
