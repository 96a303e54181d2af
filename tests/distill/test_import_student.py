"""Students of other programs, such as Self Forcing's, as runs."""

import json
from dataclasses import replace

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
from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
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
    assert course_of(run, tiny_family, ONE).frames == {"ball": 17}, "a clip as the model has it"
    samples = generate_stream(run, ONE, Rollout(frames=9), family=tiny_family)
    assert (samples.parent / "ball" / "1.mp4").is_file()


def command(source, model, out, *more):
    """What the command gives back, and its lines of errors."""
    words = ["import-student", source, "--model", model, "--out", out]
    done = CliRunner().invoke(app, [*map(str, words), *more])
    return done, [line for line in done.output.splitlines() if line.startswith("error: ")]


def test_the_command_imports_a_checkpoint_and_a_plain_folder(
    checkpoint_file, tiny_checkpoint, tiny_family, tmp_path
):
    file, _ = checkpoint_file
    for source, name in ((file, "of a file"), (tiny_checkpoint, "of a folder")):
        done, _ = command(source, tiny_checkpoint, tmp_path / name, "--block-frames", "2", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["student"] == str(tmp_path / name / "student")
        run = Run.open(tmp_path / name)
        assert run.info["imported"]["file"] == source.name
        assert tiny_family.causal.layout(tiny_family.load_student(run.student)) == Layout(2)
    untouched = tiny_family.load_student(tmp_path / "of a folder" / "student").state_dict()
    for name, value in tiny_family.teacher.state_dict().items():
        assert torch.equal(untouched[name], value)
    # Its own student again: the layout is the folder's.
    done, _ = command(tmp_path / "of a file" / "student", tiny_checkpoint, tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert recipe_of(Run.open(tmp_path / "again")).student.layout == Layout(2)


def test_the_command_refuses_everything_else_in_one_line(
    checkpoint_file, tiny_checkpoint, tmp_path
):
    file, module = checkpoint_file
    import_student(file, str(tiny_checkpoint), tmp_path / "run", Layout(2))
    cosmos = write_checkpoint_i2v(tmp_path / "cosmos", TINY_I2V, seed=0)
    wider = write_checkpoint(tmp_path / "wider", replace(TINY, layers=3), seed=0)
    weights = original(module)

    def written(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "half.pt").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "half.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    lora = written("lora.pt", {"blocks.0.self_attn.q.lora_down.weight": torch.zeros(2, 2)})
    image = written("image.pt", {"down_blocks.0.conv.weight": torch.zeros(2, 2)})
    less = written("less.pt", {"generator": dict(list(weights.items())[:-1])})
    extra = written("extra.pt", {"generator": weights | {"model.more.weight": torch.zeros(1)}})
    code = written("code.pt", {"generator": Layout(1)})
    for source, more, words in (
        (tmp_path / "text.pt", (), "text.pt: cannot be read as plain tensors"),
        (tmp_path / "half.pt", (), "half.pt: cannot be read as plain tensors"),
        (tmp_path / "half.safetensors", (), "half.safetensors: cannot be read as plain tensors"),
        (tmp_path / "nowhere", (), "nowhere: cannot be read as plain tensors"),
        (code, (), "code.pt: cannot be read as plain tensors"),
        (lora, (), "lora.pt: is a LoRA"),
        (image, (), "image.pt: holds no state dict"),
        (less, (), "less.pt: it has no "),
        (extra, (), "extra.pt: it has more.weight, which the model has not"),
        (cosmos, (), "cosmos: its transformer is a CosmosTransformer3DModel, no Wan"),
        (wider, (), "wider: its num_layers is 3, the model's 2"),
        (tmp_path / "run", (), "run: no diffusers folder"),
        (tmp_path / "run" / "student", ("--block-frames", "3"), "made with Layout(block_frames=2"),
        (file, ("--window", "2"), "set window_frames to 3 or more"),
    ):
        done, errors = command(source, tiny_checkpoint, tmp_path / "other", *more)
        assert done.exit_code == 2 and len(errors) == 1 and words in errors[0], done.output
    done, errors = command(file, tiny_checkpoint, tmp_path / "run")
    assert done.exit_code == 2 and "already holds a run; choose another --out" in errors[0]
    done, errors = command(file, cosmos, tmp_path / "other")
    assert done.exit_code == 2 and "has no causal students; give the Wan" in errors[0]
    assert not (tmp_path / "other").exists()


def test_no_second_stage_starts_from_a_student_without_a_fake_score(
    checkpoint_file, tiny_checkpoint, tiny_family, tmp_path
):
    run = import_student(checkpoint_file[0], str(tiny_checkpoint), tmp_path / "run")
    with pytest.raises(UserError, match="was imported and has no fake score"):
        parent_run(recipe_of(run), tmp_path / "next", run.path, tiny_family, lambda *_: run)
