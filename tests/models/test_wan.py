import json
import warnings

import diffusers
import pytest
import torch

from dfdbench.models.conditioning import Conditioning, concatenate
from dfdbench.models.registry import load_family, resolve_folder
from dfdbench.models.wan import WAN_DEFAULTS
from dfdbench.utils.errors import UserError

PROMPTS = ["a ball", "a bar drifts across the desert"]


@pytest.fixture(scope="module")
def inputs(tiny_family):
    g = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, *tiny_family.latent_shape(17, 64, 64), generator=g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conditioning = tiny_family.encode_prompt(PROMPTS)
    return x_t, torch.tensor([0.3, 0.9]), conditioning


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint):
    return diffusers.WanPipeline.from_pretrained(tiny_checkpoint)


def test_prompt_embeddings_are_those_of_the_plain_pipeline(tiny_family, pipeline, inputs):
    expected, _ = pipeline.encode_prompt(
        PROMPTS,
        do_classifier_free_guidance=False,
        max_sequence_length=tiny_family.defaults.max_sequence_length,
    )
    torch.testing.assert_close(inputs[2].prompt_embeds, expected)


def test_prediction_is_the_transformer_at_a_thousand_t(tiny_family, pipeline, inputs):
    x_t, t, conditioning = inputs
    with torch.no_grad():
        expected = pipeline.transformer(
            x_t, torch.tensor([300.0, 900.0]), conditioning.prompt_embeds, return_dict=False
        )[0]
        ours = tiny_family.predict(tiny_family.teacher, x_t, t, conditioning)
    torch.testing.assert_close(ours, expected)


def test_features_come_from_the_same_pass_as_the_prediction(tiny_family, inputs):
    x_t, t, conditioning = inputs
    with torch.no_grad():
        v, features = tiny_family.predict_with_features(
            tiny_family.teacher, x_t, t, conditioning, [0, 1]
        )
        assert torch.equal(v, tiny_family.predict(tiny_family.teacher, x_t, t, conditioning))
        alone = tiny_family.features(tiny_family.teacher, x_t, t, conditioning, [1])
    tokens = 5 * 4 * 4
    assert [f.shape for f in features] == [(2, tokens, tiny_family.feature_width(None or
            tiny_family.teacher))] * 2  # fmt: skip
    assert torch.equal(alone[0], features[1]) and not torch.equal(features[0], features[1])
    assert not any(block._forward_hooks for block in tiny_family.teacher.blocks)


def test_latents_are_normalised_with_the_checkpoints_statistics(tiny_checkpoint, tmp_path):
    folder = tmp_path / "scaled"
    load_family(tiny_checkpoint).save_student(load_family(tiny_checkpoint).teacher, folder)
    config = folder / "vae" / "config.json"
    changed = json.loads(config.read_text())
    changed["latents_mean"] = [2.0] * changed["z_dim"]
    changed["latents_std"] = [4.0] * changed["z_dim"]
    config.unlink()  # a hard link to the original
    config.write_text(json.dumps(changed))
    video = torch.rand(1, 3, 17, 64, 64) * 2 - 1
    plain = load_family(tiny_checkpoint).encode_video(video)
    scaled_family = load_family(folder)
    scaled = scaled_family.encode_video(video)
    torch.testing.assert_close(scaled, (plain - 2) / 4)
    decoded = load_family(tiny_checkpoint).decode_latents(plain)
    torch.testing.assert_close(scaled_family.decode_latents(scaled), decoded)
    assert decoded.shape == video.shape and decoded.abs().max() <= 1


def test_saved_student_loads_in_the_plain_pipeline_and_here(tiny_family, tmp_path):
    student = tiny_family.new_module()
    with torch.no_grad():
        student.proj_out.bias += 1
    tiny_family.save_student(student, tmp_path / "student")
    tiny_family.save_student(student, tmp_path / "student")  # replaces
    plain = diffusers.WanPipeline.from_pretrained(tmp_path / "student")
    ours = tiny_family.load_student(tmp_path / "student")
    for name, weight in student.state_dict().items():
        assert torch.equal(plain.transformer.state_dict()[name], weight)
        assert torch.equal(ours.state_dict()[name], weight)
    shared = tmp_path / "student" / "text_encoder" / "model.safetensors"
    assert shared.stat().st_nlink > 1, "big shared parts are hard links, not copies"
    clip = plain("a ball", height=64, width=64, num_frames=17, num_inference_steps=1,
                 guidance_scale=1.0, max_sequence_length=16, output_type="np").frames  # fmt: skip
    assert clip.shape == (1, 17, 64, 64, 3)


def test_new_modules_are_trainable_copies_and_the_teacher_is_frozen(tiny_family):
    module = tiny_family.new_module()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    assert not any(p.requires_grad for p in tiny_family.teacher.parameters())
    assert module.proj_out.weight.data_ptr() != tiny_family.teacher.proj_out.weight.data_ptr()


def test_defaults_come_from_the_folder_else_from_wan(tiny_checkpoint, tiny_family, tmp_path):
    assert tiny_family.defaults.cfg == 3.0 and tiny_family.defaults.frames == 17
    bare = tmp_path / "bare"
    tiny_family.save_student(tiny_family.teacher, bare)
    (bare / "dfdbench.json").unlink()
    assert load_family(bare).defaults == WAN_DEFAULTS


def test_conditioning_rows_select_repeat_and_join():
    a = Conditioning(torch.arange(6.0).view(3, 2, 1))
    assert torch.equal(a.select(torch.tensor([2, 0])).prompt_embeds[0], a.prompt_embeds[2])
    assert a.select(slice(0, 1)).repeat(4).prompt_embeds.shape == (4, 2, 1)
    assert concatenate([a, a]).prompt_embeds.shape == (6, 2, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "does not exist"),
        (lambda p: p, "no model_index.json"),
        (lambda p: "toy-t2w-of-nobody", "does not exist"),
    ],
)
def test_a_missing_model_is_one_clear_line(tmp_path, make, words):
    with pytest.raises(UserError, match=words) as caught:
        resolve_folder(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_pipeline_class_names_the_known_ones(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipelin"}')
    with pytest.raises(UserError, match="did you mean WanPipeline"):
        load_family(tmp_path)


def test_a_clip_size_that_does_not_fit_is_refused(tiny_family):
    with pytest.raises(UserError, match="frames must be 1"):
        tiny_family.latent_shape(16, 64, 64)


def test_unknown_words_are_warned_about(tiny_checkpoint):
    tiny_family = load_family(tiny_checkpoint)
    with pytest.warns(UserWarning, match="zeppelin"):
        tiny_family.encode_prompt(["a zeppelin"])
