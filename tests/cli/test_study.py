"""Studies: from a file of arms to a report, side by side, resumable."""

import json
import os
import time
from dataclasses import replace

import pytest
import torch

from dfdbench.cli import study as study_module
from dfdbench.cli.jobs import Job, places, run_job, side_by_side
from dfdbench.cli.study import Arm, Study, jobs_of, load_study, run_study, shipped_studies
from dfdbench.distill.recipe import load_recipe, shipped_recipes
from dfdbench.utils.errors import UserError

TINY = (
    "data.count=4", "optim.batch=2", "student.steps=2", "log.every=1", "log.probe_every=1",
    "log.decode_every=2", "schedule.student_updates=1",
)  # fmt: skip
ARMS = (
    Arm("dmd2", "toy/dmd2", None, ("schedule.student_updates=2",)),
    Arm("dmd2_control", "toy/dmd2_control", "dmd2"),
    Arm("dfd", "toy/dfd", "dmd2"),
    Arm("dp_dmd", "toy/dp_dmd", None, ("dp_dmd.grid_steps=4", "dp_dmd.anchor_step=1")),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))


def test_the_whole_chain_leaves_a_report_and_a_second_call_redoes_nothing_else(
    tmp_path, tiny_checkpoint, monkeypatch
):
    study = Study("tiny", ARMS, TINY, seeds=1)
    page = run_study(study, tmp_path / "q", (0,), str(tiny_checkpoint), processes=1)
    assert page == tmp_path / "q" / "report" / "index.html" and page.is_file()
    summary = json.loads((page.parent / "summary.json").read_text())
    assert list(summary) == ["real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"]
    assert all("saturation_mean" in metrics for metrics in summary.values())
    assert summary["dfd"]["student_updates"] == 1
    assert summary["dfd"]["student_updates_total"] == 3
    deltas = json.loads((page.parent / "deltas.json").read_text())
    assert "dfd - dmd2_control" in deltas and "dmd2 - teacher" in deltas
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert {"seed-grid", "training-curves", "discrepancy"} <= figures

    runs = tmp_path / "q" / "runs"
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*.mp4")}
    before |= {p: p.stat().st_mtime_ns for p in runs.rglob("*.safetensors")}
    assert len([p for p in before if p.suffix == ".mp4"]) == 6 * 16
    monkeypatch.setattr(
        "dfdbench.report.page.report", lambda sources, out, against: out / "index.html"
    )
    run_study(study, tmp_path / "q", (0,), str(tiny_checkpoint), processes=1)
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_two_processes_train_the_students_that_one_does(tmp_path, tiny_checkpoint):
    study = Study("tiny", ARMS[:3], TINY, seeds=1)
    for processes in (1, 2):
        run_study(study, tmp_path / str(processes), (0, 1), str(tiny_checkpoint), processes)
    for arm in ("dmd2", "dmd2_control", "dfd"):
        for seed in (0, 1):
            hashes = {
                json.loads((tmp_path / p / "runs" / f"{arm}-seed{seed}" / "run.json").read_text())[
                    "student_sha256"
                ]
                for p in "12"
            }
            assert len(hashes) == 1


def test_processes_go_round_the_gpus():
    assert places(4, ["0", "1"]) == ["0", "1", "0", "1"]
    assert places(2, ["GPU-a", "GPU-b", "GPU-c"]) == ["GPU-a", "GPU-b"]
    assert places(3, []) == []


def which_gpu(job):
    """In a process of a study, which sees one GPU only: what it sees, in place of a run."""
    job.path.mkdir(parents=True)
    (job.path / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    while len(list(job.path.parent.glob("*/gpu"))) < 2:  # until the other process has its own
        time.sleep(0.05)
    return 0.0


@pytest.mark.parametrize(("gpus", "seen"), [(["4", "7", "9"], {"4", "7"}), (["4"], {"4"})])
def test_each_process_of_a_study_sees_its_own_gpu_alone(tmp_path, monkeypatch, gpus, seen):
    monkeypatch.setattr("dfdbench.cli.jobs._run_in_worker", which_gpu)
    jobs = [Job(f"{i}", tmp_path / f"{i}", "m", range(1, 2), 1, "s") for i in range(4)]
    assert side_by_side(jobs, 2, gpus) == {}
    found = [(tmp_path / f"{i}" / "gpu").read_text() for i in range(4)]
    assert set(found) == seen


@pytest.mark.parametrize(
    ("gpus", "asked", "processes", "threads"),
    [(0, None, 2, 1), (3, None, 3, 1), (1, None, 1, 2), (2, 4, 4, 1)],
)
def test_a_study_runs_one_process_a_gpu_unless_told(
    tmp_path, monkeypatch, gpus, asked, processes, threads
):
    ran = {}

    def aside(jobs, processes, gpus):
        ran.update(processes=processes, gpus=gpus, threads=jobs[0].threads)
        return {}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(study_module, "_prepare", lambda *_: None)
    monkeypatch.setattr(study_module, "_compare_with_teacher", lambda *_: None, raising=False)
    monkeypatch.setattr("dfdbench.report.page.report", lambda *_, **__: tmp_path)
    monkeypatch.setattr(study_module, "one_by_one", lambda jobs: aside(jobs, 1, []))
    monkeypatch.setattr(study_module, "side_by_side", aside)
    run_study(Study("s", ARMS, TINY), tmp_path, (0,), "toy-t2v", asked)
    names = [str(i) for i in range(gpus)] if processes > 1 else []
    assert ran == {"processes": processes, "gpus": names, "threads": threads}


def test_a_run_of_a_study_is_scored_on_the_gpu_where_there_is_one(tmp_path, monkeypatch):
    used = {}
    monkeypatch.setattr("dfdbench.generate.clips.generate", lambda *_, **__: None)
    monkeypatch.setattr("dfdbench.generate.clips.open_family", lambda model: object())
    monkeypatch.setattr(
        "dfdbench.evaluate.engine.score",
        lambda runs, suite, setting: used.update(device=setting.device),
    )
    run_job(Job("real", tmp_path / "real", "toy-t2v", range(1, 2), 1, "toy-t2v"))
    assert used == {"device": "auto"}


def test_a_failed_arm_is_named_and_the_others_are_finished(tmp_path, tiny_checkpoint):
    broken = Arm("broken", "toy/dmd2", None, ("optim.lr=1e30",))
    child = Arm("child", "toy/dfd", "broken")
    study = Study("tiny", (broken, child, ARMS[0]), TINY, seeds=1)
    with pytest.raises(UserError, match=r"broken-seed0.*child-seed0"):
        run_study(study, tmp_path, (0,), str(tiny_checkpoint), processes=1)
    assert (tmp_path / "runs" / "dmd2-seed0" / "scores.sqlite").is_file()


def test_every_training_seed_has_noises_that_no_other_has_and_its_arms_share_them(tmp_path):
    jobs = jobs_of(Study("s", ARMS, seeds=64), tmp_path, (0, 1, 2, 3), "toy-t2v", 1)
    of_seed = {}
    for job in jobs:
        assert len(job.seeds) == 64
        if job.recipe:
            seeds = of_seed.setdefault(load_recipe(job.recipe, job.changes).seed, job.seeds)
            assert job.seeds == seeds  # paired within a training seed
    assert list(of_seed) == [0, 1, 2, 3] and of_seed[2] == range(129, 193)
    assert len(set().union(*of_seed.values())) == 4 * 64
    assert [job.seeds for job in jobs if not job.recipe] == [range(1, 65)] * 2


def test_clips_of_two_training_seeds_have_other_noises_and_all_count(tmp_path, tiny_checkpoint):
    study = Study("tiny", ARMS[:1], TINY, seeds=2)
    page = run_study(study, tmp_path, (0, 1), str(tiny_checkpoint), processes=1)
    listings = [tmp_path / f"runs/dmd2-seed{seed}/videos/toy-t2v/samples.jsonl" for seed in (0, 1)]
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in listings]
    assert [{row["seed"] for row in own} for own in rows] == [{1, 2}, {3, 4}]
    assert {row["sha256"] for row in rows[0]}.isdisjoint(row["sha256"] for row in rows[1])
    summary = json.loads((page.parent / "summary.json").read_text())
    counts = [summary["dmd2"]["saturation_mean"][key] for key in ("seeds", "prompts", "clips")]
    assert counts == [2, 16, 2 * 16 * 2] and summary["teacher"]["saturation_mean"]["clips"] == 32
    text = (page.parent / "deltas.md").read_text()
    assert "too few" in text and "2 seeds, 16 prompts, 64 / 32 clips" in text

    with pytest.raises(UserError, match=r"holds clips of seed 3, this study makes 2 to 2; delete"):
        smaller = Study("tiny", ARMS[:1], TINY, seeds=1)
        run_study(smaller, tmp_path, (1,), str(tiny_checkpoint), processes=1)


def test_the_teacher_is_sampled_in_other_ways_beside_the_students(tmp_path, tiny_checkpoint):
    file = tmp_path / "curve.toml"
    file.write_text("""
        [arms.teacher_2_steps]
        teacher = { steps = 2 }
        [arms.teacher_cfg1]
        teacher = { cfg = 1.0 }
    """)
    study = replace(load_study(file), seeds=1)
    page = run_study(study, tmp_path / "out", (0, 1), str(tiny_checkpoint), processes=1)
    summary = json.loads((page.parent / "summary.json").read_text())
    assert set(summary) == {"real", "teacher", "teacher_2_steps", "teacher_cfg1"}
    settings = {}
    for arm in list(summary)[1:]:
        listing = tmp_path / "out" / "runs" / arm / "videos" / "toy-t2v" / "samples.jsonl"
        rows = [json.loads(line) for line in listing.read_text().splitlines()]
        settings[arm] = {(r["settings"]["steps"], r["settings"]["cfg"]) for r in rows}
        assert len(rows) == 16
    assert settings == {
        "teacher": {(50, 3.0)}, "teacher_2_steps": {(2, 3.0)}, "teacher_cfg1": {(50, 1.0)}
    }  # fmt: skip

    # On another machine they are taken from the report; clips to compare with are made anew.
    elsewhere = (tmp_path / "elsewhere", (0, 1), str(tiny_checkpoint), 1, [page.parent])
    again = run_study(study, *elsewhere)
    assert {run.name for run in (tmp_path / "elsewhere" / "runs").iterdir()} == {"real", "teacher"}
    assert (again.parent / "cells.csv").read_text() == (page.parent / "cells.csv").read_text()


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("[arms.a]", "give either a recipe or how"),
        ("[arms.teacher_x]\nrecipe = 'toy/dmd2'\nteacher = { steps = 4 }", "give either"),
        ("[arms.teacher_x]\nrecipe = 'toy/dmd2'", "names that begin with teacher_"),
        ("[arms.mine]\nteacher = { steps = 4 }", "names that begin with teacher_"),
        ("[arms.teacher_x]\nteacher = { steps = 0 }", "teacher.steps"),
        ("[arms.teacher_x]\nteacher = { speed = 2 }", "teacher.speed"),
    ],
)
def test_an_arm_either_trains_or_samples_the_teacher(tmp_path, table, fault):
    (tmp_path / "s.toml").write_text(table)
    with pytest.raises(UserError, match=fault):
        load_study(tmp_path / "s.toml")


def test_every_shipped_study_names_shipped_recipes_and_earlier_arms(tmp_path):
    assert {"toy/main", "toy/ablations", "toy/quickstart", "toy-ar/main"} <= set(shipped_studies())
    assert not set(shipped_studies()) & set(shipped_recipes())
    for name in shipped_studies():
        study = load_study(name)
        jobs = jobs_of(study, tmp_path, (0, 1), "toy-t2v", 1)
        trained = [arm for arm in study.arms if arm.recipe]
        assert len(jobs) == 2 + 2 * len(trained) + len(study.arms) - len(trained)
        seen = set()
        for job in jobs:
            if job.recipe:
                recipe = load_recipe(job.recipe, job.changes)
                assert recipe.arm == job.arm and f"seed{recipe.seed}" in job.path.name
                assert job.parent is None or job.parent in seen
            seen.add(job.path)


def test_control_and_dfd_get_as_many_updates_in_every_study(tmp_path):
    """The control answers what more training alone does, so it must be as long as DFD."""
    pairs = {
        "dmd2_control": "dfd",
        "control_simulated": "dfd_unpaired",
        "self_forcing_control": "self_forcing_dfd",
    }
    seen = set()
    for name in shipped_studies():
        updates = {
            job.arm: load_recipe(job.recipe, job.changes).schedule.student_updates
            for job in jobs_of(load_study(name), tmp_path, (0,), "toy-t2v", 1)
            if job.recipe
        }
        for control, treated in pairs.items():
            if control in updates:
                assert updates[treated] == updates[control], name
                seen.add(control)
    assert seen == {*pairs}


def test_an_arm_is_compared_with_one_other_or_several(tmp_path):
    file = tmp_path / "study.toml"
    arms = [f"[arms.{name}]\nrecipe='toy/dmd2'\n" for name in "abc"]
    file.write_text(arms[0] + arms[1] + "against='a'\n" + arms[2] + "against=['b', 'a', 'real']\n")
    pairs = [("b", "a"), ("c", "b"), ("c", "a"), ("c", "real")]
    assert load_study(file).named_pairs() == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[arms.a]\nrecipe='toy/dmd2'\ninit='b'\n", "no arm above it"),
        ("[arms.a]\nrecipe='toy/dmd2'\ninit='teacher'\n", "no arm above it"),
        ("[arms.a]\nrecipe='toy/dmd2'\nagainst='b'\n", "against 'b' is no arm above it"),
        (
            "[arms.a]\nrecipe='toy/dmd2'\n[arms.b]\nrecipe='toy/dfd'\nagainst=['a', 'c']\n",
            "arm b: against 'c' is no arm above it",
        ),
        ("[arms.a]\nrecip='toy/dmd2'\n", "did you mean recipe"),
        ("[arms.a]\n", "arm a: give either a recipe or how the teacher is sampled"),
        ("seeds=3\n", "lacks 'arms'"),
        ("[arms]\n", "arms: Dictionary should have at least 1 item"),
        ("sed=3\n[arms.a]\nrecipe='toy/dmd2'\n", "did you mean seeds or set"),
        ("seeds='3'\n[arms.a]\nrecipe='toy/dmd2'\n", "seeds: not a valid integer"),
        ("[arms", "not valid TOML"),
    ],
)
def test_a_broken_study_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_study(file)
    assert "\n" not in str(error.value)


def test_an_unknown_study_offers_near_names():
    with pytest.raises(UserError, match="toy/main"):
        load_study("toy/mian")
