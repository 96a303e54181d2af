import csv
import io
import math
from itertools import combinations

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from tex_document import check

from dfdbench.report.arms import KNOWN, label_of, looks, ordered, reference_arm
from dfdbench.report.digits import number, signed
from dfdbench.report.sections import Lines, Section, markdown_sections
from dfdbench.report.statistics import Interval
from dfdbench.report.summary import Delta, deltas_json, within_range
from dfdbench.report.tables import (
    cell,
    delta_sections,
    delta_text,
    long_csv,
    main_table,
    pooled_tables,
)
from dfdbench.utils.table import (
    MISSING,
    Cell,
    Table,
    escape_latex,
    escape_markdown,
    from_csv,
    latex,
    markdown,
    of_texts,
    to_csv,
    to_html,
)


def at(mean: float, **fields) -> Interval:
    of_seeds = {0: mean - 0.1, 1: mean, 2: mean + 0.1}
    return Interval(mean, mean - 0.1, mean + 0.1, mean, 3, 12, 576, of_seeds)._replace(**fields)


SUMMARY = {
    "real": {"saturation_mean": at(0.30), "hue_entropy": at(0.99)},
    "dmd2": {"saturation_mean": at(0.25), "hue_entropy": at(0.40)},
    "dfd": {"saturation_mean": at(0.34), "hue_entropy": at(0.80)},
    "dp_dmd": {"saturation_mean": at(0.10)},
}


def test_the_teacher_is_the_reference_where_there_are_no_real_clips():
    assert reference_arm(["dfd", "teacher"]) == "teacher"
    assert reference_arm(["teacher", "real"]) == "real"
    assert reference_arm(["dfd"]) is None


@pytest.mark.fault("A2")
def test_the_reference_that_sources_name_keeps_its_name_and_is_labelled():
    assert reference_arm(["dfd", "lcm_x", "real"], {"lcm_x"}) == "lcm_x"
    assert looks(["lcm_x"], {"lcm_x"})["lcm_x"].label == "lcm x (reference)"
    head = main_table({"dfd": {}, "lcm_x": {}}, references={"lcm_x"}).head
    assert head == ["metric", "DFD", "lcm x (reference)"]


BEST = {"hue_entropy": "dfd"}


def test_markdown_marks_the_best_and_shows_missing_as_missing():
    lines = markdown(main_table(SUMMARY, BEST)).splitlines()
    assert lines[0] == "| metric | real clips | DMD2 | DFD | DP-DMD |"
    entropy = next(line for line in lines if line.startswith("| hue_entropy ↑"))
    assert "**0.800 [0.700, 0.900], median 0.800**" in entropy and entropy.endswith("| — |")
    assert "0.000" not in entropy


def test_latex_escapes_names_and_keeps_columns():
    text = latex(main_table(SUMMARY, BEST), "")
    assert r"hue\_entropy" in text and "hue_entropy" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4 and all(row.count("&") == 4 for row in rows)
    assert r"\textbf{0.800} {\scriptsize [0.700, 0.900], median 0.800}" in text


@pytest.mark.parametrize("arms", [4, 12])
def test_latex_compiles_and_fits_the_line_with_many_arms_of_any_name(tmp_path, arms):
    many = {f'{i}%&#$~^\\\\{{}}<>_é≈|"[*': SUMMARY["dfd"] for i in range(arms)}
    check(
        "\\noindent\n" + latex(main_table({**SUMMARY, "[x]": SUMMARY["dfd"], **many}), ""), tmp_path
    )


def test_latex_shows_the_signs_it_escapes():
    assert escape_latex("a_b 5 % ↑") == r"a\_b 5 \% $\uparrow$"
    assert escape_latex("\\x{") == r"\textbackslash{}x\{"
    assert escape_latex("é — 日") == "e --- ?"
    assert latex(of_texts(["[a]"], [["*"]]), "").count("{}") == 2  # no option of the line before


def pooled(reference: str, **values: float) -> list[dict]:
    return [
        {"arm": method, "training_seed": 0, "reference": reference, "metric": metric,
         "value": value, "n": 96}
        for name, value in values.items()
        for method, _, metric in [name.partition("__")]
    ]  # fmt: skip


@pytest.mark.fault("A10", "A11")
def test_pooled_values_have_a_table_per_reference_none_bold_and_other_counts_named():
    rows = pooled(
        "real", dfd__effnet_lite2_frechet=2.0, dmd2__effnet_lite2_frechet=3.0,
        teacher__effnet_lite2_frechet=1.0, dfd__effnet_lite2_recall=0.4,
        dmd2__effnet_lite2_recall=0.6,
    ) + pooled("clips|x", dfd__effnet_lite2_recall=0.1)  # fmt: skip
    first, second = pooled_tables(pd.DataFrame(rows))
    assert first.title.startswith("Pooled over prompts, against clips|x; n: DFD 1 seed, 96 clips")
    assert second.head == ["metric", "teacher", "DMD2", "DFD"]
    assert second.rows == [
        [Cell("effnet_lite2_recall ↑"), MISSING, Cell("0.600"), Cell("0.400")],
        [Cell("effnet_lite2_frechet ↓"), Cell("1.000"), Cell("3.000"), Cell("2.000")],
    ]
    assert "| effnet_lite2_frechet ↓ | 1.000 | 3.000 | 2.000 |" in markdown(second)
    assert second.title.endswith(
        "against real clips; n: teacher 1 seed, 96 clips; DMD2 1 seed, 96 clips; "
        "DFD 1 seed, 96 clips."
    )
    rows[0]["n"] = 48  # DFD's; a Fréchet distance falls with the number of clips
    text = markdown(pooled_tables(pd.DataFrame(rows))[1])
    assert "| 1.000 (96 clips) | 3.000 (96 clips) | 2.000 (48 clips) |" in text


def test_a_bar_in_a_name_does_not_end_a_markdown_cell():
    assert markdown(main_table({"a|b": SUMMARY["dfd"]})).splitlines()[0] == r"| metric | a\|b |"


HOSTILE = "<img src=x>|*a*`b`\\\n[c](d)\u2028# e"


def test_no_name_is_markup_in_markdown_or_html_nor_ends_its_line():
    table = Table([HOSTILE], [[Cell(HOSTILE, HOSTILE, True)]])
    lines = markdown(table).splitlines()
    shown = r"&lt;img src=x&gt;\|\*a\*\`b\`\\ [c]\(d) # e"
    assert lines == [f"| {shown} |", "|---|", f"| **{shown} {shown}** |"]
    assert "<img" not in to_html(table) and '<td class="best">&lt;img' in to_html(table)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@a", "\t=1", "'=1", "'s", "plain", "-"])
def test_a_text_that_a_spreadsheet_would_run_is_text_and_comes_back(text):
    (_, (field,)) = csv.reader(io.StringIO(to_csv(["name"], [[text]])))
    assert field.startswith(("'", "plain")) and from_csv(field) == text


@pytest.mark.fault("E.markdown")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a\n| b |", r"a \| b \|"),
        ("![x](http://y)", r"![x]\(http\://y)"),
        ("[x]: http://y", r"[x]\: http\://y"),
        ("see www.evil.com", r"see www\.evil.com"),
        ("_x_ a_b __y__", r"\_x\_ a_b \_\_y\_\_"),
        ("~~x~~ $x$ **y**", r"\~\~x\~\~ \$x\$ \*\*y\*\*"),
        ("a\x1b[31mb\x00\u202e", r"a\\x1b[31mb\\x00\\u202e"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
    ],
)
def test_names_in_markdown_are_letters(text, shown):
    assert escape_markdown(text) == shown
    assert markdown(of_texts([text], [[text]])).count("\n") == 3
    lines = markdown_sections([Section(text, [Lines([text, f"# {text}", f"1. {text}"]), text])])
    assert "<img" not in lines and "](" not in lines and "\n# " not in lines
    assert r"- \# " in lines and r"- 1\. " in lines


@pytest.mark.fault("E.html")
def test_names_in_html_have_no_control_characters():
    text = to_html(of_texts(["a\x00\x1b<b>"], [["x\ny\u202e"]]))
    assert "<b>" not in text and text.isprintable() is False  # its own line ends only
    assert text.replace("\n", "").isprintable()


@pytest.mark.fault("E.csv")
@pytest.mark.parametrize("text", [" =1+1", "＝1", "\n=1", "-1+cmd|' /C calc'!A0"])
def test_formulas_behind_blanks_are_texts_too(text):
    (_, (field,)) = csv.reader(io.StringIO(to_csv(["name"], [[text]]), newline=""))
    assert field == f"'{text}" and from_csv(field) == text


@pytest.mark.fault("E.csv")
def test_no_text_in_csv_begins_a_row():
    rows = list(csv.reader(io.StringIO(to_csv(["name"], [["a\r=1"], ["b\n=1"]]), newline="")))
    assert rows == [["name"], [r"a\r=1"], ["b\n=1"]]


def test_numbers_in_csv_stay_numbers():
    assert to_csv(["x"], [[-0.5, "-0.128", None, 1e-9]]) == "x\n-0.5,-0.128,,1e-09\n"


def test_csv_has_full_precision_and_no_row_for_a_missing_value():
    exact = {"dfd": {"hue_entropy": at(1 / 3, low=math.nan, high=math.nan)}, "dmd2": {}}
    (row,) = csv.DictReader(io.StringIO(long_csv(exact)))
    assert float(row["mean"]) == 1 / 3 and row["arm"] == "dfd" and row["low"] == ""
    assert (row["seeds"], row["prompts"], row["clips"]) == ("3", "12", "576")


def test_a_cell_without_an_interval_has_the_mean_alone():
    assert cell(at(0.5, low=math.nan, high=math.nan)).plain == "0.500"
    assert cell(None).plain == "—"
    wide = at(43.21, low=40.0, high=45.99, median=42.0)
    assert cell(wide).plain == "43.2 [40.0, 46.0], median 42.0"
    assert number(-0.0314) == "-0.031" and number(-0.0001) == "0.000"
    assert (signed(0.0314), signed(0.0001), signed(-0.2)) == ("+0.031", "0.000", "-0.200")


def test_the_first_row_has_the_n_of_each_arm_and_a_cell_of_fewer_its_own():
    fewer = at(0.5, seeds=0, clips=180)
    lost = at(0.5, seeds=2, prompts=9, clips=310)
    arms = {
        "teacher": {"hue_entropy": at(0.5, seeds=0, clips=192), "sprite_saturation": fewer},
        "dfd": {"hue_entropy": at(0.5), "sprite_saturation": lost},
    }
    lines = markdown(main_table(arms)).splitlines()
    assert lines[2] == "| n | 12 prompts, 192 clips | 3 seeds, 12 prompts, 576 clips |"
    assert "(" not in next(line for line in lines if "hue_entropy" in line)
    row = next(line for line in lines if "sprite_saturation" in line)
    assert "(180 clips) |" in row
    assert "(2 seeds, 9 prompts, 310 clips) |" in row


def test_pooled_rows_say_what_they_are_against():
    text = markdown(main_table({"dfd": {"effnet_lite2_recall": at(0.4)}}, against="teacher"))
    assert "| effnet_lite2_recall ↑ (against teacher) | 0.400 [" in text


def test_intervals_stay_within_what_a_metric_can_be():
    cut = within_range("saturation_share_09", at(0.02, low=-0.01, high=0.05))
    assert (cut.low, cut.high) == (0.0, 0.05)
    assert within_range("sprite_intact", at(0.98, high=1.02)).high == 1.0
    assert math.isnan(within_range("sprite_intact", at(0.98, low=math.nan)).low)


def delta(**fields) -> Delta:
    about = {"mean": 0.4, "low": 0.3, "high": 0.5, "median": 0.41, "seeds": 7, "prompts": 12,
             "clips_a": 1300, "clips_b": 1344, "by_seed": {s: 0.4 for s in range(7)},
             "primary": "diversity", "p": 0.001, "p_holm": 0.003, "p_sign": 0.0156,
             "gain_towards_reference": 0.4}  # fmt: skip
    return Delta("dfd", "dmd2", "hue_entropy", **about | fields)


def test_deltas_say_whether_the_interval_excludes_zero_and_what_came_closer():
    flat = delta(mean=0.002, low=-0.1, high=0.1, p=0.9, gain_towards_reference=None)
    text = markdown_sections(delta_sections([delta(), flat]))
    assert "### DFD − DMD2" in text
    assert (
        "| hue_entropy | diversity | +0.400 [+0.300, +0.500] | +0.410 | 0.0010 | 0.0030 | 0.0156 | "
        "excludes 0 | closer | 7 seeds, 12 prompts, 1300 / 1344 clips |" in text
    )
    assert "includes 0 | — |" in text
    row = deltas_json([delta(p_sign=math.nan)])["dfd - dmd2"]["hue_entropy"]
    assert row["p_sign"] is None and row["by_seed"]["6"] == 0.4 and row["primary"] == "diversity"


def verdict(**fields) -> list[str]:
    return delta_text(delta(**fields))[6:8]


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("seeds", "says"), [(0, "one seed"), (1, "one seed"), (2, "too few"), (3, "excludes 0")]
)
def test_few_training_seeds_are_not_said_to_exclude_zero(seeds, says):
    few = {"low": math.nan, "high": math.nan} if seeds < 3 else {}
    assert verdict(seeds=seeds, **few)[0] == says
    assert verdict(low=-0.3)[0] == "includes 0"


@pytest.mark.fault("A10")
@pytest.mark.parametrize("gain", [0.0004, -0.0004, 0.0, 4e-9])
def test_nothing_is_closer_by_what_rounds_to_zero(gain):
    assert verdict(gain_towards_reference=gain)[1] == "same"
    tiny = {"mean": 0.0004, "low": 0.0001, "high": 0.0007}
    assert verdict(**tiny, gain_towards_reference=0.0004) == ["same", "same"]
    assert verdict(gain_towards_reference=-0.0006)[1] == "farther"


@pytest.mark.fault("A11")
def test_values_over_other_numbers_of_clips_get_no_verdict():
    assert verdict(alike=False)[0] == "other numbers of clips"


def test_unpaired_differences_are_said_to_be_so():
    d = delta(low=math.nan, high=math.nan, paired=False)
    assert "### DFD − DMD2 (their prompts differ)" in markdown_sections(delta_sections([d]))
    assert deltas_json([d])["dfd - dmd2"]["hue_entropy"]["paired"] is False
    assert verdict(low=math.nan, high=math.nan, paired=False)[0] == "other prompts"


def test_arms_named_after_a_known_one_follow_it_and_numbers_go_by_size():
    arms = ["mine", "dfd_320", "dfd_5", "dmd2_gan", "dfd", "dmd2", "teacher_cfg3", "dmd2_control"]
    assert ordered(arms) == [
        "teacher_cfg3", "dmd2", "dmd2_gan", "dmd2_control", "dfd", "dfd_5", "dfd_320", "mine",
    ]  # fmt: skip
    assert label_of("dfd_320") == "DFD, 320" and label_of("dfdx_3") == "dfdx 3"
    assert label_of("dmd2_gan") == "DMD2, GAN" and label_of("x_gang") == "x gang"
    assert label_of("teacher_cfg3") == "teacher, CFG 3" and label_of("my_cfgs") == "my cfgs"
    assert label_of("real") == "real clips" and label_of("real_estate") == "real estate"


def test_arms_keep_their_order_and_colour_whatever_else_is_shown():
    assert ordered(["zeta", "dfd", "real", "alpha", "dmd2"]) == [
        "real", "dmd2", "dfd", "alpha", "zeta",
    ]  # fmt: skip
    assert looks(["dfd", "x_y"])["dfd"] == looks(["real", "dfd"])["dfd"] == KNOWN["dfd"]
    many = looks([f"arm{i}" for i in range(9)] + list(KNOWN))
    assert len({(look.colour, look.marker) for look in many.values()}) >= 12
    assert many["arm3"].label == "arm3" and looks(["x_y"])["x_y"].label == "x y"


@pytest.mark.parametrize("arm", KNOWN)
def test_known_and_spare_colours_look_different(arm):
    """By CIE76 20 apart, where 2.3 is just noticeable; known ones of one study are few."""

    def lab(colour):
        rgb = np.array([[to_rgb(colour)]], np.float32)
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, 0]

    spare = [look.colour for name, look in looks([*"abcdef", arm]).items() if name != arm]
    for one, two in combinations([KNOWN[arm].colour, *spare], 2):
        assert np.linalg.norm(lab(one) - lab(two)) > 20, (one, two)
