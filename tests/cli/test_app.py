import json
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.utils.video import write_video

COMMANDS = [
    "quickstart",
    "distill",
    "generate",
    "eval",
    "report",
    "export",
    "check",
    "doctor",
    "assets",
    "assets list",
    "assets get",
    "bench train",
    "bench sample",
    "data encode",
    "toy train",
    "toy quality",
    "leaderboard add",
    "leaderboard render",
    "leaderboard verify",
]
runner = CliRunner()


def run(*arguments: str):
    return runner.invoke(app, list(arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: dfdbench {command}" in " ".join(result.stdout.split())


def test_help_and_version_are_quick_and_import_nothing_heavy():
    code = (
        "import sys; from dfdbench.cli.app import app; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'pandas', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dfdbench", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - start < 5  # below 1 s on an idle machine
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


def test_a_fault_of_the_user_is_one_line_on_stderr_and_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dfdbench", "report", str(tmp_path / "nothing")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'nothing'}: no such run, folder or store\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--nonsense", "No such option: --nonsense"),
        ("destill", "No such command 'destill'"),
        ("distill", "--method, one of dmd2, dp_dmd, dfd, or --recipe"),
        ("distill --method dmd3", "unknown --method 'dmd3'; did you mean dmd2"),
        ("distill --recipe toy/dmd", "unknown recipe 'toy/dmd'; did you mean"),
        ("distill --recipe none.toml", "recipe none.toml does not exist"),
        ("distill --method dfd --set dfd.q=1", "unknown field 'dfd.q'"),
        (
            "distill --method dfd --set dfd.p=2",
            "dfd.p: not less than or equal to 1 (is 2); correct it",
        ),
        ("distill --method dfd --set p", "--set p is not KEY=VALUE"),
        ("distill --method dfd --seed x", "Invalid value for '--seed'"),
        ("distill --method dmd2 --model ./nowhere", "model folder ./nowhere does not exist"),
        ("generate", "name either a run folder or --arm"),
        ("generate nowhere", "nowhere is not a run folder"),
        ("generate --arm techer", "unknown arm 'techer'; did you mean teacher"),
        ("generate nowhere --seeds 3-x", "--seeds 3-x: write seeds like 1-8"),
        ("generate nowhere --batch 0", "Invalid value for '--batch'"),
        ("eval", "Missing argument"),
        ("eval nowhere", "nowhere: no such run, manifest or folder"),
        ("eval nowhere --suite toy-t2w", "unknown suite 'toy-t2w'; did you mean toy-t2v"),
        ("report .", "holds no run"),
        ("check --reference none.json", "none.json: no such reference"),
        ("check --update --repeats 1", "Invalid value for '--repeats'"),
        ("assets get", "Missing argument"),
        ("assets get brisk", "unknown asset or group 'brisk'; did you mean brisque"),
        ("toy", "Missing command"),
    ],
)
def test_errors(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments.split())
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_one_line_and_code_130(monkeypatch):
    def interrupted(verify):
        raise KeyboardInterrupt

    monkeypatch.setattr("dfdbench.cli.doctor.examine", interrupted)
    result = run("doctor")
    assert result.exit_code == 130 and result.stderr.count("\n") == 1


def test_no_command_shows_the_help_and_version_prints_one_line():
    assert "Commands:" in run().stdout
    assert run("--version").stdout.startswith("dfdbench 0.")


def test_foreign_videos_are_scored_and_reported_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for prompt in ("a cat", "a dog"):
        for seed in (0, 1):
            frames = rng.integers(0, 255, (5, 32, 32, 3)).astype(np.uint8)
            write_video(tmp_path / "clips" / f"{prompt}-{seed}.mp4", frames, 8)
    command = ["eval", "clips", "--suite", "released-clips", "--out", "scores", "--json"]
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scored"] == 4
    again = json.loads(
        run(*["eval", "clips", "--suite", "released-clips", "--out", "scores", "--json"]).stdout
    )
    assert again["scored"] == 0 and again["reused"] == 4
    done = run(*["report", "scores", "--out", "page"])
    assert done.exit_code == 0 and done.stdout == "report: page/index.html\n"
    summary = json.loads((tmp_path / "page" / "summary.json").read_text())
    assert summary["clips"]["saturation_mean"]["n"] == 2


def test_a_broken_video_makes_eval_exit_1_and_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    write_video(tmp_path / "clips" / "good-0.mp4", frames, 8)
    (tmp_path / "clips" / "bad-0.mp4").write_bytes(b"not a video")
    result = run(*["eval", "clips", "--suite", "released-clips", "--out", "scores"])
    assert result.exit_code == 1
    assert "left out" in result.stdout and "bad-0.mp4" in result.stdout


def test_a_run_is_distilled_and_evaluated_from_the_command_line(
    tmp_path, tiny_checkpoint, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    sets = []
    for change in ("schedule.student_updates=1", "data.count=4", "optim.batch=2",
                   "student.steps=1", "init.updates=1"):  # fmt: skip
        sets += ["--set", change]
    made = run("distill", "--method", "dfd", "--model", str(tiny_checkpoint), "--seed", "3",
               "--json", *sets)  # fmt: skip
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["run"] == "runs/dfd-seed3"
    assert (tmp_path / "runs" / "dmd2-seed3" / "student").is_dir()  # the stage its recipe names
    again = run("distill", "--method", "dfd", "--model", str(tiny_checkpoint), "--seed", "3", *sets)
    assert again.exit_code == 2 and "--resume" in again.stderr
    scored = run(*["eval", "runs/dfd-seed3", "--seeds", "1", "--json"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["scored"] == 12
    assert (tmp_path / "runs" / "dfd-seed3" / "videos" / "toy-t2v" / "samples.jsonl").is_file()


def test_check_exits_1_on_a_regression_with_a_table(monkeypatch):
    from dfdbench.cli import check as regress

    bad = regress.Result("quick", [regress.Line("dfd hue_entropy", 0.1, 0.6, 0.9)])
    monkeypatch.setattr(regress, "check", lambda size, reference: bad)
    result = run("check", "--quick")
    assert result.exit_code == 1 and "FAIL dfd hue_entropy" in result.stdout
    assert json.loads(run("check", "--quick", "--json").stdout)["passed"] is False
