"""Pages of reports and leaderboards in headless Chromium, from files and without a network."""

import sys

import pytest
from test_house import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from screenshots import find_chromium, launch


@pytest.fixture(scope="module")
def browser():
    """Chromium of the system; a test that asks for it is skipped where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install -e '.[browser]'"
    )
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = launch(playwright, chromium)
        yield opened
        opened.close()


@pytest.fixture
def open_address(browser):
    """Open an address; at the end nothing was complained of and nothing left the disk."""
    complaints, contexts = [], []

    def open_page(address, width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
        page.on("request", lambda asked: complaints.append(asked.url)
                if not asked.url.startswith(("file:", "data:", "blob:")) else 0)  # fmt: skip
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
