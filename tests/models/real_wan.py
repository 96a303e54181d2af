"""A tiny random checkpoint with every config key of Wan-AI/Wan2.1-T2V-1.3B-Diffusers.

Unlike the toy's it has the real autoencoder's structure, a T5 tokenizer and the UniPC scheduler;
sizes alone differ from what models/configs/wan2.1-t2v-1.3b.json states.
"""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import UMT5Config, UMT5EncoderModel

from dfdbench.models.published_configs import published_config

REAL = published_config("wan2.1-t2v-1.3b")
SMALLER = {
    "transformer": {
        "attention_head_dim": 16, "num_attention_heads": 2, "ffn_dim": 48, "text_dim": 32,
        "freq_dim": 16, "num_layers": 3,
    },
    "vae": {"base_dim": 4, "num_res_blocks": 1},
    "text_encoder": {
        "d_ff": 48, "d_kv": 8, "d_model": 32, "num_heads": 4, "num_layers": 2,
        "num_decoder_layers": 2, "vocab_size": 300,
    },
    "scheduler": {},
}  # fmt: skip
FILES = {
    "transformer": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "scheduler": "scheduler_config.json",
}
CLIP = (9, 32, 32)  # frames, height, width: latents 16 x 3 x 4 x 4


def config(part: str) -> dict:
    """The real config of a part at test size, without the class name."""
    whole = REAL[part] | SMALLER[part]
    return {key: value for key, value in whole.items() if key != "_class_name"}


def write_tokenizer(folder: Path) -> None:
    """Files of a T5 tokenizer: unigrams with sentencepiece's word mark, `</s>` at the end."""
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -2.0) for piece in ("▁", *letters)]
    pieces += [(f"▁{word}", -1.0) for word in ("a", "ball", "bar", "over", "the", "desert")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **special})
    )


def write_real_layout(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint; the transformer lies in several files, as the real one does."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(**config("transformer"))
        for name, parameter in transformer.named_parameters():
            if "proj_out" in name:  # starts near zero, which would hide what comes before it
                torch.nn.init.normal_(parameter, std=0.3)
        vae = AutoencoderKLWan(**config("vae"))
        text_encoder = UMT5EncoderModel(UMT5Config(**config("text_encoder")))
    transformer.save_pretrained(folder / "transformer", max_shard_size="60KB")
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    UniPCMultistepScheduler(**config("scheduler")).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    for part, file in FILES.items():
        _drop_newer_keys(folder / part / file, set(REAL[part]))
    index = {
        "_class_name": REAL["pipeline"],
        "_diffusers_version": "0.33.0.dev0",
        "scheduler": ["diffusers", REAL["scheduler"]["_class_name"]],
        "text_encoder": ["transformers", REAL["text_encoder"]["architectures"][0]],
        "tokenizer": ["transformers", REAL["tokenizer"]],
        "transformer": ["diffusers", REAL["transformer"]["_class_name"]],
        "vae": ["diffusers", REAL["vae"]["_class_name"]],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _drop_newer_keys(file: Path, known: set[str]) -> None:
    """Leave out what today's library writes and the real file, older than it, does not have."""
    values = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in values.items() if k in known}, indent=2))
