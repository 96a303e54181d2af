"""Runs, checkpoints and weights that are not what they should be: refused, never used silently."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from calls import SMALL, refused, sets
from safetensors.torch import load_file, save_file

from dfdbench.distill import checkpoint
from dfdbench.distill.checkpoint import Position
from dfdbench.models.registry import load_family
from dfdbench.utils.errors import UserError

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
Spoil = Callable[[Path], object]


# --- A3: checkpoints


def trained():
    """Two networks with a step behind them, and their optimisers."""
    torch.manual_seed(0)
    modules = {"student": torch.nn.Linear(3, 2), "critic": torch.nn.Linear(2, 2)}
    optimisers = {name: torch.optim.AdamW(m.parameters()) for name, m in modules.items()}
    for name, module in modules.items():
        module(torch.ones(1, module.in_features)).sum().backward()
        optimisers[name].step()
    return modules, optimisers


@pytest.fixture
def saved(tmp_path):
    """A folder of checkpoints step-1 and step-2."""
    for updates in (1, 2):
        checkpoint.save(tmp_path, Position(updates, 0.5), *trained(), keep=2)
    return tmp_path


def restore(folder: Path) -> Position:
    return checkpoint.restore(folder, *trained(), CPU)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "step-2").glob("*.safetensors"))


def edit(change: Callable[[dict[str, torch.Tensor]], object], number: int = 0) -> Spoil:
    def spoil(folder: Path) -> None:
        for file in files(folder)[number:] if number < 0 else [files(folder)[number]]:
            tensors = load_file(file)
            change(tensors)
            file.unlink()
            save_file(tensors, file)

    return spoil


def rewrite(change: Callable[[dict], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "step-2" / "state.json"
        state = json.loads(file.read_text())
        change(state)
        file.write_text(json.dumps(state))

    return spoil


def first(tensors: dict[str, torch.Tensor]) -> str:
    return sorted(tensors)[0]


def one_nan(tensors: dict[str, torch.Tensor]) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and value.numel() > 1:
            tensors[key] = torch.full_like(value, float("nan"))


def state_text(text: str) -> Spoil:
    return lambda folder: (folder / "step-2" / "state.json").write_text(text)


SPOILT: dict[str, Spoil] = {
    **{f"file {i} deleted": lambda f, i=i: files(f)[i].unlink() for i in range(4)},
    **{f"file {i} torn": lambda f, i=i: files(f)[i].write_bytes(files(f)[i].read_bytes()[:-9])
       for i in range(4)},
    **{f"a tensor of file {i} lost": edit(lambda t: t.pop(first(t)), i) for i in range(4)},
    **{f"NaN in file {i}": edit(one_nan, i) for i in range(4)},
    "a tensor to spare": edit(lambda t: t.update(more=torch.zeros(1))),
    "another shape": edit(lambda t: t.update({first(t): torch.zeros(7, 7)})),
    "state.json deleted": lambda f: (f / "step-2" / "state.json").unlink(),
    "state.json empty": state_text(""),
    "state.json null": state_text("null"),
    "state.json a list": state_text("[]"),
    "state.json torn": state_text('{"updates": 2, "sec'),
    "state.json without seconds": rewrite(lambda s: s.pop("seconds")),
    "updates of text": rewrite(lambda s: s.update(updates="two")),
    "updates below 0": rewrite(lambda s: s.update(updates=-1)),
    "other updates": rewrite(lambda s: s.update(updates=7)),
    "seconds NaN": rewrite(lambda s: s.update(seconds=float("nan"))),
    "a field to spare": rewrite(lambda s: s.update(more=1)),
    "a key less in the list": rewrite(lambda s: s["tensors"].pop(first(s["tensors"]))),
}  # fmt: skip


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_that_is_not_whole_is_refused_and_an_older_one_named(saved, name):
    SPOILT[name](saved)
    with pytest.raises(UserError) as caught:
        restore(saved)
    says = str(caught.value)
    assert str(saved / "step-2") in says and "\n" not in says
    assert says.endswith(f"delete {saved / 'step-2'} to go on from step-1")
    shutil.rmtree(saved / "step-2")
    assert restore(saved) == Position(1, 0.5)


@pytest.mark.fault("A3")
@pytest.mark.parametrize("number", range(4))
def test_a_checkpoint_of_the_previous_version_lists_nothing_and_misses_whole_files(saved, number):
    rewrite(lambda s: s.pop("tensors"))(saved)
    assert restore(saved) == Position(2, 0.5)
    files(saved)[number].unlink()
    with pytest.raises(UserError, match=r"its files lack (state\.)?(student|critic)"):
        restore(saved)


def test_a_folder_beside_checkpoints_is_none(saved):
    (saved / "step-mine").mkdir()
    (saved / "notes").mkdir()
    assert [p.name for p in checkpoint.complete(saved)] == ["step-1", "step-2"]


# --- A4: weights


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    file.unlink()  # it may be a link to another run's
    save_file(tensors, file, metadata={"format": "pt"})


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[first(tensors)].view(-1)[-1] = value

    return change


def whole(dtype: torch.dtype, every: bool) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in sorted(tensors)[: None if every else 1]:
            tensors[key] = tensors[key].to(dtype)

    return change


WRONG = {
    "NaN": poison(float("nan")),
    "infinity": poison(float("inf")),
    "minus infinity": poison(float("-inf")),
    "all int8": whole(torch.int8, True),
    "one int64": whole(torch.int64, False),
    "bool": whole(torch.bool, False),
}


@pytest.mark.fault("A4")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_weights_that_make_black_clips_are_refused_where_they_are_loaded(
    part, wrong, tiny_checkpoint, tmp_path
):
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    change_weights(model / part, WRONG[wrong])
    family = load_family(model)
    loads = {
        "transformer": (lambda: family.teacher, family.new_module),
        "vae": (lambda: family.vae,),
        "text_encoder": (lambda: family.text_encoder,),
    }
    for load in loads[part]:
        with pytest.raises(UserError) as caught:
            load()
        says = str(caught.value)
        assert says.startswith(f"{model / part}: ") and says.endswith("copy or download it again")
        assert "NaN or infinity" in says or "floating point is needed" in says


@pytest.mark.fault("A4")
@pytest.mark.parametrize("part", ["student/transformer", "student/vae"])
def test_a_student_of_wrong_weights_makes_no_clip(part, run_copy):
    change_weights(run_copy / part, WRONG["NaN"])
    if part == "student/vae":  # generation decodes by the model's own: this one is not read
        return
    assert f"{run_copy / part}: " in refused("generate", run_copy, "--seeds", "1")
    assert not list(run_copy.rglob("*.mp4"))


@pytest.mark.fault("A4")
def test_weights_that_overflow_on_the_way_make_no_clip_either(run_copy):
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        for key in tensors:
            tensors[key] = tensors[key] * 1e30

    change_weights(run_copy / "student/transformer", grow)
    assert "hold NaN" in refused("generate", run_copy, "--seeds", "1")
    assert not list(run_copy.rglob("*.mp4"))


@pytest.mark.fault("A4")
@pytest.mark.parametrize("content", ["torn", "NaN", "another shape", "another name", "empty"])
def test_a_cache_of_latents_that_is_no_use_is_made_again(content, tiny_family, tmp_path):
    from dfdbench.toy.data import real_latents

    latents, _, _ = real_latents(tiny_family, 2, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    save_file(
        {
            "torn": {"latents": latents},
            "NaN": {"latents": latents * float("nan")},
            "another shape": {"latents": latents[:1]},
            "another name": {"mine": latents},
            "empty": {},
        }[content],
        file,
    )
    if content == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    again, _, _ = real_latents(tiny_family, 2, cache_dir=tmp_path)
    assert torch.equal(again, latents) and torch.equal(load_file(file)["latents"], latents)


# --- C: runs to start from


def info(**changes: object) -> Spoil:
    def spoil(run: Path) -> None:
        file = run / "run.json"
        values = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))

    return spoil


def as_bytes(content: bytes) -> Spoil:
    return lambda run: (run / "run.json").write_bytes(content)


INITS: dict[str, tuple[Spoil, str]] = {
    "no recipe": (info(recipe=...), "was not distilled"),
    "a teacher's": (info(arm="teacher", recipe=...), "was not distilled: it holds arm teacher"),
    "a list for a recipe": (info(recipe=[1]), "recipe: not a valid dictionary"),
    "an unknown method": (info(recipe={"method": "nope"}), "unknown method 'nope'"),
    "no id": (info(id=...), "lacks 'id'"),
    "no hash": (info(student_sha256=...), "lacks 'student_sha256'"),
    "another hash": (info(student_sha256="0" * 64), "not the weights that run.json names"),
    "iterations below 0": (info(iterations_total=-1), "iterations_total: not greater"),
    "iterations of text": (info(iterations_total="many"), "iterations_total: not a valid integer"),
    "seconds NaN": (info(wall_seconds_total=float("nan")), "not a finite number"),
    "another format": (info(format=99), "format: not 1 (is 99)"),
    "unfinished": (info(status="running"), "is not finished"),
    "null": (as_bytes(b"null"), "not a valid dictionary"),
    "empty": (as_bytes(b""), "not JSON"),
    "UTF-16": (as_bytes('{"arm": "a"}'.encode("utf-16")), "save it in UTF-8"),
    "deep": (as_bytes(b"[" * 100_000), "not JSON"),
    "no student": (lambda run: shutil.rmtree(run / "student"), "holds no safetensors weights"),
    "no fake score": (lambda run: shutil.rmtree(run / "critic"), "holds no safetensors weights"),
    "torn student": (
        lambda run: (run / "student/transformer" / WEIGHTS).write_bytes(b"torn"),
        "not the weights that run.json names",
    ),
    "changed fake score": (
        lambda run: change_weights(run / "critic", poison(0.5)),
        "critic: not the weights that run.json names",
    ),
}


@pytest.mark.fault("C.init", "A9")
@pytest.mark.parametrize("name", INITS)
def test_a_run_that_cannot_be_started_from_is_named_and_nothing_is_made(
    name, run_copy, tiny_checkpoint, tmp_path
):
    spoil, says = INITS[name]
    spoil(run_copy)
    words = ("distill", "--method", "dfd", "--model", tiny_checkpoint, *sets(SMALL))
    line = refused(*words, "--init", run_copy, "--out", tmp_path / "out")
    assert says in line and "delete" not in line
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("C.init")
@pytest.mark.parametrize("place", ["nowhere", "file", "folder", "a\nb"])
def test_what_is_no_run_cannot_be_started_from(place, tiny_checkpoint, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    words = ("distill", "--method", "dfd", "--model", tiny_checkpoint, *sets(SMALL))
    line = refused(*words, "--init", tmp_path / place, "--out", tmp_path / "out")
    assert "is not a run folder" in line


@pytest.mark.fault("C.read-back")
@pytest.mark.parametrize("name", ["no recipe", "null", "empty", "UTF-16", "another format", "deep"])
@pytest.mark.parametrize("command", ["distill", "generate"])
def test_commands_on_a_run_whose_file_is_no_use_say_so(name, command, run_copy, tiny_checkpoint):
    spoil, says = INITS[name]
    spoil(run_copy)
    words = {
        "distill": ("distill", "--method", "dmd2", "--model", tiny_checkpoint, *sets(SMALL),
                    "--resume", "--out", run_copy),
        "generate": ("generate", run_copy, "--seeds", "1"),
    }  # fmt: skip
    line = refused(*words[command])
    assert says in line and "delete" not in line
