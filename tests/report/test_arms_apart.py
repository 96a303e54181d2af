"""Two recipes or two models never share a column, and a reference keeps its name."""

import json
import re
import shutil
from pathlib import Path

import pytest
from score_runs import add_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.recipe import load_recipe
from dfdbench.evaluate.store import Store
from dfdbench.report.collect import collect
from dfdbench.report.leaderboard.sources import measured_entries
from dfdbench.report.page import report
from dfdbench.report.sets import cells_of
from dfdbench.report.summary import pairs_of, recompute
from dfdbench.utils.run import Run


def trained(folder: Path, arm: str, seed: int, *changes: str, parent: Run | None = None) -> Run:
    """A scored run of the shipped recipe of `arm` with changes."""
    run = add_run(folder, arm, seed)
    recipe = load_recipe(f"toy/{arm}", [f"seed={seed}", *changes])
    known = {"id": f"{folder.name}-{recipe.digest()}", "recipe": recipe.as_dict()}
    before = (
        {"arm": "dmd2", "id": parent.info["id"], "path": f"../{parent.path.name}"}
        if parent
        else None
    )
    run.update(**known, parent=before, recipe_digest=recipe.digest())
    return run


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    ("arm", "changes", "name"),
    [
        ("dfd", ["dfd.w=0.5"], "dfd · w=0.5"),
        ("dfd", ["dfd.p=0.25", "dfd.w=0.5"], "dfd · p=0.25, w=0.5"),
        ("dmd2", ["student.input=backward_simulation"], "dmd2 · input=backward_simulation"),
        ("dmd2", ["optim.lr=1e-4", "arm=dmd2"], "dmd2 · lr=0.0001"),
        ("dmd2", ["gan.weight=0.03"], "dmd2 · weight=0.03"),
    ],
)
@pytest.mark.parametrize("first", ["a", "z"])
def test_two_recipes_under_one_name_are_two_arms(tmp_path, arm, changes, name, first):
    for seed in (0, 1):
        trained(tmp_path / f"m-{seed}", arm, seed)
        trained(tmp_path / f"{first}-{seed}", arm, seed, *changes)
    collected = collect([tmp_path])
    assert collected.arms == [arm, name]
    _, summary, deltas, _ = recompute(cells_of(collected), pairs_of(collected))
    for own, folder in ((arm, "m"), (collected.arms[1], first)):
        runs = collect([tmp_path / f"{folder}-{s}" for s in (0, 1)])
        (alone,) = recompute(cells_of(runs), []).summary.values()
        assert str(summary[own]) == str(alone)
    assert {(d.a, d.b) for d in deltas} == {(collected.arms[1], arm)}
    entries = [entry for entry, _ in measured_entries([tmp_path], "b")]
    assert [entry["method"] for entry in entries] == collected.arms


@pytest.mark.fault("A1")
def test_the_names_are_those_that_people_read(tmp_path):
    trained(tmp_path / "a", "dfd", 0)
    trained(tmp_path / "b", "dfd", 0, "dfd.w=0.5")
    page = report([tmp_path], tmp_path / "out").parent
    assert (page / "table.md").read_text().startswith("| metric | DFD | DFD · w=0.5 |")
    assert "### DFD · w=0.5 − DFD\n" in (page / "deltas.md").read_text()
    assert list(json.loads((page / "summary.json").read_text())) == ["dfd", "dfd · w=0.5"]
    assert "DFD · w=0.5" in (page / "figures/seed-grid.svg").read_text()


@pytest.mark.fault("A1")
def test_training_seeds_logs_and_checkpoints_make_no_arm(tmp_path):
    trained(tmp_path / "a", "dfd", 0)
    same = ("log.every=3", "checkpoint.keep=3", "teacher.guidance_passes=sequential")
    trained(tmp_path / "b", "dfd", 1, *same)
    assert collect([tmp_path]).arms == ["dfd"]


@pytest.mark.fault("A1")
def test_students_of_two_first_stages_are_two_arms(tmp_path):
    noised = trained(tmp_path / "p", "dmd2", 0)
    simulated = trained(tmp_path / "q", "dmd2", 0, "student.input=backward_simulation")
    trained(tmp_path / "x", "dfd", 0, parent=noised)
    trained(tmp_path / "y", "dfd", 0, parent=simulated)
    name = "dfd · first stage input=backward_simulation"
    assert collect([tmp_path]).arms == ["dmd2", "dmd2 · input=backward_simulation", "dfd", name]
    assert name in collect([tmp_path / "x", tmp_path / "y"]).arms  # read where they say it lies


@pytest.mark.fault("A1")
def test_an_entry_is_not_replaced_by_another_recipe(tmp_path):
    trained(tmp_path / "a", "dfd", 0)
    trained(tmp_path / "b", "dfd", 0, "dfd.w=0.5")
    add = ["leaderboard", "add", "--board", "b", "--folder", str(tmp_path / "boards")]
    assert CliRunner().invoke(app, [*add, str(tmp_path / "a")]).exit_code == 0
    done = CliRunner().invoke(app, [*add, str(tmp_path / "b")])
    assert done.exit_code == 2 and "another recipe; choose another --name" in done.stderr
    assert CliRunner().invoke(app, [*add, str(tmp_path / "a")]).exit_code == 0


def plain(folder: Path, seed: int | None, run: Path, method: str = "dfd") -> Path:
    """A store without a run."""
    add_run(run, "dfd", seed)
    folder.mkdir(parents=True)
    shutil.copyfile(run / "scores.sqlite", folder / "scores.sqlite")
    return folder / "scores.sqlite"


@pytest.mark.fault("A12")
def test_two_models_of_one_method_name_are_two_columns(tmp_path):
    stores = [plain(tmp_path / name, i, tmp_path / "runs" / name) for i, name in enumerate("xy")]
    assert collect(stores).arms == ["dfd · x", "dfd · y"]
    same = Path(shutil.copytree(tmp_path / "x", tmp_path / "again")) / "scores.sqlite"
    both = collect([stores[0], same])  # the very clips, twice: they count once
    assert both.arms == ["dfd"] and len(both.values) == len(collect([same]).values)
    assert len(collect([stores[0], stores[0]]).values) == len(collect([same]).values)


@pytest.mark.fault("A12")
def test_a_training_seed_trained_twice_is_two_columns(tmp_path):
    add_run(tmp_path / "a", "dfd", 0)
    add_run(tmp_path / "b", "dfd", 1)
    Run.open(tmp_path / "b").update(training_seed=0)
    assert collect([tmp_path]).arms == ["dfd · a", "dfd · b"]


@pytest.mark.fault("A12")
def test_clips_that_are_gone_do_not_count(tmp_path):
    add_run(tmp_path / "dfd", "dfd", 0)
    whole = collect([tmp_path])
    clips = sorted((tmp_path / "dfd/videos/toy-t2v/ball-desert").iterdir())
    for clip in clips[:3]:
        clip.unlink()
    left = collect([tmp_path])
    assert len(left.clips) == len(whole.clips) - 3
    values = left.values[left.values["prompt_id"] == "ball-desert"]
    assert set(values["level"]) == {"video"} and set(values["seed"]) == {4, 5, 6, 7, 8}
    assert (
        "3 scored clips are gone and do not count (videos/toy-t2v/ball-desert/1.mp4"
        in left.skipped[0]
    )
    done = CliRunner().invoke(app, ["leaderboard", "add", str(tmp_path / "dfd"), "--board", "b",
                                    "--folder", str(tmp_path / "boards")])  # fmt: skip
    assert done.exit_code == 2 and "are gone" in done.stderr


@pytest.mark.fault("A12")
def test_a_store_carried_off_without_its_clips_is_whole(tmp_path):
    add_run(tmp_path / "dfd", "dfd", 0)
    whole = collect([tmp_path])
    shutil.rmtree(tmp_path / "dfd/videos")
    assert collect([tmp_path]).values.equals(whole.values)


@pytest.mark.fault("A2")
def test_what_eval_names_as_reference_keeps_its_name_everywhere(tmp_path):
    for arm in ("dmd2", "dfd", "teacher"):
        add_run(tmp_path / arm, arm, 0 if arm != "teacher" else None)
    with Store(tmp_path / "teacher/scores.sqlite") as store:
        store.set_meta({"reference toy-t2v": "teacher"})
    page = report([tmp_path], tmp_path / "out").parent
    texts = {p.name: p.read_text() for p in page.iterdir() if p.is_file()}
    assert "| metric | teacher (reference) | DMD2 | DFD |" in texts["table.md"]
    assert re.search(r'<th scope="row">.*?teacher \(reference\)</th>', texts["index.html"])
    assert "teacher" in json.loads(texts["summary.json"])
    assert not any("real clips'" not in t and "real clips |" in t for t in texts.values())
    assert "the dashed line is the mean of teacher (reference)" in texts["report.md"]
    assert "teacher (reference)" in (page / "figures/seed-grid.svg").read_text()
    entries = {e["method"]: e for e, _ in measured_entries([tmp_path], "b")}
    assert entries["teacher"]["name"] == "teacher" and entries["teacher"]["reference"] is True
    assert "reference" not in entries["dfd"]
    boards = tmp_path / "boards"
    for words in (["add", str(tmp_path), "--board", "b"], ["render"], ["verify"]):
        done = CliRunner().invoke(app, ["leaderboard", *words, "--folder", str(boards)])
        assert done.exit_code == 0, done.output
    assert "| metric | teacher (reference) | DMD2 | DFD |" in (boards / "README.md").read_text()
