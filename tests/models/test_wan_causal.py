import json

import diffusers
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanRotaryPosEmbed

from dfdbench.models.causal import Cache, Layout
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import student_times
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import predictor, sample_blocks, sample_student
from dfdbench.models.wan import Wan
from dfdbench.models.wan_causal import CausalWanTransformer3DModel, Pass
from dfdbench.toy.checkpoint import TINY, build_transformer, write_checkpoint
from dfdbench.utils.errors import UserError

CAUSAL = Wan.causal
LAYOUTS = [  # with the number of latent frames of the clip
    (Layout(3), 7),
    (Layout(1), 4),
    (Layout(2, window_frames=4), 9),
    (Layout(2, window_frames=5, sink_frames=1), 9),
]


def bidirectional() -> WanTransformer3DModel:
    torch.manual_seed(0)
    module = build_transformer(TINY)
    for name, parameter in module.named_parameters():
        if "proj_out" in name:  # starts near zero, which would hide what comes before it
            torch.nn.init.normal_(parameter, std=0.3)
    return module.requires_grad_(False)


def causal(layout: Layout) -> CausalWanTransformer3DModel:
    return CAUSAL.variant_of(bidirectional(), layout)


def clip(frames: int, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, TINY.latent_channels, frames, 4, 4, generator=g)


TEXT = Conditioning(torch.randn(2, 5, TINY.text_dim, generator=torch.Generator().manual_seed(2)))
T = torch.tensor([0.3, 0.9])


def whole(module, x, t):
    """v̂ of all blocks in one pass, as a family predicts."""
    text = TEXT.prompt_embeds
    return module(x, 1000 * t, text, return_dict=False)[0]


def caches(module, clean):
    """The cache before each block of a clean clip, and the one after the last."""
    past = [None]
    for block in module.layout.blocks(clean.shape[2]):
        past.append(CAUSAL.remember(module, clean[:, :, block.start : block.stop], TEXT, past[-1]))
    return past


def by_blocks(module, x, t, clean):
    """v̂ of the blocks of x, each after the cache of the clean blocks before it."""
    blocks = module.layout.blocks(x.shape[2])
    return torch.cat(
        [
            CAUSAL.predict(module, x[:, :, block.start : block.stop], t, TEXT, past)
            for block, past in zip(blocks, caches(module, clean), strict=False)
        ],
        2,
    )


def allowed(layout: Layout, frames: int) -> torch.Tensor:
    """Who may look at whom (T T), written down anew: block by block, window and sinks."""
    n, rest = layout.block_frames, frames % layout.block_frames
    number = [max(frame - rest, 0) // n for frame in range(frames)]
    last = [max(j for j in range(frames) if number[j] == number[i]) for i in range(frames)]
    mask = torch.zeros(frames, frames, dtype=torch.bool)
    for i in range(frames):
        for j in range(frames):
            recent = last[i] - j < layout.window_frames - layout.sink_frames
            near = not layout.window_frames or recent or j < layout.sink_frames
            mask[i, j] = number[j] == number[i] or (number[j] < number[i] and near)
    return mask


# --- What a block sees


def test_one_block_that_spans_the_clip_is_the_bidirectional_network():
    x = clip(5)
    expected = bidirectional()(x, 1000 * T, TEXT.prompt_embeds, return_dict=False)[0]
    torch.testing.assert_close(whole(causal(Layout(5)), x, T), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        CAUSAL.predict(causal(Layout(5)), x, T, TEXT, None), expected, atol=1e-5, rtol=1e-5
    )
    assert (whole(causal(Layout(2)), x, T) - expected).abs().max() > 0.01


@pytest.mark.parametrize(("layout", "frames"), LAYOUTS)
def test_one_pass_is_the_bidirectional_network_under_a_mask(layout, frames):
    tokens = 2 * 2
    mask = allowed(layout, frames).repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    plain, inner = bidirectional(), WanAttnProcessor()
    for block in plain.blocks:
        block.attn1.processor = lambda attn, hidden, _text, _mask, rotary: inner(
            attn, hidden, None, mask, rotary
        )
    x = clip(frames)
    torch.testing.assert_close(
        whole(causal(layout), x, T), whole(plain, x, T), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("layout", "frames"), LAYOUTS)
def test_a_cache_gives_what_one_pass_gives(layout, frames):
    module, x, clean = causal(layout), clip(frames), clip(frames, seed=3)
    zero = torch.zeros(2)
    torch.testing.assert_close(
        by_blocks(module, clean, zero, clean), whole(module, clean, zero), atol=1e-5, rtol=1e-5
    )
    forced = CAUSAL.predict(module, x, T, TEXT, clean)
    torch.testing.assert_close(by_blocks(module, x, T, clean), forced, atol=1e-5, rtol=1e-5)


def test_later_frames_never_reach_earlier_blocks_and_earlier_ones_reach_later():
    module, x = causal(Layout(2)), clip(6)
    before = whole(module, x, T)
    for changed in range(6):
        y = x.clone()
        y[:, :, changed] += 1
        same = [torch.equal(before[:, :, i], whole(module, y, T)[:, :, i]) for i in range(6)]
        first = changed // 2 * 2
        assert same == [True] * first + [False] * (6 - first)


def test_teacher_forcing_sees_clean_frames_of_earlier_blocks_and_noised_ones_of_its_own():
    module, x, clean = causal(Layout(2)), clip(6), clip(6, seed=3)
    before = CAUSAL.predict(module, x, T, TEXT, clean)

    def changed(x, clean):
        after = CAUSAL.predict(module, x, T, TEXT, clean)
        return [not torch.equal(before[:, :, i], after[:, :, i]) for i in range(6)]

    noised, context = x.clone(), clean.clone()
    noised[:, :, 2] += 1
    context[:, :, 2] += 1
    assert changed(noised, clean) == [False, False, True, True, False, False]
    assert changed(x, context) == [False, False, False, False, True, True]


def test_each_frame_has_a_time_of_its_own():
    module, x = causal(Layout(2)), clip(4)
    same = T[:, None].expand(2, 4)
    torch.testing.assert_close(whole(module, x, same), whole(module, x, T))
    later = same.clone()
    later[:, 2:] = 0.5
    ours, before = whole(module, x, later), whole(module, x, T)
    assert torch.equal(ours[:, :, :2], before[:, :, :2])
    halves = whole(module, x, torch.stack([torch.full((4,), 0.5), later[1]]))
    assert torch.equal(halves[1], ours[1]) and not torch.equal(halves[0], ours[0])


def test_a_remainder_of_frames_joins_the_first_block():
    assert Layout(3).blocks(8) == [range(5), range(5, 8)]
    assert Layout(3).blocks(21) == [range(i, i + 3) for i in range(0, 21, 3)]
    assert Layout(3).blocks(3) == [range(3)]
    module, x = causal(Layout(3)), clip(8)
    y = x.clone()
    y[:, :, 4] += 1
    assert not torch.equal(whole(module, x, T)[:, :, 0], whole(module, y, T)[:, :, 0])


# --- Cache, window and sinks


def test_a_rolling_cache_holds_the_window_and_the_sinks_alone_however_long_the_rollout():
    layout = Layout(2, window_frames=5, sink_frames=1)
    module, past = causal(layout), None
    held, kept = [], []
    for step in range(12):
        past = CAUSAL.remember(module, clip(2, seed=step), TEXT, past)
        tensors = [x for layer in past.layers for pair in layer for x in pair]
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors}
        held.append(sum(storage.nbytes() for storage in storages.values()))
        kept.append(past.frames)
    assert past.start == 24 and kept[-1] == (0, 21, 22, 23)
    assert len(set(held[3:])) == 1, "memory does not grow with length"
    assert held[3] < 2 * len(past.layers) * 2 * 2 * 4 * 7 * 32 * 4, "k, v, B, blocks, N, frames, D"


def test_what_fell_out_of_the_window_and_is_no_sink_has_no_influence():
    layout = Layout(2, window_frames=5, sink_frames=1)
    module, x = causal(layout), clip(2, seed=9)

    def after(changed):
        clean = clip(8)
        if changed is not None:
            clean[:, :, changed] += 1
        # Only the direct way counts: a kept frame has seen those before it.
        past = caches(module, clean)[-1]
        untouched = caches(module, clip(8))[-1]
        frames = tuple(
            tuple(a[i] if f == changed else b[i] for i, f in enumerate(past.frames))
            for a, b in zip(past.layers, untouched.layers, strict=True)
        )
        return CAUSAL.predict(module, x, T, TEXT, Cache(8, past.frames, frames))

    # The block 8, 9 sees itself, two frames before it and the sink.
    influence = [not torch.equal(after(None), after(frame)) for frame in range(8)]
    assert influence == [True, False, False, False, False, False, True, True]


def test_remembering_leaves_the_cache_before_as_it_was():
    module = causal(Layout(2, window_frames=4))
    past = CAUSAL.remember(module, clip(2), TEXT, None)
    values = [x.clone() for layer in past.layers for pair in layer for x in pair]
    CAUSAL.remember(module, clip(2, seed=5), TEXT, CAUSAL.remember(module, clip(2), TEXT, past))
    now = [x for layer in past.layers for pair in layer for x in pair]
    assert past.start == 2 and all(torch.equal(a, b) for a, b in zip(values, now, strict=True))


def test_the_cache_is_written_without_gradient_at_time_zero():
    module = causal(Layout(2)).requires_grad_(True)
    times = []
    module.register_forward_pre_hook(lambda _module, args: times.append(args[1]))
    clean = clip(2).requires_grad_()
    past = CAUSAL.remember(module, clean, TEXT, None)
    assert [t.tolist() for t in times] == [[0.0, 0.0]]
    assert not any(x.requires_grad for layer in past.layers for pair in layer for x in pair)


def test_rotary_positions_go_on_from_the_start_frame():
    module = causal(Layout(2))
    whole_clip = WanRotaryPosEmbed(TINY.head_dim, (1, 2, 2), 1024)(torch.empty(1, 1, 6, 8, 4))
    for start in (0, 2, 4):
        module.rope.current = Pass([start, start + 1], [])
        ours = module.rope(torch.empty(2, 1, 1, 8, 4)).rotary
        tokens = slice(8 * start, 8 * (start + 2))
        for mine, theirs in zip(ours, whole_clip, strict=True):
            assert torch.equal(mine, theirs[0, tokens, 0])


def test_gradient_checkpointing_meets_the_cache_of_its_own_block():
    def gradients(save_memory):
        module = causal(Layout(2, window_frames=4)).requires_grad_(True).train()
        if save_memory:
            module.enable_gradient_checkpointing()
        past, out = None, []
        for step in range(4):  # the cache rolls on before anything is computed again
            out.append(CAUSAL.predict(module, clip(2, seed=step), T, TEXT, past))
            past = CAUSAL.remember(module, clip(2, seed=step), TEXT, past)
        torch.cat(out, 2).square().mean().backward()
        return {name: p.grad for name, p in module.named_parameters()}

    plain, saving = gradients(False), gradients(True)
    assert plain.keys() == saving.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient)


# --- Sampling


@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_a_causal_student_of_one_block_samples_as_a_bidirectional_one(tiny_family, sampler):
    times, noise = student_times(3, 5.0), clip(4, seed=7)

    def fresh(step):
        return clip(4, seed=20 + step)

    def sampled(layout):
        module = causal(layout).eval()
        found = sample_blocks(tiny_family, module, TEXT, noise, times, sampler, fresh)
        return list(found)

    plain = predictor(tiny_family, bidirectional(), TEXT)
    expected = sample_student(plain, noise, times, sampler, fresh)
    (whole_clip,) = sampled(Layout(4))
    torch.testing.assert_close(whole_clip, expected, atol=1e-4, rtol=1e-4)
    blocks = sampled(Layout(1))
    assert [block.shape[2] for block in blocks] == [1, 1, 1, 1]
    assert (torch.cat(blocks, 2) - expected).abs().max() > 0.01


def test_a_block_is_sampled_after_the_blocks_that_came_out_before_it(tiny_family):
    times, noise, module = student_times(2, 5.0), clip(4), causal(Layout(2))
    first, second = sample_blocks(tiny_family, module, TEXT, noise, times)
    past = CAUSAL.remember(module, first, TEXT, None)
    expected = sample_student(
        lambda x_t, t: CAUSAL.predict(module, x_t, t, TEXT, past), noise[:, :, 2:], times
    )
    assert torch.equal(second, expected)


def test_a_bidirectional_student_is_not_sampled_block_by_block(tiny_family):
    with pytest.raises(UserError, match="the network is bidirectional"):
        next(sample_blocks(tiny_family, bidirectional(), TEXT, clip(4), student_times(2, 5.0)))


# --- Folders


@pytest.fixture(scope="module")
def student(tiny_checkpoint, tmp_path_factory):
    """A causal student's folder, its family and its module."""
    family = load_family(tiny_checkpoint)
    module = family.new_causal_module(Layout(2, window_frames=5, sink_frames=1))
    with torch.no_grad():
        module.proj_out.weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("causal") / "student"
    family.save_student(module, folder)
    return folder, family, module


def test_a_plain_wan_folder_gives_a_trainable_causal_copy(tiny_checkpoint, student):
    _, family, module = student
    expected = load_family(tiny_checkpoint).teacher.state_dict()
    ours = family.new_causal_module(Layout(2)).state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    assert not any(p.is_meta for p in [*module.parameters(), *module.buffers()])


def test_a_saved_causal_student_says_what_is_causal_and_loads_as_it_was(student):
    folder, family, module = student
    config = json.loads((folder / "transformer" / "config.json").read_text())
    causal = {key: config[key] for key in ("block_frames", "window_frames", "sink_frames")}
    assert causal == {"block_frames": 2, "window_frames": 5, "sink_frames": 1}
    for loaded in (family.load_student(folder), load_family(folder).teacher):
        assert CAUSAL.layout(loaded) == module.layout
        for name, value in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)
        x = torch.randn(1, TINY.latent_channels, 5, 8, 8)
        text = Conditioning(torch.randn(1, 4, TINY.text_dim))
        with torch.no_grad():
            expected = family.predict(module, x, T[:1], text)
            torch.testing.assert_close(family.predict(loaded, x, T[:1], text), expected)
    assert load_family(folder).text_shape == family.text_shape


def test_the_plain_pipeline_does_not_take_a_causal_student_for_a_bidirectional_one(student):
    with pytest.raises(ValueError, match="CausalWanTransformer3DModel"):
        diffusers.WanPipeline.from_pretrained(student[0])


def test_a_bidirectional_student_is_still_saved_as_one(tiny_family, tmp_path):
    tiny_family.save_student(tiny_family.new_module(), tmp_path / "student")
    index = json.loads((tmp_path / "student" / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "WanTransformer3DModel"]


# --- What cannot be


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Layout(3).blocks(2), "2 latent frames does not fill a block of 3"),
        (lambda: Layout(0), "block_frames must be at least 1"),
        (lambda: Layout(3, window_frames=4, sink_frames=2), "set window_frames to 5 or more"),
        (lambda: Layout(3, window_frames=4).blocks(8), "set window_frames to 5 or more"),
        (lambda: Layout(3, sink_frames=1), "set window_frames"),
        (lambda: whole(causal(Layout(3)), clip(2), T), "does not fill a block"),
        (lambda: CAUSAL.predict(bidirectional(), clip(3), T, TEXT, None), "is bidirectional"),
        (lambda: CAUSAL.remember(bidirectional(), clip(3), TEXT, None), "is bidirectional"),
        (
            lambda: CAUSAL.predict(
                causal(Layout(3, 3)), clip(3), T, TEXT, Cache.empty(2)._replace(start=1023)
            ),
            "1026 latent frames is longer than the rotary embedding reaches",
        ),
    ],
)
def test_what_cannot_be_rolled_out_is_one_line_with_the_remedy(make, words):
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_family_without_a_causal_variant_says_so(tiny_family, monkeypatch):
    monkeypatch.setattr(type(tiny_family), "causal", None)
    with pytest.raises(UserError, match="family wan has no causal variant; leave out"):
        tiny_family.new_causal_module(Layout(3))


def test_patches_of_several_latent_frames_are_refused():
    with pytest.raises(UserError, match="patches of one latent frame"):
        CausalWanTransformer3DModel(patch_size=(2, 2, 2), num_layers=1)


def test_a_checkpoint_of_the_toys_layout_is_what_is_tested_here(tmp_path):
    assert load_family(write_checkpoint(tmp_path / "toy", TINY)).causal is CAUSAL
