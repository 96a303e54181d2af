"""The training loop of the toy's VAE and teacher: plan, average, checkpoints, log, processes."""

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

from dfdbench.utils.errors import UserError, pass_out_of_memory
from dfdbench.utils.files import atomic_path, disk_faults, trim_jsonl
from dfdbench.utils.progress import Bar
from dfdbench.utils.stopping import Stop, Stopped, deferred
from dfdbench.utils.weights import fault_of

T = TypeVar("T")
CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 20
WARM_UP = 100  # steps


def rank_and_processes() -> tuple[int, int]:
    """Rank and number of processes that share each batch; (0, 1) without torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share_of_batch(size: int) -> slice:
    """The samples of a batch that this process computes."""
    rank, world = rank_and_processes()
    if size % world:
        raise ValueError(f"a batch of {size} cannot be shared by {world} processes")
    return slice(rank * size // world, (rank + 1) * size // world)


class FlowDraw(NamedTuple):
    """What a flow-matching step trains on: x_t (B C T H W), t (B,) and v = ε − x0."""

    x_t: torch.Tensor
    t: torch.Tensor
    v: torch.Tensor


def flow_draw(x0: torch.Tensor, shift: float, rng: torch.Generator) -> FlowDraw:
    """Noise `x0` (B C T H W) at t = shift(U[0, 1], shift), one time in each of B equal slices.

    Stratified times halve the loss's variance.
    """
    noise, size = torch.randn(x0.shape, generator=rng), len(x0)
    u = (torch.randperm(size, generator=rng) + torch.rand(size, generator=rng)) / size
    t = shift * u / (1 + (shift - 1) * u)
    t5 = t.view(-1, 1, 1, 1, 1)
    return FlowDraw((1 - t5) * x0 + t5 * noise, t, noise - x0)


def unusable(file: Path, error: Exception) -> UserError:
    """The error for a file of a stage that cannot be used."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return UserError(f"{file}: not what this stage wrote ({reason}); delete it to do it again")


def load_tensors(file: Path, kind: type[T]) -> T:
    """The `kind` that torch.save wrote into a stage's file; nothing in it is run.

    Raises:
        UserError: it is torn, or of something else.
    """
    try:
        state = torch.load(file, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(file, error) from None
    if not isinstance(state, kind):
        raise unusable(file, TypeError(f"it holds a {type(state).__name__}"))
    return state


def _average_gradients(parameters: Iterable[torch.nn.Parameter], world: int) -> None:
    """Replace gradients by their mean over the processes, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    distributed.all_reduce(flat)
    flat /= world
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def _block_matrices(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices inside a transformer's blocks, which Muon is made for."""
    named = module.named_parameters()
    return [p for name, p in named if "blocks" in name and p.ndim == 2 and p.requires_grad]


class Fit:
    """Warm-up and cosine decay, an average of the weights, atomic checkpoints, a log.

    AdamW trains all weights; with `matrix_lr` Muon, in AdamW's scale of updates, trains the
    matrices of the module's `blocks`.
    Files in `out`: NAME.pt (resume point, removed by nobody) and NAME.jsonl (losses).
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        steps: int,
        lr: float,
        ema: float,
        out: Path,
        matrix_lr: float | None = None,
    ) -> None:
        self.name, self.module, self.steps, self.decay = name, module, steps, ema
        self.file, self.log = out / f"{name}.pt", out / f"{name}.jsonl"
        self.average = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.trained = [p for p in module.parameters() if p.requires_grad]
        matrices = _block_matrices(module) if matrix_lr else []
        known = {id(p) for p in matrices}
        others = [p for p in self.trained if id(p) not in known]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
        ]
        if matrix_lr:
            self.optimisers.append(
                torch.optim.Muon(
                    matrices, lr=matrix_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
                )
            )
        self.plans = [
            torch.optim.lr_scheduler.LambdaLR(
                optimiser,
                lambda s: min((s + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * min(s / steps, 1))),
            )
            for optimiser in self.optimisers
        ]
        self.step, self.seconds = 0, 0.0
        if self.file.exists():
            state = load_tensors(self.file, dict)
            try:
                self._restore(state)
            except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
                pass_out_of_memory(error)
                raise unusable(self.file, error) from None

    def _restore(self, state: dict[str, Any]) -> None:
        if faults := self.average.keys() ^ state["average"].keys():
            raise ValueError(f"{min(faults)} is in one of average and network only")
        if not isinstance(state["step"], int) or not 0 <= state["step"] <= self.steps:
            raise ValueError(f"step {state['step']} of {self.steps}")
        self.module.load_state_dict(state["module"])
        for part, saved in zip(self.optimisers, state["optimisers"], strict=True):
            part.load_state_dict(saved)
        for plan, saved in zip(self.plans, state["plans"], strict=True):
            plan.load_state_dict(saved)
        if fault := fault_of([*state["module"].items(), *state["average"].items()]):
            raise ValueError(fault)
        self.average, self.step = state["average"], state["step"]
        self.seconds = float(state["seconds"])

    def save(self) -> None:
        """Write the resume point."""
        with atomic_path(self.file) as temporary:
            torch.save(
                {
                    "module": self.module.state_dict(),
                    "optimisers": [part.state_dict() for part in self.optimisers],
                    "plans": [plan.state_dict() for plan in self.plans],
                    "average": self.average,
                    "step": self.step,
                    "seconds": self.seconds,
                },
                temporary,
            )

    def run(self, loss_of_step: Callable[[int], dict[str, torch.Tensor]]) -> None:
        """Train to `steps`; leaves the averaged weights in the module."""
        rank, world = rank_and_processes()
        if rank == 0:
            trim_jsonl(self.log, "step", self.step)
        started = time.monotonic() - self.seconds
        saved = time.monotonic()
        bar_of_steps = Bar(self.steps, f"toy {self.name}", done=self.step, quiet=rank > 0)
        with deferred() if world == 1 else nullcontext(Stop()) as stop, bar_of_steps as bar:
            while self.step < self.steps:
                losses = loss_of_step(self.step)
                self.module.zero_grad(set_to_none=True)
                losses["loss"].backward()
                if world > 1:
                    _average_gradients(self.trained, world)
                norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
                for part in self.optimisers:
                    part.step()
                for plan in self.plans:
                    plan.step()
                self.step += 1
                self._move_average()
                self.seconds = time.monotonic() - started
                note = ""
                if self.step % LOG_EVERY == 0 and rank == 0:
                    note = self._write_log(losses, norm)
                bar.step(note=note)
                if rank == 0 and (stop.requested or time.monotonic() - saved > CHECKPOINT_SECONDS):
                    self.save()
                    saved = time.monotonic()
                if stop.requested:
                    raise Stopped
        if rank == 0:
            self.save()
        self.module.load_state_dict(self.average)

    def _move_average(self) -> None:
        decay = min(self.decay, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value in self.module.state_dict().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, 1 - decay)

    def _write_log(self, losses: dict[str, torch.Tensor], norm: torch.Tensor) -> str:
        row = {name: round(value.item(), 6) for name, value in losses.items()}
        row |= {"step": self.step, "grad": round(norm.item(), 4)}
        row["seconds"] = round(self.seconds, 1)
        with disk_faults(self.log), open(self.log, "a") as log:
            log.write(json.dumps(row) + "\n")
        return f"loss {row['loss']:.4f}"
