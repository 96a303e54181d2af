"""Prompt embeddings of every caption of the toy world, computed once for the teacher's training."""

from collections.abc import Sequence

import torch

from dfdbench.toy import world
from dfdbench.toy.checkpoint import MAX_WORDS, ToySpec, build_text_encoder, build_tokenizer


class CaptionEmbeddings:
    """Embeddings (L = 16, D) of all phrasings and of the empty prompt, by the frozen encoder.

    Padding is zeroed after encoding, as Wan does.

    Attributes:
        table: (phrasings + 1, L, D), in the order of `world.phrasings`; the last is the empty one.
    """

    def __init__(self, spec: ToySpec, seed: int) -> None:
        tokenizer = build_tokenizer()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_text_encoder(spec, len(tokenizer))
        words = tokenizer(
            [*world.phrasings(), ""],
            padding="max_length",
            max_length=MAX_WORDS,
            return_tensors="pt",
        )
        with torch.no_grad():
            states = encoder(words.input_ids, words.attention_mask).last_hidden_state
        self.table = states * words.attention_mask[..., None]

    def draw(
        self,
        captions: Sequence[torch.Tensor],
        rng: torch.Generator,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        """Embeddings (B L D) of a random level and phrasing per clip; with `dropout`, of "".

        captions: for each level, int64 (B,), each clip's index into `world.captions(level)`.
        """
        count, phrasings = len(captions[0]), len(world.TEMPLATES)
        level = torch.randint(len(captions), (count,), generator=rng)
        sizes = [len(world.captions(name)) for name in world.LEVELS]
        first = torch.tensor([sum(sizes[:i]) for i in range(len(captions))])
        index = torch.stack(list(captions), 1).gather(1, level[:, None])[:, 0] + first[level]
        row = index * phrasings + torch.randint(phrasings, (count,), generator=rng)
        row[torch.rand(count, generator=rng) < dropout] = len(self.table) - 1
        return self.table[row]
