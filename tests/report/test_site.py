"""The leaderboards' site: ranks against brute force, pages by a parser, proof of its bytes."""

import json
import shutil
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_runs import add_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.report.leaderboard.beside import digests, read_recipe
from dfdbench.report.leaderboard.entries import digest, read_entry
from dfdbench.report.leaderboard.submit import submit
from dfdbench.report.site.check import site_faults, write_site
from dfdbench.report.site.facts import bibtex_of, facts_of, recipe_changes
from dfdbench.report.site.ranks import Rank, ranked
from dfdbench.report.site.render import site_files
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.utils.errors import UserError

runner = CliRunner()
HOSTILE = "</script><img src=x onerror=alert(1)> & 'x'"
PLACES = {"higher": "mode_recall", "lower": "camera_failure_rate", "near": "saturation_mean"}


def call(*arguments: object):
    return runner.invoke(app, ["leaderboard", *map(str, arguments)])


def synthetic(metric: str, seed: int, arms=6, seeds=5, prompts=3) -> pd.DataFrame:
    """Cells of a reference and students whose means lie apart by about their scatter."""
    rng = np.random.default_rng(seed)
    rows = [("real", f"p{p}", NO_TRAINING_SEED, metric, 0.5, 4) for p in range(prompts)]
    for arm in range(arms):
        for s in range(seeds):
            shift = 0.04 * rng.normal()
            rows += [(f"arm{arm}", f"p{p}", s, metric, 0.4 + 0.08 * arm + shift + 0.1 * p
                      + 0.02 * rng.normal(), 4) for p in range(prompts)]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "prompt", "training_seed", "metric", "value", "n"])


def brute_force(cells: pd.DataFrame, direction: str) -> dict[str, tuple[int, int]]:
    """Rank ranges by scipy alone: a loop over pairs, Holm by its definition."""
    means = cells.groupby(["arm", "training_seed"])["value"].mean()
    goal = means["real"].iloc[0]
    students = sorted(set(cells["arm"]) - {"real"})
    good = {
        arm: {"higher": means[arm], "lower": -means[arm], "near": -(means[arm] - goal).abs()}[
            direction
        ].to_numpy()
        for arm in students
    }
    tests = sorted((stats.ttest_rel(good[a], good[b]).pvalue, a, b)
                   for a, b in combinations(students, 2))  # fmt: skip
    better: list[tuple[str, str]] = []
    for i, (p, a, b) in enumerate(tests):
        if p * (len(tests) - i) >= 0.05:
            break  # Holm stops at the first that is not significant
        better.append((a, b) if good[a].mean() > good[b].mean() else (b, a))
    return {
        arm: (1 + sum(arm == loser for _, loser in better),
              len(students) - sum(arm == winner for winner, _ in better))
        for arm in students
    }  # fmt: skip


@pytest.mark.parametrize("direction", PLACES)
@pytest.mark.parametrize("seed", [0, 1])
def test_ranks_are_those_of_a_brute_force_computation(direction, seed):
    metric = PLACES[direction]
    cells = synthetic(metric, seed)
    name = "nearest_reference" if direction == "near" else direction
    ranks, leads = ranked(cells, metric, name, {"real"}, "real")
    expected = brute_force(cells, direction)
    assert {arm: ranks[arm][:2] for arm in expected} == expected
    assert len(set(expected.values())) > 2 and len(leads) == 15
    assert ranks["real"] == Rank(0, 0, 0, "reference")


def test_who_cannot_be_compared_in_pairs_has_no_rank_and_a_reason():
    cells = synthetic("mode_recall", 0, arms=3)
    alone = cells[(cells["arm"] == "arm0") & (cells["training_seed"] == 0)]
    plain = alone.assign(arm="plain", training_seed=NO_TRAINING_SEED)
    two = cells[(cells["arm"] == "arm1") & (cells["training_seed"] < 2)].assign(arm="two")
    other = cells[cells["arm"] == "arm2"].assign(arm="other", prompt="q" + cells["prompt"])
    more = cells[cells["arm"] == "arm2"].assign(arm="more", n=8)
    every = pd.concat([cells, plain, two, other, more])
    ranks, _ = ranked(every, "mode_recall", "higher", {"real"}, "real")
    assert {a: ranks[a].why for a in ("plain", "two", "other", "more")} == {
        "plain": "no training seeds", "two": "fewer than 3 training seeds in common",
        "other": "no prompt in common", "more": "other numbers of clips a prompt",
    }  # fmt: skip
    assert ranks["plain"].text() == "–" and ranks["arm2"].of == 3
    assert ranked(cells, "mode_recall", "nearest_reference", {"real"}, None)[0]["arm0"].why


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """A board of four measured entries, one of a hostile name, with clips, and printed rows."""
    runs, folder = (tmp_path_factory.mktemp(name) for name in ("runs", "boards"))
    add_run(runs / "real", "real", None, filmed=2)
    for arm in ("dmd2", "dmd2_control", "dfd"):
        for seed in (0, 1, 2):
            add_run(runs / f"{arm}-{seed}", arm, seed, filmed=2)
    submit([runs], "toy-t2v", folder, prompts=2)
    assert call("add", "--published", "--board", "t2v-wan", "--folder", folder).exit_code == 0
    printed = folder / "entries/t2v-wan/published-dfd.json"
    entry = json.loads(printed.read_text()) | {"board": "toy-t2v", "id": "published-dfd"}
    mixed = folder / "entries/toy-t2v/published-dfd.json"
    mixed.write_text(json.dumps(entry | {"sha256": digest(entry)}))
    path = folder / "entries/toy-t2v/dfd.json"
    entry = json.loads(path.read_text()) | {"name": HOSTILE}
    path.write_text(json.dumps(entry | {"sha256": digest(entry)}))
    return folder


@pytest.fixture(scope="module")
def site(boards, tmp_path_factory):
    made = tmp_path_factory.mktemp("site")
    write_site(boards, made)
    return made


class Parsed(HTMLParser):
    """Links, and the text of each table row, of a page without its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.rows, self.tags, self.inside = [], [], [], ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.links += [values[key] for key in ("href", "src") if values.get(key)]
        if tag == "tr":
            self.rows.append("")
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.rows and not self.inside:
            self.rows[-1] += f" {data.strip()}" if data.strip() else ""


def test_every_page_is_whole_and_every_link_leads_to_a_file(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 1 + 2 + 9
    for page in pages:
        parsed = Parsed(page)
        for link in parsed.links:
            if link.startswith(("#", "data:", "https://arxiv.org/")):
                continue
            assert (page.parent / link).resolve().is_file(), f"{page.name}: {link}"
        assert {"main", "header", "h1"} <= set(parsed.tags)
        text = page.read_text("utf-8")
        assert "<img src=x" not in text and "None" not in " ".join(parsed.rows)


def test_the_page_without_scripts_has_methods_as_rows_with_ranks(site):
    rows = Parsed(site / "boards/toy-t2v.html").rows
    control = next(row for row in rows if row.strip().startswith("DMD2 control"))
    assert "of 3" in control and "measured" in control and "verified" in control
    assert any(HOSTILE in row for row in rows)
    assert "reference" in next(row for row in rows if row.strip().startswith("real clips"))


def test_published_rows_stand_apart_and_are_never_ranked(site):
    text = (site / "boards/toy-t2v.html").read_text("utf-8")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [entry["id"] for entry in data["published"]["entries"]] == ["published-dfd"]
    assert "published-dfd" not in data["scores"]
    assert all("published" not in pair for own in data["leads"].values() for pair in own)
    assert all(own[10] == 3 for of in data["scores"].values() for own in of.values() if own[8])
    table = text.split('id="board-table"')[1].split("</table>")[0]
    assert "published" not in table
    assert "published" in text.split('class="printed"')[1]


def test_the_same_entries_give_the_same_bytes_and_changed_ones_are_found(boards, site, tmp_path):
    assert site_faults(boards, site) == []
    copy = Path(shutil.copytree(site, tmp_path / "copy"))
    page = copy / "boards/toy-t2v.html"
    page.write_text(page.read_text("utf-8").replace("1", "2", 1), "utf-8")
    (copy / "entries/toy-t2v/dmd2.html").unlink()
    (copy / "more.html").write_text("x")
    faults = site_faults(boards, copy)
    assert [fault.partition(":")[0] for fault in faults] == [
        "boards/toy-t2v.html", "entries/toy-t2v/dmd2.html", "more.html",
    ]  # fmt: skip


def test_rendering_again_removes_what_is_gone_and_nothing_of_others(boards, site, tmp_path):
    fewer = Path(shutil.copytree(boards, tmp_path / "fewer"))
    for path in (fewer / "entries/t2v-wan").iterdir():
        path.unlink()
    copy = Path(shutil.copytree(site, tmp_path / "copy"))
    write_site(fewer, copy)
    assert not (copy / "entries/t2v-wan").exists() and not (copy / "boards/t2v-wan.html").exists()
    assert site_faults(fewer, copy) == []
    (copy / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"mine\.txt, which no rendering wrote"):
        write_site(fewer, copy)
    with pytest.raises(UserError, match="no site"):
        site_faults(fewer, tmp_path)
    for place in (fewer, tmp_path):
        with pytest.raises(UserError, match="--site"):
            write_site(fewer, place)
    assert (copy / "mine.txt").read_text() == "x"


def test_submit_takes_clips_along_and_says_what_to_do(tmp_path):
    for seed in (0, 1):
        add_run(tmp_path / f"runs/dfd-{seed}", "dfd", seed, filmed=2)
    folder = tmp_path / "boards"
    done = call("submit", tmp_path / "runs", "--board", "toy-t2v", "--clips", 1, "--folder", folder)
    assert done.exit_code == 0, done.output
    assert "pull request" in done.output and "dfdbench leaderboard verify" in done.output
    clips = sorted(p.name for p in (folder / "clips/toy-t2v/dfd/ball-desert").iterdir())
    assert clips == ["1.mp4", "2.mp4"]
    (folder / "clips/toy-t2v/nobody").mkdir()
    done = call("verify", "--folder", folder)
    assert done.exit_code == 1 and "clips/toy-t2v/nobody: of no measured entry" in done.output


def test_a_recipe_is_proven_by_the_digest_of_the_entry(tmp_path):
    committed = Path(__file__).parents[2] / "leaderboards"
    entry = read_entry(committed / "entries/toy-t2v/dfd.json")
    recipe = read_recipe(committed, entry)
    assert recipe["student"]["steps"] == 4 and facts_of(entry, recipe)["steps"]["value"] == 4
    assert facts_of(entry, None)["steps"]["text"] == "—"
    assert "f123b5c08e182495" in digests(recipe)
    path = tmp_path / "recipes/toy-t2v/dfd.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(recipe | {"seed": 9}))
    with pytest.raises(UserError, match="not the recipe"):
        read_recipe(tmp_path, entry)
    other = read_recipe(committed, read_entry(committed / "entries/toy-t2v/dmd2_control.json"))
    changes = recipe_changes(recipe, other)
    assert {("method", "dmd2", "dfd"), ("dfd.p", "—", "0.5")} <= {*changes}
    assert all(key == "method" or key.startswith("dfd.") for key, _, _ in changes)
    assert bibtex_of(entry).startswith("@misc{dfdbench-toy-t2v-dfd,\n  title = {DFD on toy-t2v}")


@pytest.mark.slow
def test_the_committed_leaderboards_render(tmp_path):
    files = site_files(Path(__file__).parents[2] / "leaderboards")
    assert {"index.html", "boards/toy-t2v.html", "entries/t2v-wan/published-dfd.html"} <= {*files}
    index = files["index.html"].decode()
    assert index.count("<article") == 8 and "not told apart" in index
