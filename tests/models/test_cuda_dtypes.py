"""What CUDA's autocast makes of the networks, on tensors without storage that claim a GPU."""

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from dfdbench.distill.plan.trace import Shape
from dfdbench.models.random_init import random_init_family
from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v

EMBEDDER = {"wan": "condition_embedder.time_embedder", "cosmos": "time_embed.t_embedder"}
HALF, SINGLE = torch.bfloat16, torch.float32


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "wan": write_checkpoint(folder / "t2v", TINY, seed=0),
        "cosmos": write_checkpoint_i2v(folder / "i2v", TINY_I2V, seed=0),
    }


@pytest.fixture
def no_gpu_needed(monkeypatch):
    """torch.autocast("cuda") turns itself off where there is no GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


def to_cuda(module):
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                on = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
                part._parameters[name] = torch.nn.Parameter(on)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device="cuda")


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "teacher"])
@pytest.mark.parametrize("model", EMBEDDER)
def test_attention_is_in_bfloat16_and_the_embedding_of_time_in_float32(
    folders, no_gpu_needed, monkeypatch, model, trained
):
    """Of the teacher all is as the pipeline has it: Cosmos embeds time in bfloat16 there."""
    with random_init_family(str(folders[model]), HALF, "meta") as family:
        module = family.new_module() if trained else family.teacher
        shape = Shape(
            family.latent_shape(17, 64, 64), family.text_shape, family.conditioning_frames
        )
    attention, norms, seen = set(), set(), {}
    sdpa = F.scaled_dot_product_attention

    def noted(query, key, value, **options):
        attention.update((query.dtype, key.dtype, value.dtype))
        return sdpa(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_cuda(module)
        for name, part in module.named_modules():
            if name.endswith((".norm_q", ".norm_k")):
                part.register_forward_hook(
                    lambda m, given, out: norms.add((given[0].dtype, out.dtype))
                )
        embedder = module.get_submodule(EMBEDDER[model])
        embedder.linear_2.register_forward_hook(
            lambda m, given, out: seen.update(time=(given[0].dtype, out.dtype))
        )
        batch = shape.batch(2, "cuda")
        t = torch.full((2,), 0.5, device="cuda")
        with torch.autocast("cuda", dtype=HALF):
            v = family.predict(module, batch.latents, t, batch.conditioning)
    assert v.dtype == SINGLE and v.device.type == "cuda"
    assert attention == {HALF} and norms == {(HALF, HALF)}
    own = HALF if (model, trained) == ("cosmos", False) else SINGLE
    assert seen["time"] == (own, own)


def test_without_autocast_a_trained_network_computes_as_the_libraries_own(folders):
    """The toys train so on a CPU: of Wan no bit may change, of Cosmos the last ones."""
    for model in EMBEDDER:
        with random_init_family(str(folders[model])) as family:
            torch.manual_seed(0)
            module = family.new_module()
            plain = type(module).from_config(module.config)
            plain.load_state_dict(module.state_dict())
            shape = Shape(
                family.latent_shape(17, 64, 64), family.text_shape, family.conditioning_frames
            )
            batch, t = shape.batch(2), torch.tensor([0.3, 0.9])
            with torch.no_grad():
                ours, theirs = (
                    family.predict(m, batch.latents, t, batch.conditioning) for m in (module, plain)
                )
        same = torch.equal if model == "wan" else partial(torch.allclose, rtol=1e-5, atol=1e-6)
        assert same(ours, theirs) and ours.std() > 0
