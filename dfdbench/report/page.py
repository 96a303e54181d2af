"""`dfdbench report`: from runs, stores and manifests to one folder that a person reads.

Writes index.html (self-contained), report.md, table.{md,csv,tex}, summary.json, deltas.{json,md},
runs.json (the run.json of every run: recipe, hashes, versions), provenance.json (decoder, weights
and versions behind the scores), pooled.json (values against a reference) and figures/*.{png,svg};
for a suite of VBench also vbench.{json,tex}, with `--paper` also paper_table.{md,csv,tex}. Used by
cli.py, study.py; gathers with collect.py, computes with summary.py, draws with tables.py,
vbench.py, paper.py and figures.py.
"""

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from dfdbench import __version__
from dfdbench.report import curves, figures, html, paper, tables, vbench
from dfdbench.report.arms import looks, ordered
from dfdbench.report.collect import NO_TRAINING_SEED, Collected, collect
from dfdbench.report.summary import Delta, Summary, compare, deltas_json, summarise, summary_json
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.progress import track

NOTE = (
    "Mean and 95 % interval from a bootstrap over prompts and training seeds; the best student is "
    "bold. ↑ higher is better, ↓ lower is better, ≈ nearest to the real clips (to the teacher "
    "where there are none) is best."
)


class Picture(NamedTuple):
    """A figure that was drawn: file name without suffix, caption."""

    name: str
    caption: str


def draw(collected: Collected, summary: Summary, folder: Path, prompt: str | None) -> list[Picture]:
    """Draw every figure whose data are there into `folder`; returns those, in reading order."""
    runs = collected.runs
    plans: tuple[tuple[str, str, Callable[[], Figure | None]], ...] = (
        (
            "seed-grid",
            "The same prompt and seeds in every arm.",
            lambda: figures.seed_grid(collected, prompt),
        ),
        (
            "diversity-saturation",
            "Diversity against saturation, 95 % intervals.",
            lambda: figures.diversity_against_saturation(summary),
        ),
        (
            "saturation-histograms",
            "Saturation of videos and of their pixels; the dashed line is the mean of real clips.",
            lambda: figures.saturation_histograms(collected),
        ),
        (
            "training-curves",
            "Training: a line a run, smoothed over 5 % of its updates.",
            lambda: curves.training_curves(runs),
        ),
        (
            "discrepancy",
            "Discrepancies against the noise level t, mean over an arm's runs.",
            lambda: curves.discrepancy_against_t(runs),
        ),
    )
    drawn = []
    for name, caption, plan in track(plans, "drawing figures"):
        figure = plan()
        if figure is not None:
            figures.save(figure, folder, name)
            drawn.append(Picture(name, caption))
    return drawn


def run_rows(collected: Collected) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of runs: where the numbers come from."""
    head = ["arm", "run", "training seed", "student updates", "wall time", "model"]
    rows = []
    order = ordered(run.arm for run in collected.runs)
    for run in sorted(collected.runs, key=lambda r: (order.index(r.arm), r.training_seed)):
        seconds, updates = run.info.get("wall_seconds"), run.info.get("student_updates")
        rows.append(
            [
                looks([run.arm])[run.arm].label,
                run.path.name,
                "—" if run.training_seed == NO_TRAINING_SEED else str(run.training_seed),
                "—" if not updates else str(updates),
                "—" if not seconds else f"{seconds / 60:.1f} min",
                str(run.info.get("model", "—")),
            ]
        )
    return head, rows


def introduction(collected: Collected) -> str:
    """One line: suite, number of arms, prompts and videos."""
    videos = collected.values[collected.values["level"] == "video"]
    count = len(videos.drop_duplicates(["arm", "training_seed", "prompt_id", "seed"]))
    prompts = collected.values["prompt_id"].nunique()
    return (
        f"Suite {collected.suite}: {len(collected.arms)} arms, {prompts} prompts, "
        f"{count} videos. dfdbench {__version__}."
    )


def markdown_page(
    collected: Collected,
    summary: Summary,
    deltas: Sequence[Delta],
    pictures: Sequence[Picture],
    section: vbench.Section | None = None,
) -> str:
    """report.md; its pictures are links into figures/."""
    parts = [f"# dfdbench report\n\n{introduction(collected)}\n", f"## Scores\n\n{NOTE}\n"]
    parts.append(tables.markdown(summary))
    if section:
        parts.append(f"## VBench\n\n{vbench.heading(section)} {vbench.NOTE}\n")
        parts.append(tables.marked_table(*vbench.table(section)))
    parts += [f"![{p.caption}](figures/{p.name}.png)\n\n{p.caption}\n" for p in pictures]
    if deltas:
        parts.append("## Differences\n\n" + tables.delta_markdown(deltas))
    if len(collected.pooled):
        parts.append("## Against the reference\n\n" + tables.pooled_markdown(collected.pooled))
    if collected.runs:
        parts.append("## Runs\n\n" + tables.markdown_table(*run_rows(collected)))
    if collected.skipped:
        parts.append("## Left out\n\n" + "".join(f"- {line}\n" for line in collected.skipped))
    return "\n".join(parts)


def _unmarked(rows: Sequence[Sequence[str]]) -> list[list[tuple[str, bool]]]:
    return [[(text, False) for text in row] for row in rows]


def html_page(
    collected: Collected,
    summary: Summary,
    deltas: Sequence[Delta],
    pictures: Sequence[Picture],
    folder: Path,
    section: vbench.Section | None = None,
) -> str:
    """index.html with the PNGs of `folder` inside it; every text from outside is escaped."""
    labels = looks(summary)
    head = ["metric", *(labels[arm].label for arm in summary)]
    rows = [
        [(f"{metric} {tables.arrow(metric)}", False), *row]
        for metric, row in tables.table_rows(summary)
    ]
    parts = [
        "<h1>dfdbench report</h1>",
        f'<p class="note">{escape(introduction(collected))}</p>',
        f'<h2>Scores</h2><p class="note">{escape(NOTE)}</p>',
        html.table(head, rows),
    ]
    if section:
        note = escape(f"{vbench.heading(section)} {vbench.NOTE}")
        parts.append(f'<h2>VBench</h2><p class="note">{note}</p>')
        parts.append(html.table(*vbench.table(section)))
    parts.append("<h2>Pictures</h2>" if pictures else "")
    for picture in pictures:
        data = base64.b64encode((folder / f"{picture.name}.png").read_bytes()).decode()
        caption = escape(picture.caption)
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if deltas:
        parts.append(f'<h2>Differences</h2><p class="note">{escape(tables.DELTA_NOTE)}</p>')
    for title, group in tables.delta_groups(deltas):
        body = [[delta.metric, *tables.delta_text(delta)] for delta in group]
        parts.append(f"<h3>{escape(title)}</h3>" + html.table(tables.DELTA_HEAD, _unmarked(body)))
    if len(collected.pooled):
        parts.append("<h2>Against the reference</h2>")
    for table in tables.pooled_rows(collected.pooled):
        parts.append(f'<p class="note">{escape(table.caption)}</p>')
        parts.append(html.table(table.head, table.rows))
    if collected.runs:
        head, body = run_rows(collected)
        parts.append("<h2>Runs</h2>" + html.table(head, _unmarked(body)))
    if collected.skipped:
        lines = "".join(f"<li>{escape(line)}</li>" for line in collected.skipped)
        parts.append(f"<h2>Left out</h2><ul>{lines}</ul>")
    return html.document("dfdbench report", parts)


def report(
    sources: Sequence[Path],
    out: Path,
    suite: str | None = None,
    prompt: str | None = None,
    against: Sequence[tuple[str, str]] = (),
    paper_setting: str | None = None,
) -> Path:
    """Write the whole report of `sources` into the folder `out`; returns its index.html.

    Args:
        sources: run folders, folders of runs, or score stores.
        suite: needed when the sources hold scores of several suites.
        prompt: prompt id of the seed grid; the first one if None.
        against: pairs of arms to compare beside the usual ones, first minus second.
        paper_setting: a table of the paper to put the measured values beside, such as t2v_wan;
            or "all", for every table that has a method among the sources.

    Raises:
        UserError: a source without scores, an unknown suite, prompt, arm or setting.
    """
    collected = collect(sources, suite)
    summary = summarise(collected)
    scores = vbench.scores_of(collected.vbench, collected.chosen)
    section = vbench.section(collected, scores)
    frames = (
        f" (conditions {section.suite.conditions})" if section and section.suite.conditions else ""
    )
    beside = paper.paper_tables(summary, paper_setting, collected.suite + frames, scores)
    deltas = compare(collected, summary, against)
    out = Path(out)
    pictures = draw(collected, summary, out / "figures", prompt)
    write_json(out / "summary.json", summary_json(collected, summary))
    write_json(out / "deltas.json", deltas_json(deltas))
    write_json(out / "runs.json", {run.path.name: run.info for run in collected.runs})
    write_json(out / "provenance.json", collected.provenance)
    write_json(out / "pooled.json", collected.pooled.to_dict("records"))
    write_text(out / "deltas.md", tables.delta_markdown(deltas))
    write_text(out / "table.md", tables.markdown(summary))
    write_text(out / "table.tex", tables.latex(summary))
    write_text(out / "table.csv", tables.long_csv(summary))
    shown = (collected, summary, deltas, pictures)
    write_text(out / "report.md", markdown_page(*shown, section))
    write_text(out / "index.html", html_page(*shown, out / "figures", section))
    if section:
        write_json(out / "vbench.json", vbench.as_json(section))
        write_text(out / "vbench.tex", vbench.latex(section))
    if beside:
        write_text(out / "paper_table.md", "\n".join(map(paper.markdown, beside)))
        write_text(out / "paper_table.tex", "\n".join(map(paper.latex, beside)))
        write_text(out / "paper_table.csv", paper.long_csv(beside))
    return out / "index.html"
