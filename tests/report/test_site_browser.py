"""The leaderboards' site as a reader has it, in headless Chromium, from files without a network."""

import json
from urllib.parse import unquote

import pytest
from score_runs import add_run

from dfdbench.report.leaderboard.entries import digest
from dfdbench.report.leaderboard.submit import submit
from dfdbench.report.site.check import write_site

HOSTILE = "<img src=x onerror=alert(1)></script> & 'x'"
TIMES = "Array.from(document.querySelectorAll('#stage video'), v => v.currentTime)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A board of real clips and three students, one of a hostile name, all with clips."""
    runs, folder, made = (tmp_path_factory.mktemp(name) for name in ("runs", "boards", "site"))
    add_run(runs / "real", "real", None, filmed=3)
    for arm in ("dmd2", "dmd2_control", "dfd"):
        for seed in (0, 1, 2):
            add_run(runs / f"{arm}-{seed}", arm, seed, filmed=3)
    submit([runs], "toy-t2v", folder, prompts=2)
    path = folder / "entries/toy-t2v/dfd.json"
    entry = json.loads(path.read_text()) | {"name": HOSTILE}
    path.write_text(json.dumps(entry | {"sha256": digest(entry)}))
    write_site(folder, made)
    return made


@pytest.fixture
def visit(open_address, site):
    """Open a page of the site."""

    def open_page(address="boards/toy-t2v.html", width=1400, **options):
        return open_address(f"{site.as_uri()}/{address}", width, **options)

    return open_page


def rows_of(page):
    return page.locator("#board-table tbody tr").evaluate_all("r => r.map(x => x.dataset.row)")


def test_columns_sort_the_better_end_first(visit):
    page = visit()
    ranks = page.locator("#board-table .rank").all_inner_texts()
    assert [text.split()[0] for text in ranks] == ["1", "2", "3"]
    assert rows_of(page) == ["dfd", "dmd2_control", "dmd2", "real"]
    head = page.locator('th[data-column="hue_entropy"] button')
    head.click()
    assert rows_of(page) == ["real", "dfd", "dmd2_control", "dmd2"]
    head.click()
    assert rows_of(page) == ["dmd2", "dmd2_control", "dfd", "real"]
    assert page.locator('th[data-column="hue_entropy"]').get_attribute("aria-sort") == "ascending"


def test_search_and_filters_narrow_the_rows_and_the_address_keeps_them(visit):
    page = visit()
    page.locator("#find").fill("control")
    assert rows_of(page) == ["dmd2_control"]
    page.locator("#find").fill("")
    page.locator("#kind").select_option("student")
    assert sorted(rows_of(page)) == ["dfd", "dmd2", "dmd2_control"]
    page.locator("#by").select_option("saturation_mean")
    assert "saturation mean" in page.locator('th[data-column="rank"]').inner_text()
    page.wait_for_function("location.hash.includes('saturation_mean')")
    again = visit(f"boards/toy-t2v.html{unquote(page.evaluate('location.hash'))}")
    assert rows_of(again) == rows_of(page)
    assert again.locator("#by").input_value() == "saturation_mean"
    assert again.locator("#kind").input_value() == "student"


def test_methods_are_compared_with_the_leads_of_the_pairs_and_clips_on_one_clock(visit):
    page = visit()
    for name in ("dmd2", "dfd", "real"):
        page.locator(f'#board-table input[value="{name}"]').check()
    line = page.locator('#forest tr[data-column="hue_entropy"][data-row="dfd"]')
    assert line.locator(".better").inner_text().startswith("+0.4")
    real = page.locator('#forest tr[data-column="hue_entropy"][data-row="real"]')
    assert "without a paired test" in real.inner_text()
    assert page.locator("#stage video").count() == 3
    page.locator("#clips").scroll_into_view_if_needed()
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.2")
    seen = [page.evaluate(f"({TIMES})") for _ in range(15) if not page.wait_for_timeout(100)]
    assert all(max(times) - min(times) <= 1 / 8 for times in seen)
    page.locator("#prompt").select_option("bar-snow")
    assert "bar-snow/1.mp4" in page.locator("#stage video").first.get_attribute("src")
    page.wait_for_function("location.hash.includes('bar-snow')")
    again = visit(f"boards/toy-t2v.html{page.evaluate('location.hash')}")
    assert again.locator("#chosen .chip").count() == 3
    again.locator('#chosen button[aria-label="Leave out DMD2"]').click()
    assert not again.locator('#board-table input[value="dmd2"]').is_checked()


def test_the_play_button_shows_the_clips_of_a_method(visit):
    page = visit()
    page.locator('button[aria-label="Play clips of DMD2"]').click()
    assert page.locator("#stage figcaption").all_inner_texts() == ["DMD2"]
    assert not page.locator("#forest table").count()


def test_a_reader_of_reduced_motion_starts_with_still_clips(visit):
    page = visit("boards/toy-t2v.html#compare=dmd2+dfd", reduced_motion="reduce")
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    page.wait_for_timeout(300)
    assert page.evaluate(f"Math.max(...{TIMES})") < 0.1
    assert page.locator("#play").get_attribute("aria-label") == "Play"


@pytest.mark.parametrize(
    "address", ["index.html", "boards/toy-t2v.html", "entries/toy-t2v/dfd.html"]
)
def test_pages_fit_a_telephone_and_follow_dark_mode(visit, address):
    for width in (400, 1400):
        page = visit(address, width)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) != visit(address, color_scheme="dark").evaluate(paper)


def test_html_in_a_name_stays_text(visit):
    page = visit("boards/toy-t2v.html#compare=dfd+dmd2")
    assert page.locator('tr[data-row="dfd"] a').first.inner_text() == HOSTILE
    assert HOSTILE in page.locator("#chosen").inner_text()
    page.locator('tr[data-row="dfd"] a').first.click()
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator('img[src="x"]').count() == 0


def test_without_scripts_the_board_is_a_table(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#board-table tbody tr").count() == 4
    assert not page.locator("#compare").is_visible() and not page.locator("#by").is_visible()
