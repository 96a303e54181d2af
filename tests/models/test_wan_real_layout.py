"""The whole chain on a tiny checkpoint laid out exactly as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."""

import functools
import hashlib
import inspect
import json

import diffusers
import pytest
import torch
import transformers
from accelerate import init_empty_weights
from real_wan import CLIP, FILES, REAL, write_real_layout
from safetensors.torch import load_file

from dfdbench.distill import loop
from dfdbench.distill.batch import Batch
from dfdbench.distill.loop import Trainer, build_networks, distill
from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import Group
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.flow import student_times
from dfdbench.models.published_configs import published_config, published_names
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import guided_v, predictor, sample_student, start_at
from dfdbench.models.scheduler import student_scheduler
from dfdbench.utils.errors import UserError

PROMPTS = ["a ball over the desert", "a bar", "the ball."]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_real_layout(tmp_path_factory.mktemp("wan") / "Wan2.1-T2V-1.3B-Diffusers")


@pytest.fixture(scope="module")
def family(checkpoint):
    return load_family(checkpoint)


@pytest.fixture(scope="module")
def encoded(family):
    """Latents and prompt embeddings of three random clips."""
    g = torch.Generator().manual_seed(0)
    frames, height, width = CLIP
    video = torch.rand(3, 3, frames, height, width, generator=g) * 2 - 1
    return Batch(family.encode_video(video), family.encode_prompt(PROMPTS))


class Precomputed:
    """Clips whose latents and embeddings were made before, as from a folder of shards."""

    sha256, encodes = "0" * 64, False

    def __init__(self, batch):
        self.all, self.latents = batch, batch.latents

    def __len__(self):
        return len(self.latents)

    def batch(self, start, count):
        rows = torch.arange(start, start + count) % len(self)
        return Batch(self.latents[rows], self.all.conditioning.select(rows))

    def negative(self, prompt):
        return None

    def spread(self):
        return None


@pytest.fixture(autouse=True)
def precomputed(monkeypatch, encoded):
    monkeypatch.setattr(loop, "load_clips", lambda recipe, family: Precomputed(encoded))
    monkeypatch.setattr(loop, "check_source", lambda recipe: None)


def small(checkpoint, name, *changes):
    """A recipe of the real model at two iterations: one of the student, one of the fake score."""
    return load_recipe(
        f"wan2.1-t2v-1.3b/{name}",
        [
            f"model={checkpoint}", "schedule.student_updates=1", "schedule.student_update_freq=2",
            "optim.batch=2", "optim.accumulate=2", "optim.lr=1e-3", "optim.fake_lr=1e-3",
            f"data.frames={CLIP[0]}", f"data.height={CLIP[1]}", f"data.width={CLIP[2]}",
            "gan.blocks=[0, 2]", *changes,
        ],
    )  # fmt: skip


def keys_of(cls):
    return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}


@pytest.mark.parametrize(
    "part, cls",
    [
        ("transformer", diffusers.WanTransformer3DModel),
        ("vae", diffusers.AutoencoderKLWan),
        ("scheduler", diffusers.UniPCMultistepScheduler),
    ],
)
def test_every_key_of_the_real_config_is_one_of_its_class(part, cls, checkpoint):
    keys = set(REAL[part]) - {"_class_name"}
    assert REAL[part]["_class_name"] == cls.__name__ and keys <= keys_of(cls)
    written = json.loads((checkpoint / part / FILES[part]).read_text())
    assert set(written) == set(REAL[part])


def test_the_text_encoder_reads_every_real_key():
    given = {k: v for k, v in REAL["text_encoder"].items() if k != "tie_word_embeddings"}
    read = transformers.UMT5Config(**REAL["text_encoder"]).to_dict()
    assert {key: read[key] for key in given} == given


def test_the_real_shapes_have_the_published_sizes():
    """1.42 billion (5.7 GB in float32), and an autoencoder of 127 million."""
    width, ffn, text = 12 * 128, 8960, 4096
    attention = 4 * (width * width + width) + 2 * width
    block = 2 * attention + 2 * width + (2 * width * ffn + ffn + width) + 6 * width
    ends = (16 * 4 * width + width) + (width * 64 + 64) + 2 * width
    embedders = (256 * width + width) + (width * width + width) + (width * 6 * width + 6 * width)
    embedders += (text * width + width) + (width * width + width)
    with init_empty_weights():
        transformer = diffusers.WanTransformer3DModel.from_config(REAL["transformer"])
        vae = diffusers.AutoencoderKLWan.from_config(REAL["vae"])
    count = sum(p.numel() for p in transformer.parameters())
    assert count == 30 * block + ends + embedders == 1_418_996_800
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6) == 127


def test_the_real_clip_has_the_stated_latents(family):
    clip, latents = REAL["clip"], REAL["latents"]
    shape = family.latent_shape(clip["frames"], clip["height"], clip["width"])
    assert shape == (16, 21, 60, 104) == tuple(latents.values())
    d = family.defaults
    assert clip == {"frames": d.frames, "height": d.height, "width": d.width, "fps": d.fps}
    assert REAL["text"]["tokens"] == d.max_sequence_length


def test_an_unknown_shape_offers_the_known_ones():
    assert "wan2.1-t2v-1.3b" in published_names()
    with pytest.raises(UserError, match=r"did you mean wan2\.1-t2v-1\.3b"):
        published_config("wan2.1-t2v-13b")


def test_the_negative_prompt_is_wans_own(family):
    """sha256 of `sample_neg_prompt` in Wan's shared configuration, taken from that file."""
    text = family.defaults.negative_prompt.encode()
    assert hashlib.sha256(text).hexdigest().startswith("ce96e0324e4b54ce4b6e867f669ca520952e1a34")


def test_prompts_are_padded_to_512_tokens_as_in_the_plain_pipeline(checkpoint, family, encoded):
    plain = diffusers.WanPipeline.from_pretrained(checkpoint)
    ours = encoded.conditioning.prompt_embeds
    expected, _ = plain.encode_prompt(
        PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512
    )
    assert ours.shape == (3, 512, 32)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
    tokens = family.text_encoder[0](PROMPTS[1]).input_ids
    assert ours[1, : len(tokens)].abs().sum(-1).min() > 0 and not ours[1, len(tokens) :].any()


def test_latents_are_those_of_the_plain_autoencoder(checkpoint, family, encoded):
    vae = diffusers.AutoencoderKLWan.from_pretrained(checkpoint, subfolder="vae")
    mean, std = (torch.tensor(REAL["vae"][f"latents_{n}"]) for n in ("mean", "std"))
    shape = (1, 16, 1, 1, 1)
    g = torch.Generator().manual_seed(0)
    video = torch.rand(3, 3, *CLIP, generator=g) * 2 - 1
    expected = (vae.encode(video).latent_dist.mode() - mean.view(shape)) / std.view(shape)
    torch.testing.assert_close(encoded.latents, expected)
    assert family.decode_latents(encoded.latents).shape == (3, 3, *CLIP)


def same_sample(folder, family, encoded):
    """Whether the student samples in the plain pipeline as it does here."""
    times = student_times(4, 5.0)
    noise = torch.randn(1, *encoded.latents.shape[1:], generator=torch.Generator().manual_seed(1))
    plain = diffusers.WanPipeline.from_pretrained(folder)
    assert plain.scheduler.config.student_times == times[:-1].tolist()
    plain.scheduler = student_scheduler(folder)
    theirs = plain(
        PROMPTS[0], height=CLIP[1], width=CLIP[2], num_frames=CLIP[0], num_inference_steps=4,
        guidance_scale=1.0, latents=start_at(noise, times[0]), output_type="latent",
    ).frames  # fmt: skip
    torch.testing.assert_close(plain.scheduler.sigmas.double(), times, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain.scheduler.timesteps.double(), 1000 * times[:-1])
    module = family.load_student(folder).eval()
    with torch.no_grad():
        predict = predictor(family, module, encoded.conditioning.select(slice(0, 1)))
        ours = sample_student(predict, noise, times)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_each_method_trains_and_its_student_is_a_complete_diffusers_folder(
    checkpoint, family, encoded, tmp_path
):
    first = distill(small(checkpoint, "dmd2"), tmp_path / "dmd2")
    assert first.info["fairness"]["gan"]
    second = distill(small(checkpoint, "dfd"), tmp_path / "dfd", init=first.path)
    assert not second.info["fairness"]["gan"]
    third = distill(small(checkpoint, "dp_dmd"), tmp_path / "dp_dmd")
    assert third.info["fairness"]["anchor_time"] == pytest.approx(0.978, abs=1e-3)
    names = {p.name for p in checkpoint.iterdir()}
    hashes = set()
    for run in (first, second, third):
        assert run.finished and {p.name for p in run.student.iterdir()} == names
        index = json.loads((run.student / "model_index.json").read_text())
        assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
        same_sample(run.student, family, encoded)
        hashes.add(run.info["student_sha256"])
    assert len(hashes) == 3
    plain = diffusers.WanPipeline.from_pretrained(first.student)
    clip = plain(PROMPTS[0], height=CLIP[1], width=CLIP[2], num_frames=CLIP[0],
                 num_inference_steps=2, output_type="np").frames  # fmt: skip
    assert clip.shape == (1, *CLIP, 3)
    teachers = json.loads((checkpoint / "model_index.json").read_text())["scheduler"]
    assert teachers == ["diffusers", "UniPCMultistepScheduler"], "the teacher's stays its own"


def test_students_keep_the_config_keys_of_the_real_transformer(checkpoint, family, tmp_path):
    family.save_student(family.new_module(), tmp_path / "student")
    before = json.loads((checkpoint / "transformer" / "config.json").read_text())
    after = json.loads((tmp_path / "student" / "transformer" / "config.json").read_text())
    assert {key: after[key] for key in before} == before


def test_a_bfloat16_teacher_predicts_nearly_what_the_float32_one_does(checkpoint, family, encoded):
    half = load_family(checkpoint, torch.bfloat16)
    assert half.teacher.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
    assert half.teacher.scale_shift_table.dtype == torch.float32  # as diffusers keeps it
    t = torch.tensor([0.9, 0.5, 0.1])
    with torch.no_grad():
        full, v = (
            f.predict(f.teacher, encoded.latents, t, encoded.conditioning) for f in (family, half)
        )
    assert v.dtype == torch.float32
    assert 0 < (v - full).norm() / full.norm() < 0.05
    assert all(p.dtype == torch.float32 for p in half.new_module().parameters())


@pytest.mark.parametrize("cfg", [5.0, torch.tensor([5.0, 1.0, 0.0])])
def test_guidance_passes_agree_batched_and_one_after_the_other(family, encoded, cfg):
    negative = family.encode_prompt(["the"]).repeat(3)
    g = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(encoded.latents.shape, generator=g), torch.tensor([0.9, 0.5, 0.1])
    rows = []

    class Counting:
        """Passes on what the family predicts, and keeps how many rows each pass had."""

        def predict(self, module, x_t, t, conditioning):
            rows.append(len(x_t))
            return family.predict(module, x_t, t, conditioning)

    with torch.no_grad():
        batched, sequential = (
            guided_v(Counting(), family.teacher, x_t, t, encoded.conditioning, negative, cfg, way)
            for way in ("batched", "sequential")
        )
        swapped = guided_v(family, family.teacher, x_t, t, negative, encoded.conditioning, cfg)
    assert rows == [6, 3, 3]
    scale = batched.abs().max()
    # Rounding of 1e-6 in each branch, which guidance magnifies g-fold.
    assert (batched - sequential).abs().max() <= 5 * 1e-6 * scale
    assert (batched - swapped).abs().max() > 1e-3 * scale


def networks(recipe, family):
    negative = family.encode_prompt([family.defaults.negative_prompt])
    return build_networks(recipe, family, get_method(recipe.method), None, Group(), negative)


@pytest.mark.parametrize("passes, rows", [("batched", [6]), ("sequential", [3, 3])])
def test_a_recipe_chooses_the_guidance_passes(checkpoint, encoded, monkeypatch, passes, rows):
    family = load_family(checkpoint)
    recipe = small(checkpoint, "dp_dmd", f"teacher.guidance_passes={passes}")
    nets = networks(recipe, family)
    seen = []
    predict = family.predict
    monkeypatch.setattr(
        family, "predict", lambda m, x, *a: (seen.append(len(x)), predict(m, x, *a))[1]
    )
    nets.teacher_v(encoded.latents, torch.full((3,), 0.5), encoded.conditioning, nets.cfg)
    assert seen == rows and recipe.digest() == small(checkpoint, "dp_dmd").digest()


def test_checkpointed_gradients_are_the_plain_ones_through_the_teachers_features(
    checkpoint, encoded
):
    """The GAN's gradient runs back through the frozen teacher, which must save memory too."""
    gradients = []
    for policy in ("none", "full", "save_attention"):
        family = load_family(checkpoint)
        recipe = small(checkpoint, "dmd2", f"optim.checkpointing={policy}")
        method = get_method("dmd2")
        nets = networks(recipe, family)
        nets.train_only(nets.student)
        rng = loop.Stream(0, 0, 0, torch.device("cpu"))
        loss = method.student_loss(encoded, nets, recipe, rng)
        assert loss.parts["gan"] > 0
        loss.loss.backward()
        gradients.append({n: p.grad for n, p in nets.student.named_parameters()})
    for name, gradient in gradients[0].items():
        for other in gradients[1:]:
            torch.testing.assert_close(gradient, other[name], rtol=1e-4, atol=1e-6, msg=name)


def test_training_on_precomputed_latents_keeps_neither_autoencoder_nor_text_encoder(
    checkpoint, tmp_path, monkeypatch
):
    def forbidden(self):
        raise AssertionError("the autoencoder was loaded")

    from dfdbench.models.wan import Wan

    held = []
    train = Trainer.train
    monkeypatch.setattr(Wan, "vae", property(forbidden))
    monkeypatch.setattr(
        Trainer,
        "train",
        lambda self: (held.append(set(vars(self.nets.family))), train(self))[1],
    )
    assert distill(small(checkpoint, "dmd2"), tmp_path / "run").finished
    assert "teacher" in held[0] and not held[0] & {"text_encoder", "vae"}


def test_a_module_is_filled_tensor_by_tensor(checkpoint, monkeypatch):
    """`low_cpu_mem_usage` builds the network without storage, so memory holds it once."""
    built = []
    init = diffusers.WanTransformer3DModel.__init__

    def looking(self, *args, **kwargs):
        init(self, *args, **kwargs)
        built.append({p.device.type for p in self.parameters()})

    monkeypatch.setattr(diffusers.WanTransformer3DModel, "__init__", functools.wraps(init)(looking))
    module = load_family(checkpoint).new_module()
    assert built == [{"meta"}]
    files = sorted((checkpoint / "transformer").glob("*.safetensors"))
    stored = {name: weight for file in files for name, weight in load_file(file).items()}
    assert len(files) > 1 and stored.keys() == module.state_dict().keys()
    assert all(torch.equal(weight, stored[name]) for name, weight in module.state_dict().items())
