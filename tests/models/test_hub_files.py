"""Every file that diffusers and transformers save of a checkpoint's parts is downloaded too."""

import ast
import inspect
import json
from pathlib import Path

import pytest
import transformers
from huggingface_hub.utils import filter_repo_objects
from tokenizers import Tokenizer, models
from transformers import (
    CLIPImageProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.utils import hub

from dfdbench.models.registry import MODEL_FILES
from dfdbench.toy.checkpoint import TINY, build_transformer
from dfdbench.utils.assets import ASSETS

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def left_behind(names) -> list[str]:
    """Those of the names that a download would not bring."""
    return sorted(set(names) - set(filter_repo_objects(names, allow_patterns=[*MODEL_FILES])))


def files(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    pairs = models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(pairs), pad_token="a")
    made.chat_template = {"default": CHAT, "tool use": CHAT}
    return made


def test_chat_templates_come_along(tokenizer, tmp_path):
    """Without them a Qwen2.5-VL, the text encoder of Cosmos, takes no prompt."""
    tokenizer.save_pretrained(tmp_path)
    assert {"chat_template.jinja", "additional_chat_templates/tool use.jinja"} <= {*files(tmp_path)}
    assert not left_behind(files(tmp_path))


def test_processors_come_along(tokenizer, tmp_path):
    parts = {
        "processor": Qwen2_5_VLProcessor(
            Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT
        ),
        "feature_extractor": CLIPImageProcessor(),
        "video_processor": Qwen2VLVideoProcessor(),
        "text_encoder": GenerationConfig(),
    }
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    found = {Path(name).name for name in files(tmp_path)}
    assert {"processor_config.json", "preprocessor_config.json", "generation_config.json"} <= found
    assert not left_behind(files(tmp_path))


def test_a_whole_checkpoint_comes_along_with_weights_in_several_files(tiny_checkpoint, tmp_path):
    build_transformer(TINY).save_pretrained(tmp_path, max_shard_size="20KB")
    found = files(tmp_path)
    index = next(name for name in found if name.endswith(".safetensors.index.json"))
    shards = set(json.loads((tmp_path / index).read_text())["weight_map"].values())
    assert len(shards) > 1 and not left_behind(found)
    assert len(files(tiny_checkpoint)) > 5 and not left_behind(files(tiny_checkpoint))


def test_vocabularies_of_every_tokenizer_of_transformers_come_along():
    """By the names that its tokenizers state, those with sentencepiece's files included."""
    names = set()
    for file in Path(transformers.__path__[0], "models").glob("*/tokenization_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VOCAB_FILES_NAMES":
                constants = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                names |= {name for name in constants if "." in str(name)}
    assert {"spiece.model", "merges.txt", "vocab.json", "tokenizer.json"} <= names
    assert len(names) > 20 and not left_behind(names)
    constants = {
        value
        for name, value in inspect.getmembers(transformers.utils)
        if name.endswith("_NAME") and isinstance(value, str) and "." in value
    }
    others = [n for n in constants if n.endswith((".json", ".jinja", ".safetensors"))]
    assert len(others) > 8 and not left_behind([*others, hub.CHAT_TEMPLATE_FILE])


def test_weights_of_other_kinds_and_pictures_stay_where_they_are():
    others = [
        "pytorch_model.bin",
        "model.ckpt",
        "a.pth",
        "demo.mp4",
        "flax_model.msgpack",
        "x.onnx",
    ]
    assert left_behind(others) == sorted(others)


def test_the_wan_asset_brings_the_same_files():
    assert ASSETS["wan2.1-t2v-1.3b"].patterns == MODEL_FILES
