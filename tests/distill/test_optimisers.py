"""AdamW with moments in 8 bits: who builds it, what it is told, and a bit-equal resume."""

import sys
from types import ModuleType

import pytest
import torch

from dfdbench.distill import checkpoint
from dfdbench.distill.loop import distill
from dfdbench.distill.optimisers import adamw, check_optimiser
from dfdbench.distill.sections import Optim
from dfdbench.utils.errors import UserError

EIGHT = Optim(optimiser="adamw8bit", betas=(0.8, 0.9), weight_decay=0.5)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.Linear(128, 8))


def test_by_default_it_is_pytorchs_fused_one_with_the_recipes_values():
    optimiser = adamw(Optim(betas=(0.8, 0.9), weight_decay=0.5), [*network().parameters()], 0.25)
    assert type(optimiser) is torch.optim.AdamW
    group = optimiser.param_groups[0]
    assert group["fused"] and (group["lr"], group["betas"]) == (0.25, (0.8, 0.9))
    assert group["weight_decay"] == 0.5


def test_without_the_library_the_run_ends_before_it_begins(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(UserError, match=r"needs torchao; pip install 'dfdbench\[lowmem\]'"):
        distill(tiny_recipe("dmd2", "optim.optimiser=adamw8bit"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_it_gets_the_recipes_values_and_is_for_one_process(monkeypatch):
    library = ModuleType("torchao.optim")
    library.AdamW8bit = lambda groups, **options: (groups, options)
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.optim", library)
    check_optimiser(EIGHT, 1)
    built = adamw(EIGHT, [3], 0.25)
    assert built == ([3], {"lr": 0.25, "betas": (0.8, 0.9), "weight_decay": 0.5})
    with pytest.raises(UserError, match="for one GPU; with 2 the moments are cut"):
        check_optimiser(EIGHT, 2)
    check_optimiser(Optim(), 2)


def test_a_resume_with_8_bits_is_bit_equal_and_its_moments_are_small(tmp_path):
    pytest.importorskip("torchao", reason="pip install 'dfdbench[lowmem]'")
    torch.compiler.set_stance("force_eager")  # its own kernels would take minutes to compile
    try:
        nets = [network() for _ in range(2)]
        steppers = [adamw(EIGHT, [*net.parameters()], 1e-2) for net in nets]

        def train(which, steps):
            for i in steps:
                x = torch.randn(4, 128, generator=torch.Generator().manual_seed(i))
                (nets[which](x) ** 2).mean().backward()
                steppers[which].step()
                steppers[which].zero_grad()

        def parts(which):
            return {"student": nets[which]}, {"student": steppers[which]}

        train(0, range(3))
        made = checkpoint.save(tmp_path, checkpoint.Position(3), *parts(0), keep=1)
        train(0, range(3, 5))
        checkpoint.restore(tmp_path, *parts(1), torch.device("cpu"))
        train(1, range(3, 5))
        assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
        size = sum(file.stat().st_size for file in made.glob("*.safetensors"))
        weights = 4 * sum(p.numel() for p in nets[0].parameters())
        assert size < 2 * weights, "weights in float32 and less than as much again"
    finally:
        torch.compiler.set_stance("default")
