"""One run on several processes: who they are, how networks are cut among them, how they end.

Used by the loop, its checkpoints and its log. torchrun starts the processes, FSDP2 (`fully_shard`)
cuts every network; started alone, all of this does nothing. Eight GPUs of one machine:

    torchrun --nproc-per-node 8 -m dfdbench distill --recipe R --set optim.accumulate=8

Several machines, on each of them (Slurm: `srun --ntasks-per-node 1` before it, and NODE the first
host of `scontrol show hostnames $SLURM_JOB_NODELIST`; the run folder must be on a shared disk):

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint NODE:29500 \
        -m dfdbench distill --recipe R --set optim.accumulate=16

The batch stays what the recipe says: each process does its share of the accumulation rounds, and
round i draws the same noise wherever it is done, so the number of processes changes no result.
"""

import copy
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dfdbench.utils.device import choose_device
from dfdbench.utils.errors import UserError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(minutes=20)  # the longest that processes wait for one another
PATIENCE = datetime.timedelta(days=1)  # where one of them may download what all need
GRACE_SECONDS = 1.0  # for the process that reports an error, before its end makes torchrun kill all
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "gloo")


def rounds_each(accumulate: int, batch: int, processes: int) -> int:
    """Accumulation rounds of each process in an update on `batch` clips.

    Raises:
        UserError: the rounds cannot be shared equally; names the next number that can.
    """
    if accumulate % processes == 0:
        return accumulate // processes
    more = (n for n in range(accumulate, batch + 1) if n % processes == batch % n == 0)
    fits = next(more, None)
    remedy = (
        f"take a number of processes that divides optim.batch = {batch}"
        if fits is None
        else f"pass --set optim.accumulate={fits}"
    )
    raise UserError(
        f"optim.accumulate = {accumulate} rounds cannot be shared by {processes} processes, one a "
        f"GPU; {remedy}"
    )


@dataclass(frozen=True)
class Group:
    """The processes of a run; with its defaults, the only one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def rounds(self, accumulate: int, batch: int) -> range:
        """The accumulation rounds of the global batch that this process does.

        Raises:
            UserError: the rounds cannot be shared equally.
        """
        share = rounds_each(accumulate, batch, self.size)
        return range(self.rank * share, (self.rank + 1) * share)

    def total(self, x: Tensor) -> Tensor:
        """Sum over processes of tensors that have the same shape in each."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def mean(self, x: Tensor) -> Tensor:
        """Mean over processes of tensors that have the same shape in each."""
        return self.total(x) / self.size if self.size > 1 else x

    def gather(self, x: Tensor) -> Tensor:
        """Rows (B, …) of all processes, those of the first rounds first; same shape in each."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the first process do `work` while the others wait; everyone gets its small result."""
        if self.size == 1:
            return work()
        box: list[Any] = [work() if self.is_main else None]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        result: T = box[0]
        return result

    def agree(self, value: T) -> T:
        """The first process's value, in all."""
        return self.on_main(lambda: value)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The first process goes through the body before the others, which find what it left."""
        if not self.is_main:
            self._wait()
        yield
        if self.is_main:
            self._wait()

    def _wait(self) -> None:
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU: no GPU stands still for it


@contextmanager
def joined(device: str | None = None) -> Iterator[Group]:
    """The group that torchrun started this process in, else this process alone.

    A UserError is reported by one process only, the others end silently with the same exit code; a
    process that lost another one ends with one line as well.

    Args:
        device: "cpu" or "cuda"; by default CUDA where there is one.

    Raises:
        UserError: more processes than GPUs, or another process of the run is gone.
    """
    where = torch.device(choose_device(device or "auto"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not {"RANK", "MASTER_ADDR"} <= os.environ.keys():
        yield Group(device=where)
        return
    if where.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UserError(
                f"{local + 1} processes on a machine with {torch.cuda.device_count()} GPUs; "
                f"pass torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    if dist.is_initialized():  # a first stage within a run, or a run within the command
        yield Group(dist.get_rank(), size, where)
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Group(rank, size, where)
    except (UserError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _lost_peer(error):
            raise
        _let_one_report(dist.PrefixStore("dfdbench", store), rank)
        if isinstance(error, UserError):
            raise
        raise UserError(
            "another process of this run ended or hangs; start the same command again with --resume"
        ) from None
    dist.destroy_process_group()


def patiently(work: Callable[[], T], group: Group) -> T:
    """Let every process do `work`, and wait for all, far longer than TIMEOUT if need be.

    For downloads: the hub's locks let one process of a machine fetch a file, and the others wait
    for it. No collective is under way meanwhile, which would take the wait for a hang.
    """
    if group.size == 1:
        return work()
    own: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    result = work()
    dist.all_reduce(torch.zeros(1), group=own)
    dist.destroy_process_group(own)
    return result


def _lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(text in str(error) for text in PEER_GONE)


def _let_one_report(store: dist.Store, rank: int) -> None:
    """Return in the first process that gets here; end the others, after it had time to talk."""
    try:
        reports = store.add("reports", 1) == 1
    except RuntimeError:  # the store ended with rank 0
        reports = rank == 1
    if reports:
        if rank == 0:
            time.sleep(GRACE_SECONDS)  # it may keep the store, which the others still ask
        return
    time.sleep(3 * GRACE_SECONDS)
    raise SystemExit(2)


def shard(module: nn.Module, blocks: Iterable[nn.Module], group: Group) -> None:
    """Cut a network among the processes, in place: each block is gathered only while it runs.

    Weights are gathered, and gradients reduced, in the dtype they are held in, and autocast chooses
    the dtype of every operation as on one GPU. FSDP could gather float32 weights in bfloat16, which
    is half of what is sent; but it would round what networks use in float32 (norms, modulation),
    and the loss would depend on the number of GPUs. Nor may it cast inputs: bfloat16 cannot tell
    time 999 from 1000. Gradients are averaged in every accumulation round: kept until the last,
    they would be whole in each process, 4 bytes a weight, to save what is sent while a backward
    pass of seconds computes. Blocks are freed after a forward pass and gathered again for the
    backward one; what lies outside of blocks stays gathered between the two, as FSDP would not
    notice a backward pass that enters at a tapped block.

    Args:
        module: may have weights without storage.
        blocks: the transformer blocks within `module`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Nothing here changes a network's output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    mesh = init_device_mesh(group.device.type, (group.size,))
    # Blocks before the whole: the root then holds only what lies outside of them.
    for part in (*blocks, module):
        fully_shard(part, mesh=mesh, mp_policy=policy)


def reshard(module: nn.Module) -> None:
    """Free what a pass left gathered, so that the parameters of `module` are the cut ones."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(module, FSDPModule):
        module.reshard()


def local(x: Tensor) -> Tensor:
    """A small value that belongs to all processes, such as a gradient norm, as a plain tensor."""
    from torch.distributed.tensor import DTensor

    return x.full_tensor() if isinstance(x, DTensor) else x


def skeleton(module: nn.Module) -> nn.Module:
    """A copy without weights of a network that is about to be cut, for `gather` to fill."""
    empty = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(module, empty)


def gather(module: nn.Module, empty: nn.Module | None, group: Group) -> nn.Module:
    """The uncut network, on the CPU of the first process; `module` itself if it was never cut."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if empty is None:
        return module
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(module, options=options)
    if group.is_main:  # the others were given an empty dict
        empty.load_state_dict(weights, assign=True)
    return empty
