"""Prompt embeddings of every caption of the toy world, computed once for the teacher's training."""

import torch

from dfdbench.toy import world
from dfdbench.toy.checkpoint import MAX_WORDS, ToySpec, build_text_encoder, build_tokenizer


class CaptionEmbeddings:
    """Embeddings (L = 16, D) of all phrasings and of the empty prompt, by the frozen encoder.

    Padding is zeroed after encoding, as Wan does.
    """

    def __init__(self, spec: ToySpec, seed: int) -> None:
        tokenizer = build_tokenizer()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_text_encoder(spec, len(tokenizer))
        texts = [
            text
            for shape in world.SHAPES
            for scene in world.SCENES
            for text in world.paraphrases(shape, scene)
        ]
        words = tokenizer(
            [*texts, ""], padding="max_length", max_length=MAX_WORDS, return_tensors="pt"
        )
        with torch.no_grad():
            states = encoder(words.input_ids, words.attention_mask).last_hidden_state
        self.table = states * words.attention_mask[..., None]  # (4·3·phrasings + 1, L, D)

    def draw(
        self, captions: torch.Tensor, rng: torch.Generator, dropout: float = 0.0
    ) -> torch.Tensor:
        """Embeddings (B L D) of a random phrasing per clip; with `dropout`, of the empty prompt.

        captions: int64 (B,), of each clip among the 12 (`data.prompts_of`).
        """
        count, phrasings = len(captions), len(world.TEMPLATES)
        row = captions * phrasings + torch.randint(phrasings, (count,), generator=rng)
        row[torch.rand(count, generator=rng) < dropout] = len(self.table) - 1
        return self.table[row]
