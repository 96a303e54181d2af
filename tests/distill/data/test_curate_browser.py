"""The page of `pick` in a headless Chromium, through Playwright; skipped where one is missing."""

import os
import shutil
import threading
from urllib.parse import urlsplit

import pytest
from curation import mean_colours, three, write_footage

from dfdbench.distill.data.curate.cluster import cluster
from dfdbench.distill.data.curate.features import Embedder, features
from dfdbench.distill.data.curate.grid import grid
from dfdbench.distill.data.curate.pick import read_picks, serve
from dfdbench.distill.data.curate.rows import Candidate, Shot
from dfdbench.distill.data.curate.shots import Filters, shots
from dfdbench.distill.data.curate.wording import parse
from dfdbench.distill.data.curate.work import Stage, read_rows

WHOLE = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)
NAMES = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<img src=http://evil.example/x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    program = next((path for path in found if path), None)
    if program is None:
        pytest.skip(f"no {', '.join(NAMES)} on PATH, and CHROMIUM names none")
    with playwright.sync_playwright() as running:
        # a container's user is often root, for whom Chromium starts only without its sandbox
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = running.chromium.launch(executable_path=program, args=flags, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture
def folder(tmp_path):
    """Six clips in two clusters, and captions that hold HTML."""
    pytest.importorskip("sklearn")
    out = tmp_path / "cut"
    shots([write_footage(tmp_path / "videos", count=6)], out, WHOLE)
    rows = []
    for shot in read_rows(out, "shots", Shot):
        rows.append({"id": shot.id, **parse(three()), "short": EVIL})
    Stage(out, "caption", {}).write(rows)
    features(out, Embedder("colours", "", mean_colours))
    cluster(out, 2, backend="sklearn")
    grid(out, 3)
    return out


@pytest.fixture
def page(browser, folder):
    """The served page in a tab; afterwards: nothing went elsewhere, and nothing complained."""
    picking = serve(folder)
    thread = threading.Thread(target=picking.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    tab = browser.new_page()
    tab.set_default_timeout(60_000)
    asked, complaints = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    try:
        tab.goto(picking.url)
        yield tab
        own = urlsplit(picking.url).netloc
        assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {own}
        assert complaints == []
    finally:
        tab.close()
        picking.server.shutdown()
        picking.server.server_close()


def boxes(tab):
    return tab.locator("input[type=checkbox]")


def saved(tab, count):
    """Wait until the page says that so many are picked."""
    tab.get_by_text(f"{count} picked in all").wait_for()


def test_boxes_keys_and_pages_write_the_picks(page, folder):
    of_cluster = {}
    for row in read_rows(folder, "grid", Candidate):
        of_cluster.setdefault(row.cluster, []).append(row.id)
    known = [name for names in of_cluster.values() for name in names]
    page.get_by_role("link", name="Cluster 0").click()
    saved(page, 0)
    assert boxes(page).evaluate_all("all => all.map(box => box.value)") == of_cluster[0]
    boxes(page).nth(0).click()
    saved(page, 1)
    assert read_picks(folder, known) == of_cluster[0][:1]
    page.keyboard.press("2")
    saved(page, 2)
    assert read_picks(folder, known) == of_cluster[0][:2]
    page.keyboard.press("1")
    saved(page, 1)
    assert read_picks(folder, known) == of_cluster[0][1:2]
    assert not boxes(page).nth(0).is_checked()
    assert "picked" in page.locator("li").nth(1).get_attribute("class")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/cluster-0001.html")
    saved(page, 1)
    page.keyboard.press("1")
    saved(page, 2)
    assert set(read_picks(folder, known)) == {of_cluster[0][1], of_cluster[1][0]}
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/cluster-0000.html")
    saved(page, 2)
    assert boxes(page).nth(1).is_checked()
    page.reload()
    saved(page, 2)


def test_captions_with_html_stay_text_and_pictures_load(page):
    page.get_by_role("link", name="Cluster 0").click()
    saved(page, 0)
    assert EVIL in page.locator("li").first.inner_text()
    assert page.locator("li script").count() == 0
    pictures = page.locator("img")
    assert pictures.count() == boxes(page).count() > 0
    for place in range(pictures.count()):
        pictures.nth(place).scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )


def test_a_click_that_is_not_saved_is_told(page, folder):
    """An answer that is not the page's own is told as a fault."""
    page.get_by_role("link", name="Cluster 0").click()
    saved(page, 0)
    page.route("**/picks", lambda route: route.fulfill(status=200, body="no json"))
    boxes(page).nth(0).click()
    page.get_by_text("Not saved").wait_for()
    assert not (folder / "picks.csv").exists()
