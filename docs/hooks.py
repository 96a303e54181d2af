"""What `make docs` does beside MkDocs: generated parts, pages of the repository, equations.

A line `<!-- generated: NAME -->` gives way to that part of reference.py. The repository's own pages
(results, recipes, boards, contributing, changelog) join the site under their paths, and so does
every file or folder that a page links to, so that all links work without a host. Equations between
dollars become MathML, which browsers show without a script.
"""

import html
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference import GENERATED

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "baselines/**/*.md", "leaderboards/README.md",
         "results/**/README.md")  # fmt: skip
MARK = re.compile(r"^<!-- generated: (.+) -->$", re.M)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages and the files that any page links to."""
    for path in sorted(page for pattern in PAGES for page in ROOT.glob(pattern)):
        _add(files, path.relative_to(ROOT).as_posix(), config)
    for page in files.documentation_pages():
        for link in LINK.findall(_text(page)):
            _add(files, target(page.src_uri, link), config)
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Put the generated parts in; let links into the repository lead to the site's own copy."""
    markdown = MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        path = target(here, link[1])
        return posixpath.relpath(path, posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)


def on_page_content(text: str, **_: Any) -> str:
    """Turn equations into MathML."""
    return EQUATION.sub(
        lambda m: convert(html.unescape(m[3]), display="block" if m[1] == "div" else "inline"), text
    )


def target(page: str, link: str) -> str:
    """Path in the site of what `page` links to: docs/ is its root; a folder is its README.md."""
    lies_in_docs = (ROOT / "docs" / page).is_file()
    folder = PurePosixPath("docs" if lies_in_docs else "", page).parent
    path = posixpath.normpath(posixpath.join(folder, link)).removeprefix("docs/")
    return f"{path}/README.md" if (ROOT / path).is_dir() else path


def _add(files: Files, path: str, config: MkDocsConfig) -> None:
    """A file of the repository under its own path, or a list of the files of a folder that has no
    README.md; MkDocs reports what is not there."""
    source = ROOT / path
    if files.get_file_from_path(path) is not None:
        return
    if source.is_file():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    elif source.parent.is_dir() and source.name == "README.md":
        names = sorted(p.name for p in source.parent.iterdir() if p.is_file())
        lines = [f"# {posixpath.dirname(path)}", "", *(f"- [{n}]({n})" for n in names)]
        files.append(File.generated(config, path, content="\n".join(lines)))
        for name in names:
            _add(files, posixpath.join(posixpath.dirname(path), name), config)


def _text(page: File) -> str:
    """A page with its generated parts, whose links count too."""
    text = page.content_string
    return text + "".join(GENERATED[n]() for n in MARK.findall(text) if n in ("recipes", "house"))
