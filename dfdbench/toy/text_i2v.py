"""Prompt embeddings of the toy image-to-video model, as Cosmos-Predict2.5's pipeline makes them."""

import torch

from dfdbench.models.cosmos_text import chat_tokens, joined_states
from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import MAX_TOKENS, ToyI2VSpec, build_text_encoder, build_tokenizer
from dfdbench.toy.text import CaptionEmbeddings


class I2VCaptionEmbeddings(CaptionEmbeddings):
    """Embeddings (L = 36, D) of all phrasings and of the empty prompt, by the frozen encoder."""

    def __init__(self, spec: ToyI2VSpec, seed: int) -> None:
        tokenizer = build_tokenizer()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_text_encoder(spec, len(tokenizer))
        tokens = chat_tokens(tokenizer, [*world.phrasings(), ""], MAX_TOKENS)
        self.table = joined_states(encoder, tokens)
