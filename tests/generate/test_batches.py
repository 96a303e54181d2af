"""Memory of generation: clips decoded one by one, the batch by tokens and free memory, embeddings
of a suite in parts."""

import json
from types import SimpleNamespace

import pytest
import torch

from dfdbench.distill.plan.measure import Live
from dfdbench.generate import arms, batches
from dfdbench.generate.arms import Conditions, Item
from dfdbench.generate.clips import generate, reference_run
from dfdbench.generate.speed import speed_file
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.models import family as families
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import batch_noise, decode_clips, predictor, sample_student
from dfdbench.utils.shards import WHOLE

CLIP = (17, 64, 64)  # frames, height, width
CPU, GPU = torch.device("cpu"), torch.device("cuda")
WAN, TOY = (16, 21, 60, 104), (6, 5, 8, 8)  # latents: 32,760 and 80 tokens
GB = 10**9
PROMPT = Prompt("ball-desert", "a ball moving over the desert", {"shape": "ball", "scene": "snow"})


@pytest.fixture
def family(tiny_checkpoint):
    """Tiny networks, which a test may put in another state."""
    return load_family(tiny_checkpoint)


@pytest.fixture
def alone(monkeypatch):
    """Clips so large that the autoencoder takes one at a time."""
    monkeypatch.setattr(families, "CPU_CELLS", 1)


def noise(family, count):
    return torch.randn(
        count, *family.latent_shape(*CLIP), generator=torch.Generator().manual_seed(0)
    )


def peak(work) -> int:
    """Bytes of tensors at the highest while `work()` runs."""
    with torch.no_grad(), Live() as live:
        work()
    return live.peak


def test_decoding_takes_the_memory_of_one_clip_however_many_there_are(family, alone):
    def decoded(count):
        latents = noise(family, count)
        frames = []

        def work():
            for clip in decode_clips(family, latents):
                frames.append(clip.shape)
                del clip

        used = peak(work)
        assert frames == [torch.Size((3, *CLIP))] * count
        return used

    one, six = decoded(1), decoded(6)
    assert one > 2 * 4 * 3 * 17 * 64 * 64, "the working set is more than the frames"
    assert six <= 1.01 * one
    # All at once keeps the frames of all, yet the working set of one.
    whole = peak(lambda: family.decode_latents(noise(family, 6)))
    assert whole < 0.8 * 6 * one


def test_encoding_takes_the_working_set_of_one_clip_too(family, alone):
    video = torch.rand(6, 3, *CLIP)
    one, six = (peak(lambda n=n: family.encode_video(video[:n])) for n in (1, 6))
    assert six < 1.5 * one


@torch.no_grad()
def test_no_pixel_depends_on_the_batch_beyond_rounding(family):
    text = family.encode_prompt(["a ball"])
    start = batch_noise(["a"] * 5, range(5), family.latent_shape(*CLIP))
    times = torch.tensor([0.999, 0.8, 0.0])

    def frames(noise):
        predict = predictor(family, family.teacher, text.repeat(len(noise)))
        return torch.stack(list(decode_clips(family, sample_student(predict, noise, times))))

    together = frames(start)
    alone = torch.cat([frames(row) for row in start.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.std() > 0.01 and not torch.allclose(together[0], together[1])


def test_small_clips_on_a_cpu_are_decoded_several_at_a_time_and_no_others(family, monkeypatch):
    """PyTorch's convolutions of one small clip are three times slower than of several."""
    latents, passes = noise(family, 5), []
    decode = family.vae.decode
    monkeypatch.setattr(family.vae, "decode", lambda z: (passes.append(len(z)), decode(z))[1])
    cells = latents[0, 0].numel()
    for limit, expected in ((cells - 1, [1] * 5), (2 * cells, [2, 2, 1]), (9 * cells, [5])):
        monkeypatch.setattr(families, "CPU_CELLS", limit)
        passes.clear()
        assert len([*decode_clips(family, latents)]) == 5
        assert passes == expected
    assert family.clips_at_once(TOY[1:]) == 9 * cells // (5 * 8 * 8)
    monkeypatch.setattr(family, "device", GPU)
    assert family.clips_at_once(TOY[1:]) == 1


def test_a_clip_that_does_not_fit_goes_through_tiles_and_says_so(
    tmp_path, tiny_checkpoint, alone, monkeypatch, capsys
):
    family = load_family(tiny_checkpoint)
    decode, tried = type(family).decode_latents, []

    def small_memory(self, latents):
        tried.append(self.vae.use_tiling)
        if not self.vae.use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, latents)

    run = reference_run("real", tmp_path / "real", str(tiny_checkpoint))
    suite = Suite("one", 1, "", (PROMPT,), (1, 2), ())
    generate(run, Suite("one", 1, "", (PROMPT,), (3,), ()), family=load_family(tiny_checkpoint))
    monkeypatch.setattr(type(family), "decode_latents", small_memory)
    listing = generate(run, suite, family=family)
    assert tried == [False, True, True] and "through tiles" in capsys.readouterr().err
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    assert {row["seed"]: row.get("vae_tiled", False) for row in rows} == {
        1: True, 2: True, 3: False,
    }  # fmt: skip


def test_what_fails_in_tiles_too_is_told(tiny_checkpoint, monkeypatch):
    family = load_family(tiny_checkpoint)

    def none(self, latents):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(family), "decode_latents", none)
    with pytest.raises(torch.OutOfMemoryError):
        list(decode_clips(family, torch.zeros(1, *TOY)))
    assert family.vae.use_tiling


def sizes(count, size, latents, device=CPU):
    return [len(batch) for batch in batches.batches(range(count), size, latents, device)]


def test_without_a_size_tokens_decide_and_with_one_nothing_else_does():
    assert sizes(40, None, TOY) == [16, 16, 8]
    assert sizes(5, None, WAN) == [2, 2, 1]
    assert sizes(3, None, (16, 21, 90, 160)) == [1, 1, 1]  # 720p: 75,600 tokens
    assert sizes(5, 4, WAN) == [4, 1] and sizes(2, 7, TOY) == [2]
    assert [*batches.batches(range(5), None, WAN, CPU)] == [range(0, 2), range(2, 4), range(4, 5)]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of which 40 GB are free, where work on one clip takes `each` bytes."""
    card = SimpleNamespace(free=40 * GB, each=4 * GB, held=10 * GB, asked=[])

    def reset(device):
        card.asked.append("reset")

    monkeypatch.setattr(batches, "free_memory", lambda device: card.free)
    monkeypatch.setattr(batches, "memory_in_use", lambda device: card.held)
    monkeypatch.setattr(batches, "reset_peak", reset)
    monkeypatch.setattr(
        batches, "peak_memory", lambda device: {"allocated_bytes": card.held + card.each}
    )
    return card


def test_on_a_gpu_the_first_clip_says_how_many_fit(gpu):
    assert sizes(20, None, TOY, GPU) == [1, 8, 8, 3]  # .8 · 40 / 4
    gpu.each = GB // 10
    assert sizes(20, None, TOY, GPU) == [1, 16, 3], "and no more than tokens want"
    gpu.each = 60 * GB
    assert sizes(3, None, TOY, GPU) == [1, 1, 1]
    assert gpu.asked == ["reset"] * 3
    assert sizes(1, None, TOY, GPU) == [1] and sizes(3, None, (16, 21, 90, 160), GPU) == [1, 1, 1]
    assert sizes(20, 9, TOY, GPU) == [9, 9, 2] and len(gpu.asked) == 3, "nothing to choose"


def test_generate_takes_the_batch_that_fits_and_notes_it(gpu, tmp_path, tiny_checkpoint):
    gpu.each = 16 * GB
    run = reference_run("real", tmp_path / "real", str(tiny_checkpoint))
    suite = Suite("one", 1, "", (PROMPT,), tuple(range(1, 6)), ())
    listing = generate(run, suite, family=load_family(tiny_checkpoint))
    assert len(listing.read_text().splitlines()) == 5
    about = json.loads(speed_file(listing.parent, WHOLE).read_text())
    assert about["batch"] == 2 and about["clips"] == 5


TEXTS = ["a ball", "the desert", "a bar", "over the ball", "the bar"]


def items(texts):
    return [Item(Prompt(text, text), seed) for text in texts for seed in (1, 2)]


@pytest.fixture
def counted(family, monkeypatch):
    """How often each text was encoded, and how often the text encoder was let go of."""
    seen = SimpleNamespace(texts=[], released=0)
    encode, release = type(family).encode_prompt, type(family).release

    def encoding(self, prompts):
        seen.texts += prompts
        return encode(self, prompts)

    def releasing(self, *parts):
        seen.released += "text_encoder" in parts
        return release(self, *parts)

    monkeypatch.setattr(type(family), "encode_prompt", encoding)
    monkeypatch.setattr(type(family), "release", releasing)
    return seen


def test_embeddings_of_a_suite_are_held_in_parts_and_are_what_they_would_be(
    family, counted, monkeypatch
):
    expected = {text: family.encode_prompt([text]).prompt_embeds for text in TEXTS}
    one = next(iter(expected.values())).nbytes
    counted.texts.clear()
    monkeypatch.setattr(arms, "HELD_BYTES", 2 * one)
    conditions = Conditions(family, CLIP, [item.prompt.text for item in items(TEXTS)])
    conditions.fill(TEXTS[:1])
    assert counted.texts == TEXTS[:2] and counted.released == 1
    most, wanted = 0, items(TEXTS)
    for start in range(0, len(wanted), 3):  # batches cross from one prompt to the next
        batch = wanted[start : start + 3]
        embeds = conditions(batch).prompt_embeds
        assert torch.equal(embeds, torch.cat([expected[i.prompt.text] for i in batch]))
        most = max(most, len(conditions.embedded))
    assert most == 2, "no more than there is room for"
    assert len(counted.texts) <= len(TEXTS) + 2 and counted.released <= 4
    assert "text_encoder" not in family.__dict__


def test_where_all_fit_each_prompt_is_encoded_once_and_a_batch_is_never_refused(
    family, counted, monkeypatch
):
    texts = [item.prompt.text for item in items(TEXTS)]
    conditions = Conditions(family, CLIP, texts)
    conditions.fill(texts[:1])
    for item in items(TEXTS):
        conditions([item])
    assert counted.texts == TEXTS and counted.released == 1
    monkeypatch.setattr(arms, "HELD_BYTES", 1)
    small = Conditions(family, CLIP, texts)
    assert len(small(items(TEXTS)).prompt_embeds) == len(texts)
