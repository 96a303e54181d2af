"""Students of Self Forcing's public code as runs."""

import json

import pytest
import torch
from self_forcing_files import original
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.import_student import import_student
from dfdbench.distill.stages import grid, parent_run, recipe_of
from dfdbench.generate.stream import Rollout, course_of, generate_stream
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.models.causal import Layout
from dfdbench.models.flow import student_times
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

ONE = Suite("one", 1, "a prompt", (Prompt("ball", "a ball moving over the desert"),), (1,), ())


@pytest.fixture
def checkpoint_file(tiny_family, tmp_path):
    module = tiny_family.new_module()
    with torch.no_grad():
        module.proj_out.weight.normal_(std=0.3)
    torch.save({"generator": original(module)}, tmp_path / "student.pt")
    return tmp_path / "student.pt", module


def test_an_imported_student_is_a_run_that_generates(
    checkpoint_file, tiny_checkpoint, tiny_family, tmp_path
):
    file, module = checkpoint_file
    made = import_student(file, str(tiny_checkpoint), tmp_path / "run", Layout(2, 4, 1))
    run = Run.open(made.path)
    loaded = tiny_family.load_student(run.student)
    assert tiny_family.causal.layout(loaded) == Layout(2, 4, 1)
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    recipe = recipe_of(run)
    assert recipe.student.layout == Layout(2, 4, 1) and recipe.student.sampler == "sde"
    assert torch.equal(grid(recipe), student_times(4, 5.0)), "as published"
    assert run.info["imported"]["file"] == "student.pt" and len(run.info["student_sha256"]) == 64
    assert course_of(run, tiny_family, Rollout()).frames == 17, "a clip as the model has it"
    samples = generate_stream(run, ONE, Rollout(frames=9), family=tiny_family)
    assert (samples.parent / "ball" / "1.mp4").is_file()


def test_the_command_imports_and_refuses_in_one_line(checkpoint_file, tiny_checkpoint, tmp_path):
    file, _ = checkpoint_file

    def command(source, out, *more):
        words = ["import-student", source, "--model", tiny_checkpoint, "--out", tmp_path / out]
        done = CliRunner().invoke(app, [*map(str, words), *more])
        errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
        return done, errors

    done, _ = command(file, "run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["student"] == str(tmp_path / "run" / "student")
    (tmp_path / "text.pt").write_text("no weights")
    for source, out, more, words in (
        (file, "run", (), "already holds a run; choose another --out"),
        (tmp_path / "text.pt", "other", (), "text.pt: cannot be read as plain tensors"),
        (tiny_checkpoint, "other", (), "cannot be read as plain tensors"),
        (file, "other", ("--window", "2"), "set window_frames to 3 or more"),
    ):
        done, errors = command(source, out, *more)
        assert done.exit_code == 2 and len(errors) == 1 and words in errors[0], done.output
    assert not (tmp_path / "other").exists()


def test_no_second_stage_starts_from_a_student_without_a_fake_score(
    checkpoint_file, tiny_checkpoint, tiny_family, tmp_path
):
    run = import_student(checkpoint_file[0], str(tiny_checkpoint), tmp_path / "run")
    with pytest.raises(UserError, match="was imported and has no fake score"):
        parent_run(recipe_of(run), tmp_path / "next", run.path, tiny_family, lambda *_: run)
