"""Random numbers of training, drawn from (seed, iteration, round, name) alone.

Used by the loop, the inputs and the methods. Nothing has to be saved to resume bit for bit, two
methods with the same seed see the same noise under the same name, and a draw that only one of them
makes (DFD's of the real clip) disturbs no other.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from dfdbench.distill.sections import Schedule
from dfdbench.models.flow import sample_t


def seeded(device: torch.device | str, *key: object) -> torch.Generator:
    """A generator on `device` seeded by the key's text."""
    digest = hashlib.sha256("\n".join(map(str, key)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Draw(NamedTuple):
    """Noise of a score evaluation: t (B,) and ε (B C T H W)."""

    t: Tensor
    eps: Tensor


class Stream:
    """Draws of one accumulation round of one iteration, each under its own name.

    update: number of the student update within the run, 0 is the first; None: a late one.
    """

    def __init__(
        self,
        seed: int,
        iteration: int,
        round_: int,
        device: torch.device,
        update: int | None = None,
    ) -> None:
        self.shared_key, self.key = (seed, iteration), (seed, iteration, round_)
        self.device, self.update = device, update

    def generator(self, name: str) -> torch.Generator:
        """This round's own generator for `name`, on the device."""
        return seeded(self.device, *self.key, name)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Standard normal, float32, shaped as `like`."""
        return torch.randn(like.shape, generator=self.generator(name), device=self.device)

    def integers(self, name: str, high: int, count: int) -> Tensor:
        """(count,) whole numbers below `high`."""
        shape = (count,)
        return torch.randint(high, shape, generator=self.generator(name), device=self.device)

    def uniform(self, name: str, count: int) -> Tensor:
        """(count,) numbers of [0, 1), float32."""
        return torch.rand(count, generator=self.generator(name), device=self.device)

    def score_draw(self, like: Tensor, schedule: Schedule) -> Draw:
        """t from the shifted uniform of the recipe, and ε, for B samples.

        With `schedule.one_time` all samples of all rounds of the iteration have the same t.
        """
        s, count = schedule, len(like)
        if s.one_time:
            g = seeded(self.device, *self.shared_key, "score_t")
            t = sample_t(1, g, s.shift, s.t_low, s.t_high).repeat(count)
        else:
            t = self.times("score_t", s, count)
        return Draw(t, self.normal("score_eps", like))

    def times(self, name: str, schedule: Schedule, count: int) -> Tensor:
        """(count,) times of this round, from the shifted uniform of the recipe."""
        s = schedule
        return sample_t(count, self.generator(name), s.shift, s.t_low, s.t_high)

    def integer(self, name: str, high: int) -> int:
        """One whole number below `high`, the same in every round of the update."""
        return int(torch.randint(high, (), generator=seeded("cpu", *self.shared_key, name)))

    def common(self, name: str, count: int) -> list[float]:
        """`count` numbers of [0, 1), the same in every round of the update."""
        generator = seeded("cpu", *self.shared_key, name)
        return [float(u) for u in torch.rand(count, generator=generator, dtype=torch.float64)]

    def turn(self, name: str, high: int) -> int:
        """0 to `high` − 1 in turn, one after the other with the student's updates."""
        return (self.update or 0) % high

    def bernoulli(self, name: str, p: float) -> bool:
        """True with probability p, the same in every round of the update."""
        return bool(torch.rand((), generator=seeded("cpu", *self.shared_key, name)) < p)

    def bernoullis(self, name: str, p: float, count: int) -> Tensor:
        """(count,) bool, each True with probability p, of this round alone.

        A round draws the same wherever it is done, so the number of processes changes nothing.
        """
        return torch.rand(count, generator=self.generator(name), device=self.device) < p
