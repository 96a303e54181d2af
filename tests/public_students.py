"""Cards and LoRAs of made-up public students of the tiny checkpoint."""

import json

import torch
from safetensors.torch import save_file
from self_forcing_files import original_name

RANK, TIMES = 2, [1.0, 0.6, 0.25]


def card_file(folder, base, name="mine", **changes):
    """A card of a student of `base`; a change to None leaves the key out."""
    values = {
        "about": "a student of a test",
        "family": "wan",
        "bases": [str(base)],
        "times": TIMES,
        "sampler": "ode",
        "cfg": 1.0,
        **changes,
    }
    path = folder / f"{name}.toml"
    lines = [f"{key} = {json.dumps(v)}" for key, v in values.items() if v is not None]
    path.write_text("\n".join(lines) + "\n")
    return path


def stems(module):
    """Names of the linear layers of a few kinds, in the first block and outside of the blocks."""
    return [
        "blocks.0.attn1.to_q",
        "blocks.0.attn2.to_out.0",
        "blocks.1.ffn.net.0.proj",
        "condition_embedder.time_embedder.linear_1",
        "proj_out",
    ]


def pairs(module, rank=RANK):
    """Layer -> random (A, B) of a LoRA."""
    generator = torch.Generator().manual_seed(7)
    result = {}
    for stem in stems(module):
        wide = module.get_submodule(stem).weight.shape
        a = torch.randn(rank, wide[1], generator=generator)
        result[stem] = (a, torch.randn(wide[0], rank, generator=generator) / 10)
    return result


def original_stem(stem):
    return original_name(f"{stem}.weight").removeprefix("model.").removesuffix(".weight")


def written(path, content, metadata=None):
    save_file({name: value.contiguous() for name, value in content.items()}, path, metadata)
    return path


def diffusers_lora(layers):
    """By the names that diffusers' pipelines save."""
    return {
        f"transformer.{stem}.lora_{half}.weight": value
        for stem, both in layers.items()
        for half, value in zip("AB", both, strict=True)
    }
