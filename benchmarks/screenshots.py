"""README's pictures of a report: the player and the score table, as a browser shows them.

    python benchmarks/screenshots.py runs/quickstart/report --out docs/images

Writes report-player.png and report-scores.png. Needs Playwright (`pip install -e '.[browser]'`) and
a Chromium of the system. --address chooses what is shown, such as "#by=open_gini&order=difference".
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dfdbench.utils.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

WIDTH = 1200
PARTS = {"report-player.png": ("#prompt", "#play"), "report-scores.png": ("#base", "#score-table")}
"""Picture → the first and the last thing on it."""
MARGIN = 12  # pixels above and below


def find_chromium() -> str | None:
    """The program of the system's Chromium; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def launch(playwright: "Playwright", program: str) -> "Browser":
    """Headless Chromium, also for root."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=program, args=arguments)


def shoot(report: Path, out: Path, address: str = "") -> list[Path]:
    """Write both pictures; returns their paths.

    Raises:
        UserError: no report there, or no Chromium on this machine.
    """
    page_file = report / "index.html"
    if not page_file.is_file():
        raise UserError(f"{report}: no index.html there; name the folder of a report")
    program = find_chromium()
    if program is None:
        raise UserError("no Chromium here; install it, on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright, program)
        page = browser.new_page(viewport={"width": WIDTH, "height": 1300})
        page.goto(f"{page_file.resolve().as_uri()}{address}")
        page.wait_for_function("document.querySelectorAll('#stage video').length > 0")
        page.wait_for_timeout(1500)  # until clips have frames
        for name, ends in PARTS.items():
            page.locator(ends[0]).evaluate(
                "e => window.scrollTo(0, e.getBoundingClientRect().top + scrollY - 150)"
            )
            page.wait_for_timeout(300)
            first, last = (page.locator(end).bounding_box() for end in ends)
            assert first and last, "both are on the page"
            top = first["y"] - MARGIN
            height = last["y"] + last["height"] + MARGIN - top
            shown = {"x": 0, "y": top, "width": WIDTH, "height": height}
            page.screenshot(path=str(out / name), clip=shown)  # type: ignore[arg-type]
        browser.close()
    return [out / name for name in PARTS]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--address", default="")
    given = parser.parse_args()
    try:
        print(*shoot(given.report, given.out, given.address), sep="\n")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
