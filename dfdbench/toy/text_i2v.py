"""Prompt embeddings of the toy image-to-video model, as Cosmos-Predict2.5's pipeline makes them."""

from typing import Any  # transformers classes are untyped

import torch

from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import (
    MAX_TOKENS,
    SYSTEM,
    ToyI2VSpec,
    build_text_encoder,
    build_tokenizer,
)
from dfdbench.toy.text import CaptionEmbeddings


def chat_tokens(tokenizer: Any, prompts: list[str], length: int = MAX_TOKENS) -> torch.Tensor:
    """Token ids (B, length) of prompts after the system message, padded or cut."""
    chats = [
        [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", SYSTEM), ("user", prompt))
        ]
        for prompt in prompts
    ]
    return tokenizer.apply_chat_template(
        chats,
        padding="max_length",
        max_length=length,
        truncation=True,
        return_dict=True,
        return_tensors="pt",
    ).input_ids


@torch.no_grad()
def joined_states(encoder: Any, tokens: torch.Tensor) -> torch.Tensor:
    """(B L) token ids to (B L D · layers): the states after each layer, normalised, side by side.

    Without an attention mask: padding has states of its own.
    """
    states = torch.stack(encoder(tokens, output_hidden_states=True).hidden_states[1:], 2)
    normalised = (states - states.mean(-1, keepdim=True)) / (states.std(-1, keepdim=True) + 1e-8)
    return normalised.flatten(2)


class I2VCaptionEmbeddings(CaptionEmbeddings):
    """Embeddings (L = 32, D) of all phrasings and of the empty prompt, by the frozen encoder."""

    def __init__(self, spec: ToyI2VSpec, seed: int) -> None:
        tokenizer = build_tokenizer()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = build_text_encoder(spec, len(tokenizer))
        texts = [t for s in world.SHAPES for c in world.SCENES for t in world.paraphrases(s, c)]
        tokens = chat_tokens(tokenizer, [*texts, ""])
        self.table = joined_states(encoder, tokens)  # (4·3·phrasings + 1, L, D)
