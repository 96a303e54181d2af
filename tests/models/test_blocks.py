"""How blocks run: the same gradients under every policy, kernel and compilation."""

import copy
import re

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from torch.utils._python_dispatch import TorchDispatchMode

from dfdbench.models import blocks
from dfdbench.models.blocks import check_attention, run_blocks
from dfdbench.toy.checkpoint import TINY, build_transformer
from dfdbench.utils.errors import UserError

CPU = torch.device("cpu")
TOKENS, WORDS = 5 * 4 * 4, 16
COSMOS = {
    "in_channels": 7, "out_channels": 6, "num_attention_heads": 2, "attention_head_dim": 12,
    "num_layers": 2, "mlp_ratio": 2.0, "text_embed_dim": 16, "adaln_lora_dim": 8,
    "extra_pos_embed_type": None, "concat_padding_mask": True,
}  # fmt: skip


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def wan():
    torch.manual_seed(0)
    module = build_transformer(TINY)
    x, text, t = draw(2, 6, 5, 8, 8), draw(2, WORDS, 64), torch.tensor([300.0, 900.0])
    return module, module.blocks, lambda m: m(x, t, text, return_dict=False)[0]


def cosmos():
    torch.manual_seed(0)
    module = CosmosTransformer3DModel(**COSMOS)
    x, text = draw(2, 6, 5, 8, 8), draw(2, WORDS, 16)
    t = torch.rand(2, 1, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    mask, padding = torch.zeros(2, 1, 5, 8, 8), torch.zeros(1, 1, 8, 8)
    call = lambda m: m(x, t, text, condition_mask=mask, padding_mask=padding,  # noqa: E731
                       return_dict=False)[0]  # fmt: skip
    return module, module.transformer_blocks, call


MODELS = {"wan": wan, "cosmos": cosmos}


class Attentions(TorchDispatchMode):
    """Counts fused attention by its number of keys, forward passes alone."""

    def __init__(self):
        super().__init__()
        self.keys = {TOKENS: 0, WORDS: 0}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in blocks.ATTENTION_OPS:
            self.keys[args[1].shape[-2]] += 1
        return func(*args, **(kwargs or {}))


def gradients(module, call):
    module.zero_grad(set_to_none=True)
    (call(module) ** 2).sum().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = (ours[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert difference < 1e-6, name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("policy", "again", "words_again"),
    [("none", 0, 0), ("full", 1, 1), ("save_attention", 0, 1)],
)
def test_a_policy_changes_what_is_computed_again_and_no_gradient(model, policy, again, words_again):
    module, stack, call = MODELS[model]()
    expected = gradients(module, call)
    run_blocks(stack, checkpointing=policy)
    with Attentions() as seen:
        ours = gradients(module, call)
    assert_same(ours, expected)
    assert seen.keys == {TOKENS: 2 * (1 + again), WORDS: 2 * (1 + words_again)}
    with Attentions() as seen, torch.no_grad():
        call(module)
    assert seen.keys == {TOKENS: 2, WORDS: 2}, "without gradients there is nothing to keep"


def test_less_is_kept_under_each_policy():
    kept = {}
    for policy in ("none", "save_attention", "full"):
        module, stack, call = wan()
        run_blocks(stack, checkpointing=policy)
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.update({x.untyped_storage()._cdata: x.nbytes}), x)[1],
            lambda x: x,
        ):
            call(module)
        kept[policy] = sum(sizes.values())
    assert kept["full"] < kept["none"] / 2


@pytest.mark.parametrize(("kernel", "fused"), [("flash", 2), ("math", 0)])
def test_the_kernel_is_the_one_asked_for_in_both_passes(kernel, fused):
    module, stack, call = wan()
    expected = gradients(module, call)
    run_blocks(stack, attention=kernel, checkpointing="full")
    with Attentions() as seen:
        ours = gradients(module, call)
    assert seen.keys[TOKENS] == 2 * fused
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5)


def test_by_default_blocks_run_as_their_class_says_whatever_was_before():
    module, stack, call = wan()
    run_blocks(stack, checkpointing="full")
    run_blocks(stack)
    with Attentions() as seen:
        gradients(module, call)
    assert seen.keys == {TOKENS: 2, WORDS: 2} and "forward" not in vars(stack[0])


def test_a_copy_of_a_network_runs_its_own_blocks():
    module, stack, call = wan()
    run_blocks(stack, checkpointing="full")
    other = copy.deepcopy(module)
    with torch.no_grad():
        before = call(module)
        for parameter in other.blocks.parameters():
            parameter.zero_()
        assert torch.equal(call(module), before) and not torch.equal(call(other), before)


@pytest.fixture
def compiled(monkeypatch):
    """torch.compile without its code generator, which would take minutes."""
    torch._dynamo.reset()
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, mode=None: real(f, backend="aot_eager", fullgraph=True)
    )
    torch._dynamo.utils.counters.clear()
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize("policy", ["none", "save_attention"])
def test_compiled_blocks_share_their_code_and_keep_gradients_and_taps(
    compiled, policy, tiny_family
):
    """Hooks that are set after compiling are seen: a GAN's taps are such hooks."""
    module, call = tiny_family.new_module(), wan()[2]
    tapped = lambda: gradients(module, lambda m: tap(m).float())  # noqa: E731

    def tap(m):
        hidden = []
        handle = m.blocks[0].register_forward_hook(lambda *given: hidden.append(given[-1]))
        call(m)
        handle.remove()
        return hidden[0]

    expected, through = gradients(module, call), tapped()
    run_blocks(module.blocks, checkpointing=policy, compiled=True)
    assert_same(gradients(module, call), expected)
    assert compiled() == 1, "one graph for all blocks"
    assert_same(tapped(), through)


def test_a_kernel_that_does_not_run_here_is_one_line_with_those_that_do():
    check_attention("flash", CPU, torch.float32, 16)
    for name in ("cudnn", "efficient", "fa3"):
        with pytest.raises(UserError) as caught:
            check_attention(name, CPU, torch.float32, 16)
        line = str(caught.value)
        assert "\n" not in line and f"'optim.attention' is {name}" in line
        assert re.search(r"on this cpu with float32 heads of 16 .*take one of flash, math$", line)
