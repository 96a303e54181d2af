"""Blocks as recipes say: resumed, cut among processes, compiled."""

import pytest
import torch
from safetensors.torch import load_file
from two_processes import on_two

from dfdbench.distill import parallel
from dfdbench.distill.loop import Trainer, distill
from dfdbench.models.blocks import run_blocks
from dfdbench.models.registry import load_family
from dfdbench.utils.errors import UserError

POLICIES = ("none", "full", "save_attention")


def weights(run):
    return load_file(run.student / "transformer" / "diffusion_pytorch_model.safetensors")


def test_every_policy_trains_the_same_and_a_resume_may_take_another(
    tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))

    def recipe(policy):
        return tiny_recipe(
            "dmd2", "schedule.student_updates=2", "checkpoint.every_updates=1",
            "log.probe_every=0", f"optim.checkpointing={policy}", "optim.attention=flash",
        )  # fmt: skip

    runs = [distill(recipe(policy), tmp_path / policy, device="cpu") for policy in POLICIES]
    cycle = Trainer.cycle
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, "cycle", lambda self, n: cycle(self, n) if n < 2 else pytest.fail("stop")
        )
        with pytest.raises(pytest.fail.Exception):
            distill(recipe("save_attention"), tmp_path / "cut", device="cpu")
    runs.append(distill(recipe("full"), tmp_path / "cut", resume=True, device="cpu"))
    first, *others = map(weights, runs)
    for other in others:
        assert all(torch.equal(first[name], weight) for name, weight in other.items())


def test_a_kernel_that_this_device_lacks_ends_the_run_before_it_begins(tiny_recipe, tmp_path):
    with pytest.raises(UserError, match=r"'optim\.attention' is cudnn, which does not run on this"):
        distill(tiny_recipe("dmd2", "optim.attention=cudnn"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def gradients(family, module):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *family.latent_shape(17, 64, 64), generator=g)
    text = torch.randn(2, 16, 64, generator=g)
    t = torch.tensor([900.0, 300.0])
    (v,) = module(hidden_states=x, timestep=t, encoder_hidden_states=text, return_dict=False)
    (v**2).mean().backward()
    return [parallel.local(p.grad) for p in module.parameters()]


def compare_cut_and_compiled(rank, model):
    real, graphs = torch.compile, torch._dynamo.utils.counters["stats"]
    torch.compile = lambda f, mode=None: real(f, backend="aot_eager", fullgraph=True)
    family = load_family(model)
    expected = gradients(family, family.new_module())
    with parallel.joined("cpu") as group:
        for policy in POLICIES:
            torch._dynamo.reset()
            graphs.clear()
            module = family.new_module()
            parallel.shard(module, family.blocks(module), group)
            run_blocks(family.blocks(module), checkpointing=policy, compiled=True)
            ours = gradients(family, module)
            for a, b in zip(ours, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
            assert graphs["unique_graphs"] == 1, "all blocks share their code, whole"


def test_blocks_cut_among_two_processes_are_compiled_whole(tiny_checkpoint, tmp_path):
    done = on_two(tmp_path, compare_cut_and_compiled, tiny_checkpoint)
    assert done.codes == [0, 0], done.text
