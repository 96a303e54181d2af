"""Students of other programs: what is read, and the one line for everything else."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from self_forcing_files import original

from dfdbench.models.causal import Layout
from dfdbench.models.wan import Wan
from dfdbench.models.wan_causal_import import read_self_forcing, read_student
from dfdbench.toy.checkpoint import TINY, build_transformer, write_checkpoint
from dfdbench.utils.errors import UserError

CAUSAL = Wan.causal


def bidirectional():
    return build_transformer(TINY).requires_grad_(False)


# --- Self Forcing's checkpoints


def other(module):
    """Another network of the same sizes."""
    changed = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn_like(parameter))
    return changed


def renamed(weights, change):
    return {change(name): value for name, value in weights.items()}


def wrapped(word):
    return lambda name: name.replace("model.", f"model.{word}.").replace("attn.", f"attn.{word}.")


WRAPPINGS = {  # what is around the weights of two students -> how it is written
    "generator": lambda last, average: {"generator": last, "critic": {"x": last}},
    "generator_ema": lambda last, average: {"generator": last, "generator_ema": average},
    "fsdp": lambda _, average: {
        "generator_ema": renamed(average, wrapped("_fsdp_wrapped_module"))
    },
    "checkpointed": lambda last, average: {
        "generator": renamed(last, wrapped("_checkpoint_wrapped_module"))
    },
    "compiled": lambda last, _: {"generator": renamed(last, lambda name: f"_orig_mod.{name}")},
    "model": lambda last, average: {"model": last, "step": 600},
    "bare": lambda last, average: last,
    "unprefixed": lambda last, average: renamed(last, lambda name: name.removeprefix("model.")),
    "comfy": lambda last, average: renamed(
        last, lambda name: f"model.diffusion_model.{name.removeprefix('model.')}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_student_comes_in_whole_whatever_is_around_it(tiny_family, tmp_path, wrapping, suffix):
    last, average = other(bidirectional()), other(bidirectional())
    content = WRAPPINGS[wrapping](original(last), original(average))
    file = tmp_path / f"student{suffix}"
    if suffix == ".pt":
        torch.save(content, file)
    else:
        flat = {
            f"{key}.{name}": value
            for key, part in content.items() if isinstance(part, dict)
            for name, value in part.items() if isinstance(value, torch.Tensor)
        } or content  # fmt: skip
        save_file({name: value.clone() for name, value in flat.items()}, file)
    module = read_self_forcing(file, tiny_family)
    assert CAUSAL.layout(module) == Layout(3)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    expected = average if wrapping in ("generator_ema", "fsdp") else last
    for name, value in expected.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name


def test_an_imported_student_is_saved_and_loaded_as_it_was(tiny_family, tmp_path):
    torch.save({"generator": original(other(bidirectional()))}, tmp_path / "last.pt")
    module = read_self_forcing(tmp_path / "last.pt", tiny_family)
    tiny_family.save_student(module, tmp_path / "student")
    again = tiny_family.load_student(tmp_path / "student").state_dict()
    assert all(torch.equal(again[name], value) for name, value in module.state_dict().items())


def test_a_file_by_diffusers_names_and_one_without_a_zip_are_read_too(tiny_family, tmp_path):
    module = other(bidirectional())
    save_file(module.state_dict(), tmp_path / "diffusers.safetensors")
    torch.save(
        {"generator": original(module)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False
    )
    for name in ("diffusers.safetensors", "old.pt"):
        weights = read_self_forcing(tmp_path / name, tiny_family).state_dict()
        assert all(torch.equal(weights[key], value) for key, value in module.state_dict().items())


def test_half_precision_weights_of_a_checkpoint_become_float32(tiny_family, tmp_path):
    weights = {name: value.bfloat16() for name, value in original(bidirectional()).items()}
    torch.save({"generator": weights}, tmp_path / "half.pt")
    module = read_self_forcing(tmp_path / "half.pt", tiny_family, Layout(1))
    assert CAUSAL.layout(module) == Layout(1)
    assert module.proj_out.weight.dtype == torch.float32
    assert torch.equal(module.proj_out.weight, weights["model.head.head.weight"].float())


class Code:
    """What no file of weights may hold."""


def without_one(weights):
    del weights["model.head.head.bias"]
    return {"generator": weights}


LORA = {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(1, 1)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda w: {"generator": Code()}, "cannot be read as plain tensors .*names code"),
        (lambda w: {"critic": w}, "no state dict under generator_ema or generator"),
        (lambda w: w["model.head.head.bias"], "no state dict under"),
        (lambda w: [w], "no state dict under"),
        (lambda w: {}, "no state dict under"),
        (lambda w: {"down.0.weight": torch.zeros(2), "up.0.weight": torch.zeros(2)}, "no Wan"),
        (lambda w: {"generator": {"model.head.head.bias": "text"}}, "is no weight of a Wan"),
        (lambda w: {"generator": {"head.head.bias": torch.zeros(2)}}, r"it has no .*and \d+ more"),
        (lambda w: LORA, r"is a LoRA .*lora_A.* merge it into its base"),
        (without_one, r"it has no proj_out.bias; give"),
        (lambda w: {"generator": w | {"model.extra.weight": torch.zeros(1)}}, "extra.weight"),
        (
            lambda w: {"generator": w | {"model.img_emb.proj.0.weight": torch.zeros(1)}},
            "which the model has not",
        ),
        (
            lambda w: {"generator": w | {"model.head.head.bias": torch.zeros(3)}},
            r"proj_out.bias is \[3\], the model's is",
        ),
        (lambda w: {"generator": {name: value / 0 for name, value in w.items()}}, "NaN"),
        (
            lambda w: {"generator": w | {"model.head.head.bias": torch.zeros(2).long()}},
            "is no weight of a Wan",
        ),
    ],
)  # fmt: skip
def test_anything_else_is_one_line_that_names_the_file(tiny_family, tmp_path, content, words):
    file = tmp_path / "student.pt"
    torch.save(content(original(bidirectional())), file)
    with pytest.raises(UserError, match=words) as caught:
        read_self_forcing(file, tiny_family)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    assert "give" in str(caught.value)


def test_a_file_that_is_none_of_torch_or_is_not_there_is_one_line(tiny_family, tmp_path):
    torch.save({"generator": original(bidirectional())}, tmp_path / "whole.pt")
    save_file(bidirectional().state_dict(), tmp_path / "whole.safetensors")
    for suffix in ("pt", "safetensors"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"empty.{suffix}").write_bytes(b"")
        (tmp_path / f"text.{suffix}").write_text("not weights")
    names = [
        f"{name}.{s}" for name in ("half", "empty", "text", "no") for s in ("pt", "safetensors")
    ]
    for name in names:
        with pytest.raises(UserError, match="cannot be read as plain tensors") as caught:
            read_self_forcing(tmp_path / name, tiny_family)
        assert "\n" not in str(caught.value) and "give" in str(caught.value), name


# --- Students in diffusers folders


def test_a_plain_folder_becomes_causal_and_a_causal_one_stays_as_it_is(tiny_family, tmp_path):
    plain = other(bidirectional())
    tiny_family.save_student(plain, tmp_path / "plain")
    for folder in (tmp_path / "plain", tmp_path / "plain" / "transformer"):
        module = read_student(folder, tiny_family, Layout(1, 3))
        assert CAUSAL.layout(module) == Layout(1, 3)
        for name, value in plain.state_dict().items():
            assert torch.equal(module.state_dict()[name], value)
    assert CAUSAL.layout(read_student(tmp_path / "plain", tiny_family)) == Layout(3)
    folder = tmp_path / "causal"
    causal_module = tiny_family.as_causal(other(bidirectional()), Layout(2, 5, 1))
    tiny_family.save_student(causal_module, folder)
    for layout in (None, causal_module.layout):
        loaded = read_student(folder, tiny_family, layout)
        assert CAUSAL.layout(loaded) == causal_module.layout
        assert torch.equal(loaded.proj_out.weight, causal_module.proj_out.weight)
    with pytest.raises(UserError, match=r"made with Layout\(block_frames=2.*leave out") as caught:
        read_student(folder, tiny_family, Layout(3))
    assert "\n" not in str(caught.value)


def edited(folder, **changes):
    """A folder whose transformer's config is changed."""
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: edited(f, _class_name="CosmosTransformer3DModel"), "a CosmosTransformer3DModel"),
        (lambda f: edited(f, _class_name="SD3Transformer2DModel"), "no Wan text-to-video's"),
        (lambda f: edited(f, num_layers=3), "weights and config.json disagree"),
        (lambda f: (f / "transformer" / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "transformer" / "config.json").unlink(), "no diffusers folder"),
        (lambda f: shutil.rmtree(f / "transformer"), "no diffusers folder"),
        (lambda f: next((f / "transformer").glob("*.safetensors")).unlink(), "cannot be loaded"),
        (lambda f: next((f / "transformer").glob("*.safetensors")).write_bytes(b"x"), "cannot be"),
    ],
)
def test_a_folder_that_is_no_student_of_the_model_is_one_line(tiny_family, tmp_path, spoil, words):
    tiny_family.save_student(bidirectional(), tmp_path / "student")
    spoil(tmp_path / "student")
    with pytest.raises(UserError, match=words) as caught:
        read_student(tmp_path / "student", tiny_family)
    assert str(tmp_path / "student") in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_of_a_model_of_another_size_is_told_apart(tiny_family, tmp_path):
    wider = replace(TINY, layers=3)
    write_checkpoint(tmp_path / "wider", wider, seed=0)
    with pytest.raises(UserError, match="its num_layers is 3, the model's 2; give") as caught:
        read_student(tmp_path / "wider", tiny_family)
    assert "\n" not in str(caught.value)
