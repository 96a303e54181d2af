"""What a method remembers of earlier updates: running means at a few noise levels.

Used by methods whose loss is weighed by what was seen so far (avd.py, f_distill.py). A method that
wants such a memory has `statistics(recipe)`, which gives a module of buffers with `update`. The
loop keeps it in checkpoints and updates it once a student update, from rows of all rounds of all
processes, so that neither the order of rounds nor the number of processes changes a loss.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dfdbench.distill.batch import Batch
from dfdbench.distill.nets import Networks
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.utils.progress import say

if TYPE_CHECKING:
    from dfdbench.distill.methods import Method
    from dfdbench.distill.parallel import Group


class RunningMean(nn.Module):
    """Exponential moving average of a value at each of a few places, such as bins of t.

    The first value at a place is taken whole, unless all begin at `start`.
    """

    mean: Tensor  # (places,)
    seen: Tensor  # (places,), 1 where there is a mean

    def __init__(self, places: int, decay: float, start: float | None = None) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.full((places,), 0.0 if start is None else start))
        self.register_buffer("seen", torch.full((places,), float(start is not None)))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Move the means by rows (B, 2) of a whole batch: the place of each clip and its value."""
        places = torch.arange(len(self.mean), device=rows.device)
        there = (rows[:, :1] == places).to(rows.dtype)  # (B, places)
        count = there.sum(0)
        now = (there * rows[:, 1:]).sum(0) / count.clamp(min=1)
        moved = torch.where(self.seen > 0, torch.lerp(now, self.mean, self.decay), now)
        self.mean.copy_(torch.where(count > 0, moved, self.mean))
        self.seen.copy_(torch.maximum(self.seen, (count > 0).to(self.seen.dtype)))


def new_statistics(method: "Method", recipe: Recipe, device: torch.device) -> nn.Module | None:
    """The memory of a method as a run begins with it, on its device; None if it keeps none."""
    make = getattr(method, "statistics", None)
    module = cast(nn.Module | None, make(recipe) if make else None)
    return module if module is None else module.to(device)


def survey(
    method: "Method",
    nets: Networks,
    recipe: Recipe,
    group: "Group",
    rounds: Iterable[tuple[Batch, Stream]],
) -> None:
    """Update statistics before a student update from what its rounds will see.

    For a method that has `survey`: rows (B, 2) of a round, of passes without gradient. Nothing is
    done where the batch is one round of one process, whose loss sees all of it itself.
    """
    look = getattr(method, "survey", None)
    if look is None or nets.statistics is None or nets.whole_batch:
        return
    with torch.no_grad():
        rows = [look(batch, nets, recipe, rng) for batch, rng in rounds]
    update(nets.statistics, rows, group)


def update(statistics: Any, rows: list[Tensor], group: "Group") -> None:
    """Give `statistics` the rows of all rounds of all processes, in the order of the rounds."""
    if rows:
        statistics.update(group.gather(torch.cat(rows)))


def warn(statistics: Any, group: "Group") -> None:
    """Print what `statistics` warns of, where it has `warning()`, each line once a run."""
    line = statistics.warning() if group.is_main and hasattr(statistics, "warning") else ""
    if line and line not in statistics.__dict__.setdefault("warned", set()):
        statistics.warned.add(line)
        say(line)
