"""From scored runs to what a pull request needs: entries, evidence, recipes, some clips, pages.

Used by cli/leaderboard.py for `leaderboard submit`, which is `add` with what others need to check
and to see the entry, then `render` and `verify`.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.report.collect import find_sources
from dfdbench.report.leaderboard import entries, sources
from dfdbench.report.leaderboard.beside import SUFFIX, clips_folder, digests, recipe_file
from dfdbench.report.leaderboard.render import render
from dfdbench.report.leaderboard.verify import verify
from dfdbench.report.web.previews import UNREADABLE, preview
from dfdbench.utils.files import atomic_path, write_json
from dfdbench.utils.run import Run

SEEDS = 2  # clips of a prompt that are taken along


class Submission(NamedTuple):
    """What was written, what was left out and why, and what is wrong."""

    files: list[Path]
    notes: list[str]
    faults: list[str]


def submit(
    paths: Sequence[Path],
    board: str,
    folder: Path,
    name: str | None = None,
    arms: Sequence[str] = (),
    suite: str | None = None,
    prompts: int = 0,
) -> Submission:
    """Write the entries of the arms in `paths`, what lies beside them, and the pages.

    Args:
        prompts: of so many prompts, the first by name, two clips of the first run go along.

    Raises:
        UserError: as `measured_entries` and `write_entry`.
    """
    entries.check_board(board)
    made = sources.measured_entries(paths, board, name, arms, suite)
    runs = [Run.open(path) for source in paths for path in find_sources(Path(source))
            if path.is_dir() and (path / "run.json").is_file()]  # fmt: skip
    files, notes = list[Path](), list[str]()
    with entries.writing(folder):
        for entry, evidence in made:
            files += [entries.write_entry(folder, entry, evidence)]
            files += [folder / entry["evidence"]["file"]]
            files += _recipe(folder, entry, runs, notes)
            files += _clips(folder, entry, runs, prompts, notes)
    files += render(folder)
    return Submission(files, notes, verify(folder).faults)


def _recipe(
    folder: Path, entry: dict[str, Any], runs: Sequence[Run], notes: list[str]
) -> list[Path]:
    """The recipe of the entry's first run that has one; an older file of the entry goes."""
    path = folder / recipe_file(entry["board"], entry["id"])
    path.unlink(missing_ok=True)
    facts = [run for run in entry["provenance"]["runs"] if run.get("recipe_digest")]
    if not facts:
        return []
    own = [run for run in runs if run.info.get("id") == facts[0].get("id")]
    recipe = next((run.info.get("recipe") for run in own), None)
    if not recipe or facts[0]["recipe_digest"] not in digests(recipe):
        notes.append(f"{entry['id']}: without its recipe, which is not that of its digest")
        return []
    for fault in entries.text_faults(recipe):
        notes.append(f"{entry['id']}: without its recipe: {fault}")
        return []
    write_json(path, recipe)
    return [path]


def _clips(
    folder: Path, entry: dict[str, Any], runs: Sequence[Run], prompts: int, notes: list[str]
) -> list[Path]:
    """Clips of the run of the lowest training seed; those of an older entry of the id go."""
    target = folder / clips_folder(entry["board"], entry["id"])
    shutil.rmtree(target, ignore_errors=True)
    if not prompts:
        return []
    ids = {run.get("id") for run in entry["provenance"]["runs"]} - {None}
    own = [run for run in runs if run.info.get("id") in ids or run.arm == entry["method"]]
    own.sort(key=lambda run: run.training_seed or 0)
    found: dict[str, list[Path]] = {}
    if own:
        for path in sorted((own[0].videos / entry["suite"]["name"]).glob(f"*/*{SUFFIX}")):
            found.setdefault(path.parent.name, []).append(path)
    written = list[Path]()
    for prompt in sorted(found)[:prompts]:
        for clip in sorted(found[prompt], key=lambda p: (len(p.stem), p.stem))[:SEEDS]:
            try:
                small = preview(clip)
            except UNREADABLE as error:
                notes.append(f"{entry['id']}: without clip {prompt}/{clip.name}: {error}")
                continue
            with atomic_path(target / prompt / clip.name) as temporary:
                shutil.copyfile(small, temporary)
            written.append(target / prompt / clip.name)
    if not written:
        notes.append(f"{entry['id']}: no clips; they are taken from run folders")
    return written


def next_steps(board: str, folder: Path) -> str:
    """What to do with a submission that has no fault."""
    from_root = shlex.quote(str(folder))
    return "\n".join(
        [
            "next: look at the board, then open a pull request:",
            f"  dfdbench leaderboard render --site site --folder {from_root}",
            f"  git switch -c entry-{board} && git add {from_root}",
            f"  git commit -m 'Leaderboard {board}: new entry' && git push",
            "CI runs `dfdbench leaderboard verify`, which proves every number from the evidence.",
        ]
    )
