"""Public students by their cards: runs that generate as hand-made ones do, and what is refused."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from public_students import (
    RANK,
    TIMES,
    card_file,
    diffusers_lora,
    pairs,
    written,
)
from safetensors.torch import save_file
from self_forcing_files import loud_checkpoint, original
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.import_card import import_published
from dfdbench.distill.stages import grid, recipe_of
from dfdbench.generate.clips import generate
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.models.causal import Layout
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.run import Run, weights_sha256

ONE = Suite("one", 1, "a prompt", (Prompt("ball", "a ball moving over the desert"),), (1,), ())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return loud_checkpoint(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def family(base):
    return load_family(base)


@pytest.fixture(scope="module")
def student(family):
    """A bidirectional network near the base."""
    module = family.new_module()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 50)
    return module


def by_hand(folder, family, module, times, sampler, layout=None):
    """A run made without the code under test: weights, times and sampler alone."""
    recipe = {
        "method": "dmd2",
        "model": str(family.path),
        "student": {"steps": len(times), "times": times, "sampler": sampler},
    }
    if layout:
        module = family.as_causal(module, layout)
        recipe["student"] |= {"block_frames": layout.block_frames, "input": "self_forcing"}
    run = Run.create(folder, {"arm": "hand", "method": "dmd2", "recipe": recipe})
    family.save_student(module, run.student)
    return run


def clip(run, family):
    generate(run, ONE, family=family)
    return (run.videos / "one" / "ball" / "1.mp4").read_bytes()


@pytest.mark.parametrize(("sampler", "layout"), [("ode", None), ("sde", None), ("sde", Layout(2))])
def test_an_imported_student_makes_the_clips_of_a_hand_made_one(
    base, family, student, tmp_path, sampler, layout
):
    save_file(original(student), tmp_path / "student.safetensors")
    frames = layout.block_frames if layout else 0
    card = card_file(tmp_path, base, sampler=sampler, block_frames=frames)
    made = import_published(tmp_path / "student.safetensors", card, str(base), tmp_path / "run")
    copy = family.new_module()
    copy.load_state_dict(student.state_dict())
    hand = by_hand(tmp_path / "hand", family, copy, TIMES, sampler, layout)
    assert recipe_of(made).student.layout == layout
    assert grid(recipe_of(made)).tolist() == [*TIMES, 0.0]
    assert clip(Run.open(made.path), family) == clip(hand, family)


def test_a_lora_is_fused_with_its_strength_and_makes_those_clips(base, family, tmp_path):
    module = family.new_module()
    layers = pairs(module)
    path = written(tmp_path / "lora.safetensors", diffusers_lora(layers))
    made = import_published(path, card_file(tmp_path, base), str(base), tmp_path / "run", 0.5)
    weights, apart, whole = module.state_dict(), 0.0, 0.0
    with torch.no_grad():
        for stem, (a, b) in layers.items():
            change = 0.5 * (RANK / RANK) * (b @ a)
            apart += float(
                (weights[f"{stem}.weight"] + change - weights[f"{stem}.weight"])
                .double()
                .square()
                .sum()
            )
            weights[f"{stem}.weight"].add_(change)
    whole = sum(float(v.double().square().sum()) for v in family.teacher.state_dict().values())
    own = family.load_student(made.student).state_dict()
    assert all(torch.equal(own[name], value) for name, value in weights.items())
    said = made.info["imported"]
    assert said["relative_difference"] == pytest.approx((apart / whole) ** 0.5, rel=1e-6)
    assert (said["kind"], said["strength"], said["changed"]) == ("lora", 0.5, len(layers))
    assert clip(made, family) == clip(by_hand(tmp_path / "h", family, module, TIMES, "ode"), family)


def test_a_run_says_where_it_comes_from(base, family, student, tmp_path):
    family.save_student(student, tmp_path / "pipeline")
    card = card_file(tmp_path, base, repository="someone/weights", unverified="all of it", arm="x")
    for number, source in enumerate((tmp_path / "pipeline", tmp_path / "pipeline/transformer")):
        run = import_published(source, card, str(base), tmp_path / f"run{number}")
        said = run.info["imported"]
        assert said["sha256"] == weights_sha256(tmp_path / "pipeline/transformer")
        assert said["card_sha256"] == sha256_file(card) and said["card"] == "mine"
        assert said["says"]["repository"] == "someone/weights" and said["file"] == source.name
        assert (run.arm, run.training_seed, run.finished) == ("x", None, True)


def test_rcms_layout_is_read(base, family, student, tmp_path):
    """`net.` before the names, a linear patch embedding, counters of the training."""
    content = {f"net.{n.removeprefix('model.')}": v for n, v in original(student).items()}
    content["net.patch_embedding.weight"] = content["net.patch_embedding.weight"].flatten(1)
    content["net.accum_iteration"] = torch.tensor(7)
    torch.save(content, tmp_path / "rcm.pt")
    card = card_file(tmp_path, base, leaves_out=["accum_"])
    run = import_published(tmp_path / "rcm.pt", card, str(base), tmp_path / "run")
    own = family.load_student(run.student).state_dict()
    assert all(torch.equal(own[name], value) for name, value in student.state_dict().items())
    assert run.info["imported"]["left_out"] == 1
    with pytest.raises(UserError, match="accum_iteration"):
        import_published(
            tmp_path / "rcm.pt", card_file(tmp_path, base, "plain"), str(base), tmp_path / "other"
        )


@pytest.fixture(scope="module")
def places(base, family, student, tmp_path_factory):
    """Weights of every kind, by name."""
    root = tmp_path_factory.mktemp("weights")
    family.save_student(student, root / "bidirectional")
    family.save_student(family.as_causal(family.new_module(), Layout(2)), root / "causal")
    write_checkpoint(root / "deeper", replace(TINY, layers=3), seed=0)
    write_checkpoint_i2v(root / "cosmos", TINY_I2V, seed=0)
    save_file(original(student), root / "whole.safetensors")
    less = dict(list(original(student).items())[1:])
    save_file(less, root / "less.safetensors")
    written(root / "lora.safetensors", diffusers_lora(pairs(student)))
    strange = {"down.0.to_q.lora_A.weight": torch.zeros(1, 1)}
    written(
        root / "strange.safetensors", strange | {"down.0.to_q.lora_B.weight": torch.zeros(1, 1)}
    )
    nothing = {n: torch.zeros_like(v) for n, v in diffusers_lora(pairs(student)).items()}
    written(root / "nothing.safetensors", nothing)
    (root / "two").mkdir()
    for name in ("a", "b"):
        shutil.copy(root / "lora.safetensors", root / "two" / f"{name}.safetensors")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(
    ("source", "changes", "more", "words"),
    [
        ("bidirectional", {"family": "cosmos"}, (), "is for a model of the family cosmos"),
        ("bidirectional", {"block_frames": 2}, (), "bidirectional WanTransformer3DModel, the card"),
        ("causal", {}, (), "is a causal student of .* of a bidirectional student"),
        ("causal", {"block_frames": 3}, (), r"block_frames=2.*is of Layout\(block_frames=3"),
        ("deeper", {}, (), "its num_layers is 3, the model's 2"),
        ("cosmos", {}, (), "is a CosmosTransformer3DModel, the base's a WanTransformer3DModel"),
        ("less.safetensors", {}, (), "it has no "),
        ("strange.safetensors", {}, (), "none of its 2 weights, such as down.0.*fits a layer"),
        ("nothing.safetensors", {}, (), "these are the base's own weights"),
        ("base", {}, (), "these are the base's own weights"),
        ("no.safetensors", {}, (), "does not exist"),
        ("two", {}, (), "2 files of weights, a.safetensors, b.safetensors; name one"),
        ("empty", {}, (), "and no weights"),
        ("whole.safetensors", {}, ("--strength", "2"), "is a whole student, no LoRA"),
        ("lora.safetensors", {}, ("--strength", "0"), "fuses no LoRA"),
        ("lora.safetensors", {}, ("--block-frames", "3"), "--card says the blocks"),
        ("lora.safetensors", {"bases": ["nobody/knows"]}, (), "nothing is known here of its base"),
        ("whole.safetensors", {"bases": ["toy-t2v"]}, (), "is another model: its "),
        ("lora.safetensors", {"cfg": 3.0}, (), "cfg is 3, but a student is sampled without"),
    ],
)
def test_the_rest_is_refused_in_one_line(base, places, tmp_path, source, changes, more, words):
    path = base if source == "base" else places / source
    card = card_file(tmp_path, base, **changes)
    line = ["import-student", path, "--card", card, "--model", base, "--out", tmp_path / "run"]
    done = CliRunner().invoke(app, [*map(str, line), *more])
    errors = [text for text in done.output.splitlines() if text.startswith("error: ")]
    assert done.exit_code == 2 and len(errors) == 1, done.output
    assert re.search(words, errors[0]), errors[0]
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_causal_card_is_refused_for_a_family_without_causal_students(places, tmp_path):
    card = card_file(tmp_path, places / "cosmos", family="cosmos", block_frames=1)
    with pytest.raises(UserError, match="the family cosmos has none here"):
        import_published(places / "cosmos", card, str(places / "cosmos"), tmp_path / "run")


def test_the_schedule_that_a_student_has_itself_must_be_the_cards(base, places, tmp_path):
    first = card_file(tmp_path, base, "first")
    run = import_published(places / "lora.safetensors", first, str(base), tmp_path / "run")
    again = import_published(run.student, first, str(base), tmp_path / "again")
    assert again.info["student_sha256"] == run.info["student_sha256"]
    for changes in ({"times": [1.0, 0.5, 0.25]}, {"sampler": "sde"}, {"times": [1.0, 0.6]}):
        other = card_file(tmp_path, base, "second", **changes)
        with pytest.raises(UserError, match=r"its scheduler samples at .* by ode, the"):
            import_published(run.student, other, str(base), tmp_path / "other")


def test_the_command_tells_the_difference_and_what_did_not_fit(base, family, tmp_path):
    layers = diffusers_lora(pairs(family.new_module()))
    odd = {f"blocks.{i}.cross_attn.k_img.diff_b": torch.ones(2) for i in range(30)}
    path = written(tmp_path / "lora.safetensors", layers | odd)
    words = ["import-student", path, "--card", card_file(tmp_path, base, unverified="its licence")]
    words += ["--model", base, "--out", tmp_path / "run", "--strength", "0.25", "--json"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)["imported"]
    assert said["unmatched"] == 30 and said["relative_difference"] > 0
    lines = done.stderr.splitlines()
    assert any(line.startswith("difference to the base: ") for line in lines)
    assert "not verified: its licence" in lines
    told = [line for line in lines if line.startswith("fits no layer: ")]
    assert 0 < len(told) < 30 and any("30 in all; see run.json" in line for line in lines)


def test_a_run_is_not_made_twice(base, places, tmp_path):
    card = card_file(tmp_path, base)
    import_published(places / "whole.safetensors", card, str(base), tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run; choose another --out"):
        import_published(places / "whole.safetensors", card, str(base), tmp_path / "run")
