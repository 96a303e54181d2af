"""A family from outside: one file and one line of `register`, and the whole chain runs with it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.models import registry
from dfdbench.models.registry import load_family, takes_first_frame
from dfdbench.utils.errors import UserError

FAMILY = """
import torch
from diffusers import AutoencoderKLWan, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.models.defaults import Defaults
from dfdbench.models.family import ModelFamily


class Mixer(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, channels=6, width=8, num_layers=2, prompt_width=64):
        super().__init__()
        self.first = nn.Linear(channels, width)
        self.prompt = nn.Linear(prompt_width, width)
        self.stack = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.last = nn.Linear(width, channels)

    def forward(self, x, t, prompt):
        tokens = self.first(x.flatten(2).transpose(1, 2))  # B L width
        hidden = tokens + self.prompt(prompt).mean(1, keepdim=True) + t.view(-1, 1, 1)
        for layer in self.stack:
            hidden = hidden + layer(hidden.relu())
        return self.last(hidden).transpose(1, 2).view_as(x)


class Toy(ModelFamily):
    name = "mixer"
    own_defaults = Defaults("", 2.0, 4, 5.0, 17, 64, 64, 8, 16)
    network = Mixer
    autoencoder = AutoencoderKLWan
    encoder = "UMT5EncoderModel"
    block_list = "stack"
    first_layer = "first.weight"
    text_width_key = "prompt_width"
    hub_ids = ("nobody/Mixer",)

    def predict(self, module, x_t, t, conditioning):
        dtype = self.weight_dtype(module)
        prompt = conditioning.prompt_embeds.to(dtype)
        return module(x_t.to(dtype), t.to(dtype), prompt).float()

    @torch.no_grad()
    def encode_prompt(self, prompts):
        tokenizer, encoder = self.text_encoder
        tokens = tokenizer(prompts, padding="max_length", max_length=16, return_tensors="pt")
        return Conditioning(encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state)


class Continuing(Toy):
    name = "continuing-mixer"
    conditioning_frames = 1
    hub_ids = ("nobody/Continuing",)
"""


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path, monkeypatch) -> Path:
    """A checkpoint of the family, which lies in a package of its own and is registered."""
    package = tmp_path / "site" / "own_family"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "mixer.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    registry.register("MixerPipeline", "own_family.mixer:Toy")
    registry.register("ContinuingPipeline", "own_family.mixer:Continuing")
    from own_family.mixer import Mixer

    path = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, path)
    shutil.rmtree(path / "transformer")
    torch.manual_seed(0)
    Mixer().save_pretrained(path / "transformer")
    (path / "model_index.json").write_text('{"_class_name": "MixerPipeline"}')
    return path


def test_a_registered_family_predicts_saves_and_loads(folder, tmp_path):
    family = load_family(folder)
    assert (family.name, family.defaults.max_sequence_length) == ("mixer", 16)
    conditioning = family.encode_prompt(["a ball moving over the desert"])
    assert conditioning.prompt_embeds.shape == (1, *family.text_shape)
    x_t, t = torch.randn(1, *family.latent_shape(9, 32, 32)), torch.tensor([0.5])
    v, hidden = family.predict_with_features(family.teacher, x_t, t, conditioning, [0, 1])
    assert v.shape == x_t.shape and [h.shape for h in hidden] == [(1, 3 * 4 * 4, 8)] * 2
    student = family.new_module()
    with torch.no_grad():
        student.last.bias += 1
    family.save_student(student, tmp_path / "student")
    again = load_family(tmp_path / "student").teacher
    saved, loaded = (family.predict(net, x_t, t, conditioning) for net in (student, again))
    assert torch.equal(saved, loaded) and not torch.equal(saved, v)


def test_a_registered_family_is_distilled(folder, tmp_path):
    sizes = ["data.count=4", "optim.batch=2"]
    length = ["schedule.student_updates=1", "schedule.ratio=2", "init.updates=1"]
    log = ["log.every=1", "log.probe_every=0", "log.decode_every=0"]
    recipe = load_recipe("toy/dmd2", [f"model={folder}", "family=mixer", *sizes, *length, *log])
    run = distill(recipe, tmp_path / "run")
    family = load_family(folder)
    student = family.load_student(run.student)
    assert not torch.equal(student.last.weight, family.teacher.last.weight)
    assert json.loads((run.student / "model_index.json").read_text()) == {
        "_class_name": "MixerPipeline"
    }


def test_the_family_says_whether_it_takes_a_first_frame(folder):
    assert not takes_first_frame(str(folder))
    (folder / "model_index.json").write_text('{"_class_name": "ContinuingPipeline"}')
    assert takes_first_frame(str(folder))
    assert takes_first_frame("nobody/Continuing-2B") and not takes_first_frame("nobody/Mixer-2B")
    assert not takes_first_frame("nobody/else")


def test_defaults_of_the_wrong_kind_are_one_line(folder):
    (folder / "dfdbench.json").write_text('{"frames": "many", "of another version": 1}')
    with pytest.raises(UserError, match=r"dfdbench.json: frames: not a valid integer") as caught:
        load_family(folder)
    assert "\n" not in str(caught.value)


def test_an_index_without_a_pipeline_class_is_one_line(folder):
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=r"model_index.json: lacks '_class_name'"):
        load_family(folder)
