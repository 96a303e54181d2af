"""What is wrong with a Wan folder, through the command line: one line, exit 2, nothing written."""

import json
import shutil
from pathlib import Path

import pytest
from real_wan import write_real_layout
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.models.loading import load_part
from dfdbench.utils.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_real_layout(tmp_path_factory.mktemp("wan") / "whole")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refused(model: object, out: Path, *more: str) -> str:
    """The one line with which `distill` refuses a model."""
    texts = ["distill", "--recipe", "wan2.1-t2v-1.3b/dmd2", "--model", str(model)]
    texts += ["--out", str(out), "--set", "data.source=toy", "--set", "data.count=1"]
    texts += ["--device", "cpu", *more]
    result = CliRunner().invoke(app, texts)
    assert result.exit_code == 2, (result.output, result.exception)
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in result.output
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))
    return errors[0]


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def no_autoencoder(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def no_transformer_config(folder: Path) -> None:
    (folder / "transformer" / "config.json").unlink()


def no_weights(folder: Path) -> None:
    for file in (folder / "transformer").glob("*.safetensors*"):
        file.unlink()


def pickled_weights(folder: Path) -> None:
    no_weights(folder)
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")


def lost_shard(folder: Path) -> None:
    next((folder / "transformer").glob("*-00002-of-*.safetensors")).unlink()


def cut_shard(folder: Path) -> None:
    cut(next((folder / "transformer").glob("*-00002-of-*.safetensors")))


def cut_text_encoder(folder: Path) -> None:
    cut(folder / "text_encoder" / "model.safetensors")


def cut_tokenizer(folder: Path) -> None:
    cut(folder / "tokenizer" / "tokenizer.json")


def unknown_transformer(folder: Path) -> None:
    change(folder / "transformer" / "config.json", _class_name="WanTransformer4DModel")


def cosmos_transformer(folder: Path) -> None:
    change(folder / "transformer" / "config.json", _class_name="CosmosTransformer3DModel")


def more_layers(folder: Path) -> None:
    change(folder / "transformer" / "config.json", num_layers=4)


def fewer_layers(folder: Path) -> None:
    change(folder / "transformer" / "config.json", num_layers=2)


def wider(folder: Path) -> None:
    change(folder / "transformer" / "config.json", ffn_dim=64)


def broken_index(folder: Path) -> None:
    cut(folder / "model_index.json")


def no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def unknown_pipeline(folder: Path) -> None:
    change(folder / "model_index.json", _class_name="WanPipelines")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (no_autoencoder, "lacks vae/; give a complete Wan diffusers folder"),
        (no_transformer_config, "transformer"),
        (no_weights, "transformer cannot be loaded"),
        (pickled_weights, "transformer cannot be loaded"),
        (lost_shard, "transformer cannot be loaded"),
        (cut_shard, "transformer cannot be loaded"),
        (cut_text_encoder, "text_encoder cannot be loaded"),
        (cut_tokenizer, "tokenizer cannot be loaded"),
        (unknown_transformer, "class WanTransformer4DModel, where WanTransformer3DModel is needed"),
        (cosmos_transformer, "of the class CosmosTransformer3DModel"),
        (more_layers, "weights and config.json disagree"),
        (fewer_layers, "weights and config.json disagree"),
        (wider, "transformer cannot be loaded"),
        (broken_index, "model_index.json: not JSON"),
        (no_index, "has no model_index.json; give a diffusers checkpoint folder"),
        (unknown_pipeline, "did you mean WanPipeline?"),
    ],
)
def test_a_spoilt_folder_is_one_line_and_nothing_is_written(folder, tmp_path, spoil, words) -> None:
    spoil(folder)
    error = refused(folder, tmp_path / "run")
    assert words in error and str(folder) in error


def test_a_cut_autoencoder_is_one_line(folder, tmp_path) -> None:
    from diffusers import AutoencoderKLWan
    from torch import float32

    cut(folder / "vae" / WEIGHTS)
    with pytest.raises(UserError, match="vae cannot be loaded") as caught:
        load_part(AutoencoderKLWan, folder / "vae", float32)
    assert "\n" not in str(caught.value)


def test_a_recipe_refuses_a_model_of_another_family(folder, tmp_path) -> None:
    error = refused(folder, tmp_path / "run", "--set", "family=cosmos")
    assert "for a model of the family cosmos" in error and "of the family wan" in error


def test_a_hub_id_without_a_network_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    error = refused("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", tmp_path / "run")
    assert "model Wan-AI/Wan2.1-T2V-1.3B-Diffusers is neither a folder nor reachable" in error
    assert "--model" in error


def test_a_folder_that_does_not_exist_is_one_line(tmp_path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path / "run")
