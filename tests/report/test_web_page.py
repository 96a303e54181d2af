"""The report's page without a browser: verdicts, clips, previews, and what its texts may do."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import av
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.report.summary import compare
from dfdbench.report.web import clips as page_clips
from dfdbench.report.web import previews
from dfdbench.report.web.clips import chosen_rows
from dfdbench.report.web.data import group_of
from dfdbench.report.web.drawings import inline_svg
from dfdbench.report.web.render import SCRIPTS, STYLES, as_block, environment, static
from dfdbench.report.web.verdicts import NOT_SHOWN, OTHER, REVERSE, TOO_FEW, verdicts_of
from dfdbench.utils.video import write_video

COLUMNS = ["metric", "arm", "prompt", "training_seed", "n", "value"]


def cells(values, metric="hue_entropy", prompts=("a", "b"), n=8):
    """Cells of each arm's values, one a training seed; a single one of an arm without any."""
    rows = []
    for arm, own in values.items():
        for seed, value in enumerate(own):
            trained = NO_TRAINING_SEED if len(own) == 1 else seed
            rows += [(metric, arm, prompt, trained, n, value) for prompt in prompts]
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(table, a="dfd", b="dmd2"):
    deltas, _ = compare(table, [(a, b)])
    (own,) = verdicts_of(table, deltas)
    return own[0]


def test_a_claim_holds_where_seeds_show_it_and_its_reverse_where_they_show_that():
    values = {"dfd": [0.8, 0.82, 0.85], "dmd2": [0.4, 0.45, 0.43]}
    own = verdict(cells(values))
    leads = np.subtract(values["dfd"], values["dmd2"])
    assert own.status == "holds" and own.claim == "DFD is more diverse than DMD2"
    assert own.lead == pytest.approx(leads.mean())
    limits = stats.t.interval(0.95, 2, leads.mean(), stats.sem(leads))
    assert (own.low, own.high) == pytest.approx(limits)
    assert own.p == pytest.approx(stats.ttest_1samp(leads, 0).pvalue)
    assert own.n == "3 seeds, 2 prompts, 48 and 48 clips"
    assert verdict(cells(values), "dmd2", "dfd").status == REVERSE


@pytest.mark.parametrize(
    ("dfd", "status"), [([0.4, 0.8, 0.3], NOT_SHOWN), ([0.8, 0.9], TOO_FEW), ([0.8], TOO_FEW)]
)
def test_a_claim_that_seeds_do_not_show_is_not_said_to_hold(dfd, status):
    own = verdict(cells({"dfd": dfd, "dmd2": [0.42, 0.45, 0.43][: len(dfd)]}))
    assert own.status == status and own.effect.startswith("+")


def test_nearer_to_the_reference_is_counted_by_distance_not_by_value():
    values = {"real": [0.5], "dfd": [0.45, 0.44, 0.46], "dmd2": [0.61, 0.6, 0.63]}
    own = verdict(cells(values, "saturation_mean"))
    leads = np.abs(np.subtract(values["dmd2"], 0.5)) - np.abs(np.subtract(values["dfd"], 0.5))
    assert own.lead == pytest.approx(leads.mean()) and own.status == "holds"
    assert own.claim == "DFD is nearer to real clips in colour than DMD2"
    far = {**values, "dfd": [0.2, 0.21, 0.19]}  # paler than the reference, and farther from it
    assert verdict(cells(far, "saturation_mean")).status == REVERSE


def test_arms_of_other_prompts_or_numbers_of_clips_are_not_comparable():
    both = {"dfd": [0.8, 0.82, 0.85], "dmd2": [0.4, 0.45, 0.43]}
    own = [cells({arm: v}, n=n) for (arm, v), n in zip(both.items(), (8, 16), strict=True)]
    assert verdict(pd.concat(own)).status == OTHER
    apart = [cells({arm: v}, prompts=p) for (arm, v), p in zip(both.items(), "ab", strict=True)]
    assert verdict(pd.concat(apart)).status == OTHER


def clip_rows(prompts=2, trainings=(0,), arms=("dfd", "dmd2"), seeds=range(1, 11)):
    rows = [
        (arm, training, f"p{prompt}", seed, f"{arm}-{training}-{prompt}-{seed}.mp4")
        for arm in arms for training in trainings for prompt in range(prompts) for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "training_seed", "prompt_id", "seed", "path"])


def test_the_page_has_the_seeds_that_all_arms_have():
    rows = clip_rows(1)
    rows = rows[(rows["arm"] == "dfd") | (rows["seed"] % 2 == 0)]
    chosen = chosen_rows(rows, 1000)
    for arm, count in (("dfd", page_clips.SEEDS), ("dmd2", 5)):
        seeds = set(chosen[chosen["arm"] == arm]["seed"])
        assert {2, 4, 6, 8, 10} <= seeds and len(seeds) == count


def test_too_many_clips_leave_out_training_seeds_then_prompts_never_the_first():
    rows = clip_rows(3, trainings=(0, 1))
    assert len(chosen_rows(rows, 1000)) == 3 * 2 * 2 * 8
    fewer = chosen_rows(rows, 50)
    assert set(fewer["training_seed"]) == {0} and len(fewer) == 3 * 2 * 8
    assert set(chosen_rows(rows, 40)["prompt_id"]) == {"p0", "p1"}
    assert set(chosen_rows(rows, 1)["prompt_id"]) == {"p0"}


def test_large_clips_get_a_small_preview_once_small_ones_play_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    frames = np.zeros((12, 240, 416, 3), np.uint8)
    frames[:, :, 208:] = 200
    write_video(tmp_path / "large.mp4", frames, 16)
    write_video(tmp_path / "small.mp4", frames[:, :64, 160:256], 8)
    assert previews.preview(tmp_path / "small.mp4") == tmp_path / "small.mp4"
    made = previews.preview(tmp_path / "large.mp4")
    facts = previews.facts_of(made)
    assert facts == previews.Facts(384, 222, 16.0, 12)
    with av.open(str(made)) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p"
    frame = previews.middle_frame(made, facts.frames)
    assert frame[:, 300:].mean() > 190 and frame[:, :90].mean() < 10
    before = made.stat().st_mtime_ns
    assert previews.preview(tmp_path / "large.mp4") == made and made.stat().st_mtime_ns == before


def test_clips_of_an_earlier_page_go_and_other_files_stay(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in (f"{'a' * 20}.mp4", f"{'b' * 20}.mp4", "mine.mp4", "notes.txt"):
        (folder / name).write_text("x")
    page_clips._sweep(folder, {f"{'a' * 20}.mp4"})
    assert {p.name for p in folder.iterdir()} == {f"{'a' * 20}.mp4", "mine.mp4", "notes.txt"}


def test_no_text_ends_the_block_of_json_and_all_come_back():
    value = {"a": "</script><!-- \u2028 & ' \" \\", "b": [1.5, None]}
    block = as_block(value)
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block) == value
    with pytest.raises(ValueError, match="JSON"):
        as_block({"a": float("nan")})


def test_templates_escape_every_text():
    assert environment().from_string("{{ x }}").render(x="<b>'\"&") == "&lt;b&gt;&#39;&#34;&amp;"


def test_a_family_that_no_tab_names_has_a_tab_of_its_own():
    assert group_of("colour") == "Colour" and group_of("vbench_viclip") == "VBench"
    assert group_of("someone_s") == "someone_s"


def test_figures_take_the_page_s_colours_and_their_own_names():
    text = (
        '<?xml version="1.0"?><svg xmlns="http://x" width="72pt" height="36pt" viewBox="0 0 72 36">'
        '<metadata>http://y</metadata><g id="p1" style="fill: #222222" clip-path="url(#c)">'
        '<use xlink:href="#m"/></g></svg>'
    )
    made = inline_svg(text, "one", "<seen>")
    assert "http" not in made and 'aria-label="&lt;seen&gt;"' in made
    assert 'id="one-p1"' in made and "url(#one-c)" in made and 'href="#one-m"' in made
    assert "fill: var(--ink)" in made and 'width="96" height="48"' in made


def test_scripts_join_to_one_module_without_imports_or_names_twice():
    text = str(static(SCRIPTS, "js"))
    assert not re.search(r"^\s*(import|export)\b", text, re.MULTILINE)
    assert "</script" not in text and "http" not in text and "@import" not in static(STYLES, "css")
    names = re.findall(r"^(?:async )?(?:function|class|const|let) ([\w$]+)", text, re.MULTILINE)
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_joined_scripts_are_a_module(tmp_path):
    (tmp_path / "page.mjs").write_text(str(static(SCRIPTS, "js")))
    done = subprocess.run(
        ["node", "--check", tmp_path / "page.mjs"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


VOID = {"meta", "link", "img", "input", "br"}  # elements without an end


class Outline(HTMLParser):
    """Elements of a page, names that stand twice, and elements that are not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        self.elements.append((tag, own))
        self.ids += [own["id"]] if "id" in own else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_can_be_read_aloud(tmp_path):
    from score_runs import add_run

    from dfdbench.report.page import report

    for arm in ("dfd", "dmd2"):
        add_run(tmp_path / "runs" / arm, arm, 0, filmed=2)
    outline = Outline()
    outline.feed(report([tmp_path / "runs"], tmp_path / "out").read_text())
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    tags = [tag for tag, _ in outline.elements]
    assert tags.count("main") == tags.count("nav") == tags.count("h1") == 1
    for tag, own in outline.elements:
        if tag == "img":
            assert own.get("alt")
        if tag == "th":
            assert own.get("scope") in ("row", "col")
        if tag == "video":
            assert own.get("aria-label") and own["src"].startswith("data:video/mp4")
        if tag == "svg" and "hidden" not in own:
            assert own.get("role") == "img" and own.get("aria-label")
