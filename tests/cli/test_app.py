import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.cli.old import SPELLINGS, modern
from dfdbench.distill.methods import SHIPPED
from dfdbench.utils.video import write_video

COMMANDS = [
    "quickstart", "study", "check", "check update", "data encode", "data describe",
    "data curate shots", "data curate caption", "data curate features", "data curate cluster",
    "data curate grid", "data curate pick", "data curate pack", "distill", "generate", "eval",
    "merge", "report", "leaderboard add", "leaderboard render", "leaderboard submit",
    "leaderboard verify",
    "vbench export", "plan", "bench train", "bench sample", "bench stream", "toy train",
    "toy quality", "list", "explain", "doctor", "assets", "assets list", "assets get",
    "import-student",
]  # fmt: skip
METHODS = ", ".join(SHIPPED)
OLD_SPELLINGS = [
    ("export --help", "vbench export --help", "dfdbench export is now dfdbench vbench export"),
    ("distill --method dfd --plan --gpus 2", "plan --method dfd --gpus 2", "is now dfdbench plan"),
    ("check --quick --update", "check update --quick", "is now dfdbench check update"),
    ("check --reference a.json", "check --bands a.json", "is now dfdbench check --bands"),
    (
        "check --update --reference=a.json --quick",
        "check update --bands=a.json --quick",
        "is now dfdbench check update",
    ),
    ("eval a --method-name x b", "eval a --arm x b", "is now dfdbench eval --arm"),
    ("export s --method a --method b", "vbench export s --arm a --arm b", "vbench export --arm"),
    ("leaderboard add r --method=a", "leaderboard add r --arm=a", "leaderboard add --arm"),
]
runner = CliRunner()


def leaves(command, path=()):
    """(words, command) of every command that can be called, without its groups."""
    if getattr(command, "invoke_without_command", not hasattr(command, "commands")) and path:
        yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))


def run(*arguments: str):
    return runner.invoke(app, list(arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: dfdbench {command}" in " ".join(result.stdout.split())


def test_the_commands_are_those_of_this_table_and_each_prints_json():
    commands = dict(leaves(get_command(app)))
    assert set(commands) == set(COMMANDS)
    for name, command in commands.items():
        assert any("--json" in option.opts for option in command.params), name


def test_every_option_that_may_be_repeated_says_so():
    for name, command in leaves(get_command(app)):
        for option in command.params:
            if getattr(option, "multiple", False):
                assert "repeatable" in option.help, f"{name} {option.name}"


@pytest.mark.parametrize(("old", "new", "hint"), OLD_SPELLINGS)
def test_an_old_spelling_is_taken_for_the_new_one_with_a_hint(old, new, hint):
    words, hints = modern(old.split())
    assert words == new.split()
    assert hint in " ".join(hints) and all(line.startswith("hint: ") for line in hints)
    assert modern(words) == (words, [])


def test_every_old_spelling_is_tested_and_prints_its_hint_on_stderr():
    assert len(SPELLINGS) == 7 <= len(OLD_SPELLINGS)
    result = run("export", "nowhere", "--method", "a", "--out", "x")
    assert result.exit_code == 2 and result.stdout == ""
    hints = result.stderr.splitlines()
    assert hints[0].startswith("hint: dfdbench export is now dfdbench vbench export")
    assert hints[1].startswith("hint: dfdbench vbench export --method is now")
    assert hints[2].startswith("error: nowhere: no scores here") and len(hints) == 3


def test_a_plan_takes_the_line_of_a_training():
    line = ("--method", "dfd", "--seed", "1", "--out", "runs/x", "--resume", "--device", "cpu")
    plan = run("plan", *line, "--mfu", "0.5", "--json")
    old = run("distill", *line, "--plan", "--mfu", "0.5", "--json")
    assert plan.exit_code == old.exit_code == 0, plan.output
    assert plan.stdout == old.stdout and json.loads(plan.stdout)["mfu"] == 0.5


def test_methods_in_help_and_errors_are_those_of_the_registry(monkeypatch):
    from dfdbench.distill import methods

    monkeypatch.setitem(methods._registered, "mine", methods.get_method("dmd2"))
    for command in ("distill", "plan", "bench train"):
        page = run(*command.split(), "--help").stdout.replace("│", " ")
        assert f"{METHODS}, mine" in " ".join(page.split())
    assert f"{METHODS}, mine" in run("distill").stderr
    assert "did you mean mine" in run("distill", "--method", "mime").stderr
    assert "mine" in [row["method"] for row in json.loads(run("list", "methods", "--json").stdout)]


@pytest.mark.parametrize(
    ("what", "key", "names"),
    [
        ("metrics", "metric", {"saturation_mean", "hue_entropy", "dynamic_degree"}),
        ("suites", "suite", {"toy-t2v", "vbench", "clips"}),
        ("recipes", "name", {"toy/dfd", "toy/main", "wan2.1-t2v-1.3b/dmd2"}),
        ("methods", "method", {"dmd2", "dp_dmd", "dfd"}),
        ("models", "model", {"toy-t2v", "toy-i2v", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}),
    ],
)
def test_list_prints_a_row_a_name(what, key, names):
    rows = json.loads(run("list", what, "--json").stdout)
    assert names <= {row[key] for row in rows}
    lines = run("list", what).stdout.splitlines()
    assert len(lines) == len(rows) + 1 and lines[0].split() == list(rows[0])


def test_explain_says_what_a_metric_is_and_offers_near_names():
    facts = json.loads(run("explain", "saturation_mean", "--json").stdout)
    assert facts["direction"] == "nearest reference" and facts["range"] == "0 to 1"
    assert "(max − min)/max" in facts["definition"] and facts["needs"] == "nothing"
    assert facts["version"] == "1" and "toy-t2v" in facts["default"]
    lines = run("explain", "clip_vit_l14_frechet").stdout.splitlines()
    needs = next(line for line in lines if line.startswith("needs"))
    assert "clips of a reference" in needs and "weights clip_vit_l14" in needs
    assert any(line.split() == ["direction", "lower"] for line in lines)
    wrong = run("explain", "saturation_men")
    assert wrong.exit_code == 2 and "did you mean saturation_mean" in wrong.stderr


def complete(words: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    environment = {
        "_DFDBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dfdbench"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_the_shell_completes_commands_and_names():
    script = subprocess.run(
        [sys.executable, "-m", "dfdbench", "--show-completion", "bash"],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "_DFDBENCH_COMPLETE=complete_bash" in script.stdout
    assert complete("dfdbench qui") == ["quickstart"]
    assert complete("dfdbench distill --recipe toy/dm") == ["toy/dmd2", "toy/dmd2_control"]
    assert complete("dfdbench distill --method df") == ["dfd"]


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
        ("distill", f"--method, one of {METHODS}, or --recipe"),
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
        ("check --bands none.json", "none.json: no such file of bands"),
        ("check update --repeats 1", "Invalid value for '--repeats'"),
        ("assets get", "Missing argument"),
        ("assets get brisk", "unknown asset or group 'brisk'; did you mean brisque"),
        ("check --quick update", "put options after update"),
        ("list metric", "Invalid value for 'what'"),
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
    assert "One step at a time" in run().stdout
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
    assert summary["clips"]["saturation_mean"]["prompts"] == 2


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
    assert json.loads(scored.stdout)["scored"] == 16
    assert (tmp_path / "runs" / "dfd-seed3" / "videos" / "toy-t2v" / "samples.jsonl").is_file()


def test_check_exits_1_on_a_regression_with_a_table(monkeypatch):
    from dfdbench.cli import check as regress

    bad = regress.Result("quick", [regress.Line("dfd hue_entropy", 0.1, 0.6, 0.9)])
    monkeypatch.setattr(regress, "check", lambda size, bands: bad)
    result = run("check", "--quick")
    assert result.exit_code == 1 and "FAIL dfd hue_entropy" in result.stdout
    assert json.loads(run("check", "--quick", "--json").stdout)["passed"] is False
