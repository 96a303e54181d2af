"""Prompt embeddings of Cosmos-Predict2.5: a chat through a Qwen2.5-VL, all of whose layers count.

Used by cosmos.py and by the toy's training. As Cosmos2_5_PredictBasePipeline has it, there is no
attention mask: padding has states of its own, which depend on the prompt and cannot be cut off.
"""

from typing import Any  # transformers classes are untyped

import torch

# What the pipeline puts before every prompt.
SYSTEM = "You are a helpful assistant who will provide prompts to an image generator."


def _chats(prompts: list[str]) -> list[Any]:
    return [
        [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", SYSTEM), ("user", prompt))
        ]
        for prompt in prompts
    ]


def chat_lengths(tokenizer: Any, prompts: list[str]) -> list[int]:
    """Tokens of each prompt after the system message, uncut."""
    ids = tokenizer.apply_chat_template(_chats(prompts), return_dict=True).input_ids
    return [len(own) for own in ids]


def chat_tokens(tokenizer: Any, prompts: list[str], length: int) -> torch.Tensor:
    """Token ids (B, length) of prompts after the system message, padded or cut."""
    tokens: torch.Tensor = tokenizer.apply_chat_template(
        _chats(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_dict=True,
        return_tensors="pt",
    ).input_ids
    return tokens


@torch.no_grad()
def joined_states(encoder: Any, tokens: torch.Tensor) -> torch.Tensor:
    """(B L) token ids to (B L D · layers): the states after each layer, normalised, side by side.

    Without an attention mask, see above.
    """
    states = torch.stack(encoder(tokens, output_hidden_states=True).hidden_states[1:], 2)
    normalised = (states - states.mean(-1, keepdim=True)) / (states.std(-1, keepdim=True) + 1e-8)
    return normalised.flatten(2)
