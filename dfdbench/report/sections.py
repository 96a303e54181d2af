"""The sections of a page, and their text in Markdown and HTML.

A page is a title, texts below it, and sections; a section is a title and blocks: texts, tables,
pictures, lines, links. Used by page.py (report.md, index.html), tables.py (deltas.md), paper.py and
leaderboard/render.py. Every text from outside is escaped here or in table.py.
"""

import base64
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import quote

from dfdbench.utils.table import (
    Table,
    escape_html,
    escape_markdown,
    escape_prose,
    markdown,
    to_html,
)


class Figure(NamedTuple):
    """A picture: its PNG, where a page beside the folder of figures finds it, what it shows."""

    file: Path
    link: str
    caption: str


class Lines(NamedTuple):
    """A list of short texts."""

    texts: Sequence[str]


class Links(NamedTuple):
    """A label and (text, address) of what it names."""

    label: str
    links: Sequence[tuple[str, str]]


Block = str | Table | Figure | Lines | Links
"""What a section holds. A str is a note, whose `code` stands in backticks."""


class Section(NamedTuple):
    """A title and what stands below it. level: 2, or 3 for a part of the section before it."""

    title: str
    blocks: Sequence[Block] = ()
    level: int = 2


class Page(NamedTuple):
    """A title, notes, sections."""

    title: str
    notes: Sequence[str]
    sections: Sequence[Section]


def markdown_page(page: Page) -> str:
    """The page as Markdown; its pictures are links."""
    parts = [f"# {escape_markdown(page.title)}\n", *map(_markdown_block, page.notes)]
    return "\n".join([*parts, markdown_sections(page.sections)])


def markdown_sections(sections: Sequence[Section]) -> str:
    """The sections as Markdown."""
    parts = []
    for section in sections:
        parts.append(f"{'#' * section.level} {escape_markdown(section.title)}\n")
        parts += map(_markdown_block, section.blocks)
    return "\n".join(parts)


def _markdown_block(block: Block) -> str:
    match block:
        case Table():
            return markdown(block)
        case Figure(_, link, caption):
            return f"![{escape_markdown(caption)}]({link})\n\n{escape_prose(caption)}\n"
        case Lines(texts):
            return "".join(f"- {_item(text)}\n" for text in texts)
        case Links(label, links):
            shown = (f"[{escape_markdown(text)}]({_address(to)})" for text, to in links)
            return f"{label}: {', '.join(shown)}\n"
    return f"{escape_prose(block)}\n"


def _item(text: str) -> str:
    """The text of a list's item, which is no heading, list or quotation of its own."""
    escaped = re.sub(r"^([#+=-])", r"\\\1", escape_prose(text.lstrip()))
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)


def _address(path: str) -> str:
    """A file's name as a link's target, which blanks and brackets would end."""
    return quote(path, safe="/")


def html_page(page: Page) -> str:
    """The page as HTML with its pictures inside it, so that it needs nothing but what it links."""
    parts = [f"<h1>{escape_html(page.title)}</h1>", *map(html_block, page.notes)]
    for section in page.sections:
        blocks = "\n".join(map(html_block, section.blocks))
        parts.append(f"<h{section.level}>{escape_html(section.title)}</h{section.level}>{blocks}")
    template = Template(files("dfdbench.report").joinpath("page.html").read_text("utf-8"))
    return template.substitute(title=escape_html(page.title), body="\n".join(parts))


def html_block(block: Block) -> str:
    """A block as HTML, its texts escaped."""
    match block:
        case Table():
            return to_html(block)
        case Figure(file, _, caption):
            data, shown = base64.b64encode(file.read_bytes()).decode(), escape_html(caption)
            return (
                f'<figure><img alt="{shown}" src="data:image/png;base64,{data}">'
                f"<figcaption>{shown}</figcaption></figure>"
            )
        case Lines(texts):
            return f"<ul>{''.join(f'<li>{escape_html(text)}</li>' for text in texts)}</ul>"
        case Links(label, links):
            shown = ", ".join(
                f'<a href="{escape_html(_address(to))}">{escape_html(t)}</a>' for t, to in links
            )
            return f'<p class="note">{label}: {shown}</p>'
    return f'<p class="note">{escape_html(block.replace("`", ""))}</p>'
