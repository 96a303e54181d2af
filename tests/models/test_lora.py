"""LoRAs fused into a base: W + s · (α / r) · B A in every layout, and the lines for the rest."""

import json

import pytest
import torch
from public_students import RANK, diffusers_lora, original_stem, pairs, written

from dfdbench.models.lora import Scale, fuse, is_lora, read_scale
from dfdbench.models.wan_names import original_name
from dfdbench.models.weight_files import read_tensors
from dfdbench.utils.errors import UserError

STRENGTH, ALPHA = 0.7, 3.0


def kohya(layers):
    return {
        f"lora_unet_{original_stem(stem).replace('.', '_')}.{end}": value
        for stem, (a, b) in layers.items()
        for end, value in (
            ("lora_down.weight", a), ("lora_up.weight", b), ("alpha", torch.tensor(ALPHA)),
        )
    }  # fmt: skip


LAYOUTS = {  # name -> (file's content, the alpha that it says or is told beside it)
    "diffusers": (diffusers_lora, None),
    "peft": (
        lambda layers: {
            f"base_model.model.{stem}.lora_{half}.default.weight": value
            for stem, both in layers.items()
            for half, value in zip("AB", both, strict=True)
        },
        None,
    ),
    "original": (
        lambda layers: {
            f"diffusion_model.{original_stem(stem)}.lora_{half}.weight": value
            for stem, both in layers.items()
            for half, value in zip(("down", "up"), both, strict=True)
        },
        None,
    ),
    "kohya": (kohya, ALPHA),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_weights_are_the_formula_to_the_bit(tiny_family, tmp_path, layout):
    make, alpha = LAYOUTS[layout]
    module = tiny_family.new_module()
    layers, before = pairs(module), {n: v.clone() for n, v in module.state_dict().items()}
    path = written(tmp_path / "lora.safetensors", make(layers))
    content = read_tensors(path)
    assert is_lora(content)
    done = fuse(path, content, module, tiny_family, STRENGTH, read_scale(path))
    assert sorted(done.changed) == sorted(f"{stem}.weight" for stem in layers)
    assert done.unmatched == []
    scale = STRENGTH * ((RANK if alpha is None else alpha) / RANK)
    for name, value in module.state_dict().items():
        expected = before[name]
        if (stem := name.removesuffix(".weight")) in layers:
            a, b = layers[stem]
            expected = expected + scale * (b @ a)
        assert torch.equal(value, expected), name


def test_diffs_are_added_to_weights_biases_and_modulations(tiny_family, tmp_path):
    module = tiny_family.new_module()
    before = {n: v.clone() for n, v in module.state_dict().items()}
    changes = {
        "blocks.0.attn1.norm_q.weight": "blocks.0.self_attn.norm_q.diff",
        "blocks.0.norm2.weight": "blocks.0.norm3.diff",
        "blocks.1.attn1.to_v.bias": "blocks.1.self_attn.v.diff_b",
        "proj_out.bias": "head.head.diff_b",
        "blocks.0.scale_shift_table": "blocks.0.diff_m",
        "scale_shift_table": "head.diff_m",
        "patch_embedding.weight": "patch_embedding.diff",
    }
    deltas = {name: torch.randn_like(before[name]) for name in changes}
    content = {f"diffusion_model.{new}": deltas[name] for name, new in changes.items()}
    done = fuse(tmp_path, content, module, tiny_family, STRENGTH)
    assert sorted(done.changed) == sorted(changes)
    for name, value in module.state_dict().items():
        expected = before[name] + STRENGTH * deltas[name] if name in deltas else before[name]
        assert torch.equal(value, expected), name


def test_a_convolution_is_fused_as_its_flat_matrix(tiny_family, tmp_path):
    module = tiny_family.new_module()
    weight = module.patch_embedding.weight.clone()
    a, b = torch.randn(RANK, *weight.shape[1:]), torch.randn(weight.shape[0], RANK, 1, 1, 1)
    content = {"patch_embedding.lora_A.weight": a, "patch_embedding.lora_B.weight": b}
    fuse(tmp_path, content, module, tiny_family)
    expected = weight + 1.0 * (b.flatten(1) @ a.flatten(1)).reshape(weight.shape)
    assert torch.equal(module.patch_embedding.weight, expected)


def test_alpha_is_read_beside_the_file_and_in_its_head(tmp_path):
    own = {"transformer.lora_alpha": 8, "transformer.r": 4}
    head = written(
        tmp_path / "head.safetensors",
        {"x.lora_A.weight": torch.zeros(1, 1)},
        {"lora_adapter_metadata": json.dumps(own)},
    )
    assert read_scale(head).alpha_of("x") == 8
    (tmp_path / "peft").mkdir()
    beside = written(tmp_path / "peft" / "adapter_model.safetensors", {"x": torch.zeros(1)})
    config = beside.parent / "adapter_config.json"
    config.write_text(json.dumps({"r": 4, "lora_alpha": 16, "alpha_pattern": {"to_q": 2}}))
    scale = read_scale(beside)
    assert (scale.alpha_of("blocks.0.to_v"), scale.alpha_of("blocks.0.to_q")) == (16, 2)
    assert read_scale(tmp_path / "other.pt").alpha_of("x") is None
    config.write_text(json.dumps({"use_dora": True}))
    with pytest.raises(UserError, match="use_dora is set, which is not fused here"):
        read_scale(beside)


Q = "transformer.blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({f"{Q}.lora_A.weight": torch.zeros(2, 3)}, "without its other half"),
        (
            {f"{Q}.lora_A.weight": torch.zeros(2, 3), f"{Q}.lora_B.weight": torch.zeros(3, 3)},
            "have no rank in common",
        ),
        (
            {f"{Q}.lora_A.weight": torch.zeros(2, 3), f"{Q}.lora_B.weight": torch.zeros(3, 2)},
            r"changes blocks.0.attn1.to_q.weight by \[3, 3\], the base's is",
        ),
        ({f"{Q}.lokr_w1": torch.zeros(2, 2)}, "another kind of adapter than LoRA"),
        ({f"{Q}.dora_scale": torch.zeros(2, 2)}, "another kind of adapter than LoRA"),
        ({f"{Q}.diff": torch.zeros(2, 2).long()}, "is no weight of a LoRA"),
        ({f"{Q}.diff_b": torch.full((2,), float("nan"))}, "NaN"),
        ({"down.0.to_q.diff": torch.zeros(2)}, "none of its 1 weights, such as down.0"),
        (
            {f"{Q}.lora_A.one.weight": torch.zeros(1), f"{Q}.lora_A.two.weight": torch.zeros(1)},
            "keep one adapter",
        ),
    ],
)
def test_what_is_no_lora_of_the_base_is_one_line(tiny_family, tmp_path, content, words):
    with pytest.raises(UserError, match=words) as caught:
        fuse(tmp_path / "l.pt", content, tiny_family.new_module(), tiny_family, 1.0, Scale())
    assert str(caught.value).startswith(f"{tmp_path / 'l.pt'}: ") and "\n" not in str(caught.value)


def test_names_that_fit_no_layer_are_told(tiny_family, tmp_path):
    module = tiny_family.new_module()
    content = diffusers_lora(pairs(module))
    strange = {
        "diffusion_model.img_emb.proj.1.lora_A.weight": torch.zeros(1, 2),
        "diffusion_model.img_emb.proj.1.lora_B.weight": torch.zeros(2, 1),
        "blocks.0.cross_attn.k_img.diff_b": torch.zeros(2),
        "blocks.0.attn1.to_q.set_weight": torch.zeros(2),
    }
    done = fuse(tmp_path, content | strange, module, tiny_family)
    assert done.unmatched == sorted(strange) and len(done.changed) == len(content) // 2


def test_original_names_are_those_of_the_tests_own_table(tiny_family):
    from self_forcing_files import original_name as table

    for name in tiny_family.teacher.state_dict():
        assert f"model.{original_name(name)}" == table(name)
