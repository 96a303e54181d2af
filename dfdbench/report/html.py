"""Self-contained HTML: the frame of a page and its tables, every text escaped.

Used by page.py and leaderboard/render.py.
"""

from collections.abc import Sequence
from html import escape

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
p.note, figcaption { color: #666; font-size: .88rem; }
.scroll { overflow-x: auto; } img { max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #888; } td.best { font-weight: 700; } figure { margin: 1.2rem 0; }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]]) -> str:
    """A table that scrolls where it is too wide; True marks the best cells."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="best">{escape(text)}</td>' if best else f"<td>{escape(text)}</td>"
            for text, best in row
        )
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>\n{body}</table></div>'


def document(title: str, parts: Sequence[str]) -> str:
    """A page of `parts`, which are HTML already."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )
