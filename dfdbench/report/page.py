"""`dfdbench report`: from runs, stores and manifests to one folder that a person reads.

Writes index.html (by web/; most of its clips lie in clips/) and report.md; cells.csv, from which
alone every number of table.{md,csv,tex}, summary.json and deltas.{json,md} follows; runs.json (the
run.json of every run: recipe, hashes, versions, and mean discrepancies of its log), provenance.json
(decoder, weights and versions behind the scores), pooled.json (values against a reference) and
figures/*.{png,svg}; for a suite of VBench also vbench.{json,tex}, with `--paper` also
paper_table.{md,csv,tex}. Used by cli; gathers with collect.py, computes with sets.py and
summary.py, draws with tables.py, vbench.py, paper.py and figures.py, writes with sections.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Plot

from dfdbench import __version__
from dfdbench.report import curves, figures, lengths, over_time, paper, tables, vbench
from dfdbench.report.absent import absent_lines
from dfdbench.report.arms import looks, ordered
from dfdbench.report.best import best_in
from dfdbench.report.cells import cells_csv
from dfdbench.report.collect import Collected, RunRecord, collect
from dfdbench.report.sections import (
    Figure,
    Lines,
    Page,
    Section,
    markdown_page,
    markdown_sections,
)
from dfdbench.report.sets import cells_of, pooled_reference
from dfdbench.report.statistics import NO_TRAINING_SEED, POOLED
from dfdbench.report.summary import (
    Delta,
    Summary,
    deltas_json,
    pairs_of,
    recompute,
    summary_json,
    training_cost,
)
from dfdbench.report.web.render import Made, web_page
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.progress import track
from dfdbench.utils.table import Table, latex, markdown, of_texts

NOTE = (
    "Mean, 95 % t interval and median over training seeds of the mean over prompts, from three "
    "training seeds on; prompts are fixed. n: training seeds, prompts and clips of an arm; a cell "
    "of fewer says its own, as metrics of whole clips do. Students are compared on the prompts "
    "that all of them have. A student is bold where the paired 95 % interval of its lead on the "
    "next best excludes 0. Where some runs collapse, intervals of few seeds cover too little: see "
    "median and single seeds. ↑ higher is better, ↓ lower is better, ≈ nearest to the reference "
    "(the real clips; the teacher where there are none) is best."
)


def draw(collected: Collected, summary: Summary, out: Path, prompt: str | None) -> list[Figure]:
    """Draw every figure whose data are there into `out`/figures; returns those, in order.

    A figure's caption says only what is in it.
    """
    runs, references = collected.runs, collected.references
    plans: tuple[tuple[str, Callable[[], Plot | None]], ...] = (
        ("seed-grid", lambda: figures.seed_grid(collected, prompt)),
        ("training-seeds", lambda: figures.over_training_seeds(summary, references)),
        (
            "diversity-saturation",
            lambda: figures.diversity_against_saturation(summary, references),
        ),
        ("updates", lambda: lengths.against_updates(summary, runs, references)),
        ("saturation-histograms", lambda: figures.saturation_histograms(collected, summary)),
        ("over-time", lambda: over_time.curves_over_time(collected)),
        ("frames-over-time", lambda: over_time.frames_over_time(collected, prompt)),
        ("training-curves", lambda: curves.training_curves(runs)),
        ("discrepancy", lambda: curves.discrepancy_against_t(runs)),
    )
    drawn = []
    for name, plan in track(plans, "drawing figures"):
        plot = plan()
        if plot is not None:
            figures.save(plot, out / "figures", name)
            link = f"figures/{name}.png"
            drawn.append(Figure(out / link, link, str(plot.get_label())))
    return drawn


def run_table(collected: Collected) -> Table:
    """The runs, where the numbers come from."""
    head = ["arm", "run", "training seed", "student updates", "wall time", "model"]
    rows = []
    order = ordered(run.arm for run in collected.runs)
    labels = looks(order, collected.references)
    for run in sorted(collected.runs, key=lambda r: (order.index(r.arm), r.training_seed)):
        seconds, updates = run.info.get("wall_seconds"), run.info.get("student_updates")
        rows.append(
            [
                labels[run.arm].label,
                run.path.name,
                "—" if run.training_seed == NO_TRAINING_SEED else str(run.training_seed),
                "—" if not updates else str(updates),
                "—" if not seconds else f"{seconds / 60:.1f} min",
                str(run.info.get("model", "—")),
            ]
        )
    return of_texts(head, rows)


def _info(run: RunRecord) -> dict[str, Any]:
    """run.json and, of its training log, what a later report needs."""
    logged = curves.discrepancies(run)
    return run.info | ({"discrepancies": logged} if logged else {})


def introduction(collected: Collected) -> str:
    """One line: suite, number of arms, prompts and videos; and which reports it takes up."""
    videos = collected.values[collected.values["level"] == "video"]
    count = len(videos.drop_duplicates(["arm", "training_seed", "prompt_id", "seed"]))
    cells = [collected.values["prompt_id"], *(e.cells["prompt"] for e in collected.earlier)]
    prompts = len(set(pd.concat(cells)) - {POOLED})
    line = (
        f"Suite {collected.suite}: {len(collected.arms)} arms, {prompts} prompts, "
        f"{count} videos. dfdbench {__version__}."
    )
    if collected.earlier:
        names = ", ".join(earlier.path.name for earlier in collected.earlier)
        line += f" Beside the videos, the cells of earlier reports: {names}."
    return line


def page_of(
    collected: Collected,
    main: Table,
    deltas: Sequence[Delta],
    drawn: Sequence[Figure],
    of_vbench: vbench.Results | None = None,
) -> Page:
    """The sections of a report that have something to show."""
    sections = [Section("Scores", [NOTE, main])]
    if absent := absent_lines(collected):
        sections.append(Section("Not there", [Lines(absent)], 3))
    if of_vbench:
        note = f"{vbench.heading(of_vbench)} {vbench.NOTE}"
        sections.append(Section("VBench", [note, vbench.table(of_vbench)]))
    if drawn:
        sections.append(Section("Pictures", drawn))
    if deltas:
        sections.append(Section("Differences", [tables.DELTA_NOTE]))
        sections += tables.delta_sections(deltas, collected.references)
    pooled = [
        block
        for t in tables.pooled_tables(_other_pooled(collected), collected.references)
        for block in (t.title, t)
    ]
    if pooled:
        sections.append(Section("Against the reference", pooled))
    if collected.runs:
        sections.append(Section("Runs", [run_table(collected)]))
    if collected.skipped:
        sections.append(Section("Left out", [Lines(collected.skipped)]))
    return Page("dfdbench report", [introduction(collected)], sections)


def _options(
    suite: str | None,
    prompt: str | None,
    against: Sequence[tuple[str, str]],
    paper_setting: str | None,
) -> list[str]:
    """The options of a call as a command line has them."""
    named = (("--suite", suite), ("--prompt", prompt), ("--paper", paper_setting))
    given = [part for option, value in named if value for part in (option, value)]
    return [*given, *(part for pair in against for part in ("--against", ":".join(pair)))]


def _other_pooled(collected: Collected) -> pd.DataFrame:
    """Pooled values against other references than that of the main table."""
    main = pooled_reference(collected.pooled)
    return collected.pooled[collected.pooled["reference"] != main]


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
        sources: run folders, folders of runs, score stores, or folders of earlier reports, whose
            cells count beside the others'.
        suite: needed when the sources hold scores of several suites.
        prompt: prompt id of the seed grid; the first one if None.
        against: pairs of arms to compare beside the usual ones, first minus second.
        paper_setting: a table of the paper to put the measured values beside, such as t2v_wan;
            or "all", for every table that has a method among the sources.

    Raises:
        UserError: a source without scores, an unknown suite, prompt, arm or setting.
    """
    collected = collect(sources, suite)
    references, cells = collected.references, cells_of(collected)
    rows, summary, deltas, lacking = recompute(cells, pairs_of(collected, against), references)
    collected.skipped += lacking
    best = best_in(rows, references)
    scores = vbench.scores_of(collected.vbench, collected.chosen)
    of_vbench = vbench.results_of(collected, scores, rows)
    conditions = of_vbench.suite.conditions if of_vbench else ""
    named = f"{collected.suite} (conditions {conditions})" if conditions else collected.suite
    beside = paper.paper_tables(summary, paper_setting, named, scores)
    out = Path(out)
    drawn = draw(collected, summary, out, prompt)
    write_text(out / "cells.csv", cells_csv(cells))
    write_json(out / "summary.json", summary_json(summary, training_cost(collected)))
    write_json(out / "deltas.json", deltas_json(deltas))
    write_json(out / "runs.json", {run.path.name: _info(run) for run in collected.runs})
    write_json(out / "provenance.json", collected.provenance)
    write_json(out / "pooled.json", collected.pooled.to_dict("records"))
    table = tables.main_table(summary, best, references, pooled_reference(collected.pooled))
    write_text(out / "table.md", markdown(table))
    titled = table._replace(head=["Metric", *table.head[1:]])
    write_text(
        out / "table.tex", latex(titled, "mean, 95 % interval, median; best student in bold")
    )
    write_text(out / "table.csv", tables.long_csv(summary, best))
    comparisons = markdown_sections(tables.delta_sections(deltas, references))
    write_text(out / "deltas.md", f"{tables.DELTA_NOTE}\n\n{comparisons}")
    page = page_of(collected, table, deltas, drawn, of_vbench)
    write_text(out / "report.md", markdown_page(page))
    pairs = [(d.a, d.b) for d in deltas]
    given = _options(suite, prompt, against, paper_setting)
    made = Made(
        collected, summary, cells, deltas, best, list(dict.fromkeys(pairs)), drawn, sources, prompt,
        given,
    )  # fmt: skip
    write_text(out / "index.html", web_page(page, made, out))
    if of_vbench:
        write_json(out / "vbench.json", vbench.as_json(of_vbench))
        write_text(out / "vbench.tex", vbench.latex(of_vbench))
    if beside:
        write_text(out / "paper_table.md", "\n".join(map(paper.markdown, beside)))
        write_text(out / "paper_table.tex", "\n".join(map(paper.latex, beside)))
        write_text(out / "paper_table.csv", paper.long_csv(beside))
    return out / "index.html"
