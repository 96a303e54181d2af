"""The paper's tables: numbers as printed, and measured ones never in the same column."""

import csv
import io
import json

import pytest
from score_runs import add_run
from tex_document import check
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.recipe import load_recipe, shipped_recipes
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.report import paper, published
from dfdbench.report.arms import KNOWN
from dfdbench.report.statistics import Interval
from dfdbench.utils.errors import UserError
from dfdbench.utils.table import Cell

COLUMNS = paper.AVERAGED[:5]


def at(mean: float) -> Interval:
    return Interval(mean, mean - 0.01, mean + 0.01, mean, 3, 12, 96, {})


def column(text: str, title: str, name: str) -> dict[str, str]:
    """Method -> cell of one column of one block of paper_table.md."""
    block = text.split(f"## {title}")[1].split("##")[0]
    lines = [line[1:-1].split("|") for line in block.splitlines() if line.startswith("|")]
    head = [cell.strip() for cell in lines[0]]
    place = next(i for i, cell in enumerate(head) if cell.split()[0] == name)
    return {line[0].strip(): line[place].strip() for line in lines[2:]}


@pytest.mark.parametrize("setting", published.settings())
def test_printed_averages_are_the_plain_mean_of_their_table_s_columns(setting):
    rows = published.of_setting(setting)
    for method in {row.method for row in rows}:
        found = {row.metric: row.value for row in rows if row.method == method}
        if paper.AVERAGE in found:
            parts = [found[name] for name in paper.AVERAGED if name in found]
            # Each is rounded: half a unit of the last digit, and another of the average.
            digits = len(next(r.text for r in rows if r.metric == paper.AVERAGE).split(".")[1])
            assert found[paper.AVERAGE] == pytest.approx(
                sum(parts) / len(parts), abs=1.01 * 10**-digits
            ), method


def test_the_numbers_of_table_1_are_those_printed():
    rows = {(r.method, r.metric): r for r in published.of_setting("t2v_wan")}
    assert len(rows) == 48 and {row.table for row in rows.values()} == {1}
    assert rows["dfd", "dino_diversity_mean"].value == 0.205
    assert rows["dmd2", "camera_trajectory_distance"].value == 4.284
    assert rows["teacher", "dino_diversity_per_frame"].text == "0.350"


def test_every_published_metric_has_its_measured_counterpart_named():
    metrics = {row.metric for row in published.shipped()} - {paper.AVERAGE}
    assert metrics == set(paper.SAME_BACKEND)
    same = {name for names in paper.SAME_BACKEND.values() for name in names}
    others = {name for names in paper.OTHER_BACKENDS.values() for name in names}
    assert not same & others


HEAD = "source,table,setting,method,metric,value\n"
LINE = "arXiv 2606.18478,1,t2v,dfd,clip,0.5\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("table,setting\n", "holds no numbers"),
        (HEAD + LINE + LINE, ":3: the number of line 2 again"),
        ("table,setting\n1,t2v\n", ":2: lacks 'source'"),
        (HEAD.strip() + ",extra\n" + LINE.strip() + ",1\n", ":2: unknown field 'extra'"),
        (HEAD + LINE.replace("0.5", "nan"), ":2: value: .*is 'nan'"),
        (HEAD + LINE.replace("0.5", ""), ":2: lacks 'value'"),
        (HEAD + LINE.replace(",1,", ",one,"), ":2: table: .*is 'one'"),
        (HEAD + LINE.replace("arXiv 2606.18478", "somewhere"), ":2: source: .*is 'somewhere'"),
        (HEAD + LINE.replace("dfd", "D F D"), ":2: method: .*is 'D F D'"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, text, says):
    (tmp_path / "numbers.csv").write_text(text)
    with pytest.raises(UserError, match=f"numbers.csv.*{says}"):
        published.read(tmp_path / "numbers.csv")


def test_unknown_settings_and_sources_without_a_method_of_it_are_refused():
    with pytest.raises(UserError, match="did you mean t2v_wan"):
        paper.paper_table({"dfd": {}}, "t2v_wam", "toy-t2v", {})
    with pytest.raises(UserError, match=r"none of its methods \(teacher, dmd2"):
        paper.paper_table({"other": {}}, "t2v_wan", "toy-t2v", {})
    with pytest.raises(UserError, match=r"no method of the paper's tables \(teacher, .*other"):
        paper.paper_tables({"other": {}}, "all", "toy-t2v", {})


def test_measured_values_stand_in_blocks_of_their_own_by_backend():
    summary = {
        "dfd": {
            "temporal_flickering": at(0.9),
            "clip_vit_l14_diversity": at(0.2),
            "effnet_lite2_diversity": at(0.3),
            "camera_endpoint_distance": at(0.4),
        },
        "dmd2_control": {"temporal_flickering": at(0.5)},
    }
    table = paper.paper_table(summary, "t2v_wan", "toy-t2v", {"dfd": {"motion_smoothness": 0.9}})
    text = paper.markdown(table)
    assert column(text, "Published", "clip_diversity_mean")["DFD"] == "0.128"
    same = "Measured here, suite toy-t2v, same"
    assert column(text, same, "clip_vit_l14_diversity") == {
        "teacher": "", "DMD2": "", "DP-DMD": "", 
        "DFD": "0.200 [0.190, 0.210], median 0.200 (3 seeds, 12 prompts, 96 clips)",
    }  # fmt: skip
    # ViPE's distances are the paper's; those of our own estimator are a column apart.
    assert set(column(text, same, "vipe_endpoint_distance").values()) == {""}
    other = "Measured here, suite toy-t2v, other"
    assert column(text, other, "camera_endpoint_distance")["DFD"].startswith("0.400")
    assert column(text, other, "effnet_lite2_diversity")["DFD"].startswith("0.300")
    published_names, same_names, other_names = (set(b.columns) for b in table.blocks)
    assert not other_names & same_names
    assert "effnet_lite2_diversity" not in published_names
    rows = list(csv.DictReader(io.StringIO(paper.long_csv([table]))))
    for row in rows:
        plain = row["kind"] == "published" or row["metric"] == "motion_smoothness"
        assert (row["low"] == "") == plain
    assert not {r["metric"] for r in rows if r["kind"] == "measured"} & {"clip_diversity_mean"}


def test_the_setting_without_printed_numbers_has_measured_rows_alone(tmp_path):
    arms = ("teacher", "self_forcing_dmd", "self_forcing_dfd", "dfd")
    summary = {arm: {"clip_vit_l14_diversity": at(0.2)} for arm in arms}
    scores = {"self_forcing_dfd": dict.fromkeys(COLUMNS, 0.5), "dfd": dict.fromkeys(COLUMNS, 0.9)}
    table = paper.paper_table(summary, "ar_wan", "ar-5s", scores)
    text = paper.markdown(table)
    (block,) = table.blocks
    assert block.kind == "measured" and "## Published" not in text
    assert "no published numbers" in text and "numbers are of the paper's own" not in text
    average = column(text, "Measured here, suite ar-5s, same", "average_vbench")
    assert average == {
        "teacher": "", "teacher forcing": "", "ODE initialisation": "", "Self Forcing, DMD": "",
        "Self Forcing control": "", "Self Forcing, DP-DMD": "", "Self Forcing, DFD": "0.500",
    }  # fmt: skip
    assert {row["kind"] for row in csv.DictReader(io.StringIO(paper.long_csv([table])))} == {
        "measured"
    }
    check(paper.latex(table), tmp_path)
    names = [t.setting for t in paper.paper_tables(summary, "all", "ar-5s", scores)]
    assert names[-1] == "ar_wan"
    others = paper.paper_tables({"teacher": {}, "dfd": {}}, "all", "s", {})
    assert "ar_wan" not in [t.setting for t in others]
    with pytest.raises(UserError, match=r"ar_wan: the sources hold none of its methods"):
        paper.paper_table({"teacher": {}, "dfd": {}}, "ar_wan", "s", {})
    with pytest.raises(UserError, match="did you mean ar_wan"):
        paper.paper_table(summary, "ar-wan", "s", {})


def test_the_arms_of_that_setting_are_those_of_the_recipes():
    arms = {r.arm for name in shipped_recipes() if name.startswith("toy-ar/")
            for r in [load_recipe(name)]}  # fmt: skip
    assert set(paper.STAGES) == arms and set(paper.STAGES) < set(KNOWN)
    wan = {load_recipe(n).arm for n in shipped_recipes() if n.startswith("wan-self-forcing/")}
    assert wan < set(paper.STAGES)


def test_both_dinos_get_a_column_where_both_are_measured():
    arm = {"dinov2_l_diversity": at(0.2), "dinov3_l_diversity": at(0.4)}
    (_, same) = paper.paper_table({"dfd": arm}, "t2v_wan", "s", {}).blocks
    assert [n for n in same.columns if n.startswith("dino")] == [
        "dinov2_l_diversity", "dinov3_l_diversity", "dinov2_l_diversity_per_frame",
    ]  # fmt: skip


def test_vbench_columns_are_vbenchs_scores_with_the_digits_that_were_printed():
    other = {"subject_consistency": at(0.1)}  # the mean over prompts, which is another number
    scores = {"dfd": {"subject_consistency": 0.96123456, "dynamic_degree": 0.5}}
    for setting, shown in (("t2v_wan", "0.961"), ("i2v_cosmos_vbench", "0.9612")):
        table = paper.paper_table({"dfd": other}, setting, "s", scores)
        text = paper.markdown(table)
        assert column(text, "Measured here, suite s, same", "subject_consistency")["DFD"] == shown
        values = csv.DictReader(io.StringIO(paper.long_csv([table])))
        (found,) = (r for r in values if r["kind"] == "measured")
        assert (found["setting"], found["value"], found["low"]) == (setting, "0.96123456", "")


def test_the_average_is_given_only_where_every_column_is_measured():
    full = {name: 0.5 + 0.1 * i for i, name in enumerate(COLUMNS)}
    part = {name: value for name, value in full.items() if name != "aesthetic_quality"}
    summary, scores = {"dfd": {}, "dmd2": {}}, {"dfd": full, "dmd2": part}
    table = paper.paper_table(summary, "t2v_wan", "s", scores)
    cells = column(paper.markdown(table), "Measured here, suite s, same", "average_vbench")
    assert cells == {"teacher": "", "DMD2": "(4 of 5)", "DP-DMD": "", "DFD": "0.700"}
    assert "DMD2 4 of 5" in table.notes[-1] and "DFD 5 of 5" in table.notes[-1]
    assert "4 of 5" not in paper.long_csv([table])
    wider = paper.paper_table(summary, "i2v_cosmos_vbench", "s", scores)
    assert "DFD 5 of 7" in wider.notes[-1]
    whole = {"dfd": full | {"i2v_subject": 0.2, "i2v_background": 0.5}}
    (_, same) = paper.paper_table(summary, "i2v_cosmos_vipe", "s", whole).blocks
    assert same.rows["dfd"][-1] == (Cell("0.6000"), (pytest.approx(4.2 / 7),))


ARMS = ("teacher", "dmd2", "dp_dmd", "dfd", "dfd_batch16", "dfd_batch128", "dfd_without_gan",
        "dfd_with_gan", "dfd_w0.5", "dfd_w1")  # fmt: skip


def test_all_tables_whose_methods_are_there_are_made_in_the_papers_order(tmp_path):
    def tables(*arms: str) -> list[int]:
        made = paper.paper_tables({arm: {} for arm in arms}, "all", "s", {})
        return [published.of_setting(table.setting)[0].table for table in made]

    assert tables(*ARMS) == [1, 2, 3, 5, 6, 7]
    assert tables("dfd_w1", "other") == [7] and tables("dfd") == [1, 2, 5]
    scores = {arm: dict.fromkeys(published_dimensions(), 0.5) for arm in ARMS}
    made = paper.paper_tables({arm: {} for arm in ARMS}, "all", "s", scores)
    for table in made:
        printed, same = table.blocks
        empty = {
            (method, name)
            for method, cells in same.rows.items()
            for name, number in zip(same.columns, cells, strict=True)
            if not number.cell.text
        }
        diversity = {n for n in same.columns if n not in published_dimensions()} - {paper.AVERAGE}
        assert empty == {(m, n) for m in printed.rows for n in diversity}
    check("\n".join(map(paper.latex, made)), tmp_path)


def published_dimensions() -> set[str]:
    """The columns of the paper's tables that are VBench's."""
    return {row.metric for row in published.shipped()} & set(DIMENSIONS)


@pytest.mark.parametrize("setting", ["t2v_wan", "t2v_wan_animation_weight"])
def test_latex_of_a_paper_table_compiles_and_fits(tmp_path, setting):
    method = published.of_setting(setting)[0].method
    names = [n for d in (paper.SAME_BACKEND, paper.OTHER_BACKENDS) for v in d.values() for n in v]
    scores = {method: dict.fromkeys(published_dimensions(), 0.5)}
    arms = {method: dict.fromkeys(names, at(0.5))}
    table = paper.paper_table(arms, setting, "50 % & a_b", scores)
    check(paper.latex(table), tmp_path)


def test_the_report_writes_the_table_when_asked(tmp_path):
    add_run(tmp_path / "runs" / "dfd", "dfd", 0)
    runner = CliRunner()
    out = str(tmp_path / "out")
    done = runner.invoke(
        app, ["report", str(tmp_path / "runs"), "--out", out, "--paper", "t2v_wan", "--json"]
    )
    assert done.exit_code == 0, done.output
    page = json.loads(done.stdout)["report"]
    assert page == f"{out}/index.html"
    for suffix in ("md", "csv", "tex"):
        assert (tmp_path / "out" / f"paper_table.{suffix}").stat().st_size > 100
    refused = runner.invoke(app, ["report", str(tmp_path / "runs"), "--paper", "t2v"])
    assert refused.exit_code == 2 and "did you mean t2v_wan" in refused.stderr
