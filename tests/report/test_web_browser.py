"""The report's page as a reader has it, in headless Chromium, from a file and without a network."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import score_runs
from score_runs import PROMPTS, add_run

from dfdbench.report.page import report

HOSTILE = "<img src=x onerror=alert(1)></script><b>{}</b> & 'more'"
ARMS = ("real", "teacher", "dmd2", "dmd2_control", "dfd")
TIMES = "Array.from(document.querySelectorAll('#stage video'), v => v.currentTime)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report of five arms, three training seeds, three prompts with clips, hostile prompts."""
    runs = tmp_path_factory.mktemp("runs")
    for arm in ARMS:
        for seed in (None,) if arm in ("real", "teacher") else (0, 1, 2):
            add_run(runs / f"{arm}-{seed}", arm, seed, filmed=3, text=HOSTILE)
    return report([runs], tmp_path_factory.mktemp("report"))


@pytest.fixture
def visit(open_address, page_file):
    """Open the page."""

    def open_page(address="", file=page_file, width=1400, **options):
        return open_address(file.as_uri() + address, width, **options)

    return open_page


def go_to(page, name):
    page.evaluate(f"document.getElementById('{name}').scrollIntoView()")


def rows_of(page):
    return page.locator("#score-table tbody tr").evaluate_all("r => r.map(x => x.dataset.row)")


def text_of(page, arm, column):
    heads = page.locator("#score-table thead th").evaluate_all("h => h.map(x => x.dataset.column)")
    row = page.locator(f'#score-table tr[data-row="{arm}"]')
    return row.locator("th, td").nth(heads.index(column)).inner_text()


def test_all_clips_play_and_stay_within_a_frame_of_each_other(visit):
    page = visit()
    go_to(page, "player")
    assert page.locator("#stage video").count() == len(ARMS) * 8
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.3")
    seen = [page.evaluate(f"({TIMES})") for _ in range(30) if not page.wait_for_timeout(100)]
    assert all(max(times) - min(times) <= 1 / 8 for times in seen)
    assert len({round(min(times), 2) for times in seen}) > 10  # they move, over the end too


def test_pause_frame_steps_and_scrubbing_show_the_same_frame_of_every_clip(visit):
    page = visit()
    go_to(page, "player")
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.1")
    page.keyboard.press("Space")
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    page.locator("#scrub").fill("6")
    page.keyboard.press("ArrowRight")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    frame = int(page.locator("#time").inner_text().split()[0]) - 1
    assert frame in (7, 8)
    page.wait_for_timeout(300)
    assert {int(8 * time) for time in page.evaluate(TIMES)} == {frame}


def test_quarter_speed_is_a_quarter_and_stays_in_the_address(visit):
    page = visit()
    page.locator("#speed").select_option("0.25")
    page.wait_for_function("location.hash.includes('speed=0.25')")
    go_to(page, "player")
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.05")
    before = page.evaluate(f"[performance.now(), Math.min(...{TIMES})]")
    page.wait_for_timeout(1000)
    after = page.evaluate(f"[performance.now(), Math.min(...{TIMES})]")
    passed = (after[1] - before[1]) / ((after[0] - before[0]) / 1000)
    assert 0.1 < passed < 0.4


def test_the_table_sorts_both_ways_filters_and_hides_columns(visit):
    page = visit()
    assert rows_of(page) == list(ARMS)
    head = page.locator('#score-table th[data-column="hue_entropy"]')
    head.locator("button").click()
    assert rows_of(page) == ["real", "teacher", "dfd", "dmd2_control", "dmd2"]
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert rows_of(page)[0] == "dmd2" and head.get_attribute("aria-sort") == "ascending"
    page.locator("#find").fill("dmd")
    assert rows_of(page) == ["dmd2", "dmd2_control"]
    page.locator(".chooser summary").click()
    page.locator('#columns input[value="hue_entropy"]').uncheck()
    assert head.count() == 0
    page.locator('#tabs [data-tab="Colour"]').click()
    heads = page.locator("#score-table thead th[data-column]")
    assert heads.evaluate_all("h => h.map(x => x.dataset.column)") == ["saturation_mean"]


def test_a_baseline_shows_the_report_s_own_paired_differences(visit, page_file):
    page = visit()
    page.locator("#base").select_option("dmd2_control")
    deltas = json.loads((page_file.parent / "deltas.json").read_text())["dfd - dmd2_control"]
    for metric in ("hue_entropy", "saturation_mean"):
        numbers = re.findall(r"[+−]?\d+\.\d+", text_of(page, "dfd", metric))
        shown = [float(number.replace("−", "-")) for number in numbers]
        wanted = [deltas[metric][key] for key in ("mean", "low", "high")]
        assert shown == pytest.approx(wanted, abs=6e-4)
    assert text_of(page, "dmd2_control", "hue_entropy") == "—"
    every = json.loads((page_file.parent / "deltas.json").read_text())["dmd2 - teacher"]
    page.locator("#base").select_option("teacher")  # one clip set against every training seed
    first = re.search(r"[+−]\d+\.\d+", text_of(page, "dmd2", "hue_entropy"))[0]
    assert float(first.replace("−", "-")) == pytest.approx(every["hue_entropy"]["mean"], abs=6e-4)


def test_a_cell_opens_its_prompts_and_a_dot_plays_the_clips(visit):
    page = visit()
    page.locator('#score-table tr[data-row="dfd"] td .cell').first.click()
    assert "DFD" in page.locator("#drill-title").inner_text()
    dots = page.locator("#drill-plot circle.chosen")
    assert dots.count() == len(PROMPTS)
    wanted = PROMPTS[2]
    page.locator(f'#drill-plot circle.chosen[data-prompt="{wanted}"]').click()
    page.wait_for_function(f"location.hash.includes('prompt={wanted}')")
    assert wanted in page.locator("#prompt-text").inner_text()
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.1")  # from the folder beside the page
    assert page.locator('#stage tr.chosen[data-arm="dfd"]').count() == 1


def test_an_address_restores_the_choices(visit):
    address = (
        f"#prompt={PROMPTS[1]}&mode=wipe&a=dfd&b=dmd2&wipe=30&speed=0.5&base=dmd2&tab=Colour"
        "&sort=saturation_mean&up=1&train=2&cell=hue_entropy:dfd"
    )
    page = visit(address)
    assert PROMPTS[1] in page.locator("#prompt-text").inner_text()
    assert page.locator("#stage table.wipe").count() == 1
    assert page.locator("#stage video").count() == 2 * 8
    inset = page.locator(".over").first.evaluate("v => getComputedStyle(v).clipPath")
    assert "70%" in inset or "calc(100% - 30%)" in inset
    assert page.locator("#train").input_value() == "2"
    assert page.locator("#base").input_value() == "dmd2"
    assert page.locator('#tabs [aria-selected="true"]').inner_text() == "Colour"
    assert page.locator("#drill").is_visible()
    page.evaluate("location.hash = 'mode=grid&a=dfd&b=dmd2'")
    page.wait_for_function("document.querySelectorAll('#stage table.wipe').length === 0")
    link = page.locator('nav a[href="#scores"]')
    link.click()
    assert "b=dmd2" in page.url  # a link within the page leaves the choices alone


def test_html_in_prompts_stays_text(visit):
    page = visit()
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.dismiss()))
    page.locator('#score-table tr[data-row="dfd"] td .cell').first.click()
    page.keyboard.press("]")
    page.wait_for_timeout(300)
    assert page.locator("img[src=x], main b, h3 b").count() == 0 and dialogs == []
    assert page.locator("#prompt-text").inner_text().startswith("<img src=x onerror=alert(1)>")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(visit, width):
    page = visit(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#score-table td .cell").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    letters = page.locator(".panels svg text").evaluate_all(
        "t => t.filter(x => x.textContent.trim()).map(x => x.getBoundingClientRect().height)"
    )
    assert min(letters) >= 8  # pixels from line to line


def test_dark_mode_differs_and_is_dark(visit):
    colours = [
        visit(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert light > 700 and dark < 120


def test_reduced_motion_starts_paused(visit):
    page = visit(reduced_motion="reduce")
    go_to(page, "player")
    page.wait_for_timeout(600)
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    assert len(set(page.evaluate(TIMES))) == 1


def test_blind_votes_hide_the_arms_and_can_be_taken_away(visit, tmp_path):
    page = visit("#mode=blind&a=dfd&b=dmd2")
    go_to(page, "player")
    assert page.locator("#stage video").count() == 2
    assert not re.search("DFD|DMD2", page.locator("#stage").inner_html())
    for key in "120":
        page.keyboard.press(key)
    with page.expect_download() as download:
        page.locator("#export").click()
    download.value.save_as(tmp_path / "votes.csv")
    rows = list(csv.DictReader((tmp_path / "votes.csv").open()))
    assert len(rows) == 3 and all({r["left"], r["right"]} == {"dfd", "dmd2"} for r in rows)
    assert [row["vote"] for row in rows] == [rows[0]["left"], rows[1]["right"], "tie"]
    assert {row["suite"] for row in rows} == {"toy-t2v"}
    assert len({(row["prompt"], row["seed"]) for row in rows}) == 3


def test_a_clip_comes_closer_with_all_its_scores(visit):
    page = visit()
    page.locator("#stage .clip").nth(9).click()
    assert page.locator("#closer-title").inner_text() == "teacher, seed 2"
    assert "saturation mean" in page.locator("#closer-scores").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#closer").is_hidden()


def test_prompts_are_sorted_by_largest_and_by_typical_difference(visit, page_file):
    page = visit("#by=hue_entropy&a=dfd&b=dmd2&order=difference")
    listed = page.locator("#prompt option").evaluate_all("o => o.map(x => x.value)")
    means = {}
    for row in csv.DictReader((page_file.parent / "cells.csv").open()):
        if row["metric"] == "hue_entropy" and row["prompt"] in PROMPTS[:3]:
            means.setdefault((row["arm"], row["prompt"]), []).append(float(row["value"]))
    gap = {p: sum(means["dfd", p]) / 3 - sum(means["dmd2", p]) / 3 for p in PROMPTS[:3]}
    assert listed == sorted(gap, key=lambda p: -abs(gap[p]))
    page.locator("#order").select_option("typical")
    middle = sorted(gap.values())[1]
    listed = page.locator("#prompt option").evaluate_all("o => o.map(x => x.value)")
    assert listed == sorted(gap, key=lambda p: abs(gap[p] - middle))


def test_the_file_alone_plays_one_prompt_and_shows_stills_of_the_others(
    browser, page_file, tmp_path
):
    alone = Path(shutil.copy(page_file, tmp_path / "index.html"))
    page = browser.new_page()
    page.goto(alone.as_uri())
    go_to(page, "player")
    page.wait_for_function(f"Math.min(...{TIMES}) > 0.1")
    page.keyboard.press("]")
    page.wait_for_selector("#missing:visible")
    assert page.locator("#stage .still.missing").count() == len(ARMS) * 8
    picture = page.locator("#stage .still").first.evaluate(
        "s => getComputedStyle(s).backgroundImage"
    )
    assert picture.startswith('url("data:image/jpeg')
    page.close()


@pytest.mark.slow
def test_a_page_of_a_thousand_clips_opens_in_two_seconds(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(score_runs, "PROMPTS", tuple(f"p{i}" for i in range(12)))
    for arm in ARMS:
        for seed in (None,) if arm in ("real", "teacher") else (0, 1, 2):
            add_run(tmp_path / "runs" / f"{arm}-{seed}", arm, seed, filmed=12)
    file = report([tmp_path / "runs"], tmp_path / "out")
    page = visit(file=file)
    assert (
        page.evaluate("JSON.parse(document.getElementById('data').textContent).clips.length") > 1000
    )
    assert page.evaluate("performance.getEntriesByType('navigation')[0].domComplete") < 2000
    assert file.stat().st_size < 5_000_000


def test_without_scripts_the_page_is_a_document_with_clips(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#stage video[controls]").count() == len(ARMS) * 8
    assert page.locator(".gallery img").count() == 3
    assert not page.locator("#play").is_visible() and page.locator(".card").first.is_visible()
    page.locator(".plain-table summary").click()
    assert page.locator(".plain-table td").first.is_visible()
