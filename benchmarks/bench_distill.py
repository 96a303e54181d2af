"""Share of a distillation iteration spent outside the networks' passes; must stay within 10 %.

    python benchmarks/bench_distill.py [--model DIR] [--updates 20] [--cpu-time] [KEY=VALUE ...]
    python benchmarks/bench_distill.py --against CHECKOUT [--new KEY=VALUE ...]
    python benchmarks/bench_distill.py --count

Trains each toy recipe for some student updates on random latents (no checkpoints, log and probes
at the recipes' own cadence) and times every forward pass, every backward pass and every decoding.
The rest is data, noise, losses, optimisers and logging. Without --model it builds a random
checkpoint of the shipped toy's size, so no weights are needed.

--against gives the ratio to another version of dfdbench: both are timed in turn, each in a process
of its own with one thread, and the ratios of neighbouring times are shown. It counts processor
time, but a busy machine slows that too: take a quiet one for a number to be quoted. --count gives
what no other process disturbs: tensor operations and Python calls of a student update.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfdbench.distill import stages
from dfdbench.distill.data.clips import ClipsInMemory, negative_embedding
from dfdbench.distill.loop import Trainer, build_networks
from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import Group
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint import write_checkpoint
from dfdbench.toy.world import captions
from dfdbench.utils.run import Run

LIMIT = 0.10
PROBE_LIMIT = 0.05  # diagnostics that cost passes of their own; a multiple of 20 updates shows it


class Clock:
    """Adds up the time spent inside wrapped functions; nested calls count once."""

    def __init__(self, device: torch.device, cpu_time: bool) -> None:
        self.device, self.seconds, self.depth = device, 0.0, 0
        self.read = time.process_time if cpu_time else time.perf_counter

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.read()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            start = self.now() if self.depth == 1 else 0.0
            try:
                return function(*args, **kwargs)
            finally:
                if self.depth == 1:
                    self.seconds += self.now() - start
                self.depth -= 1

        return timed


class Operations(TorchDispatchMode):
    """Counts tensor operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def trainer(name: str, model: str, overrides: list[str]) -> Iterator[Trainer]:
    """The trainer of a toy recipe on random latents, after a first student update."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    family = load_family(model, dtype, device)
    recipe = load_recipe(f"toy/{name}", [f"model={model}", *overrides])
    recipe = stages.resolve(recipe, family.defaults)
    method, d = get_method(recipe.method), family.defaults
    shape = family.latent_shape(d.frames, d.height, d.width)
    prompts = [caption.text for caption in captions()]
    clips = ClipsInMemory(
        torch.randn(256, *shape),
        torch.arange(256) % len(prompts),
        family.encode_prompt(prompts),
        0,
        device,
    )
    negative = negative_embedding(recipe, clips, family)
    group = Group(device=device)
    nets = build_networks(recipe, family, method, None, group, negative)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(folder, {"arm": recipe.arm, "method": recipe.method})
        made = Trainer(recipe, method, nets, clips, run, None, group)
        made.cycle(1)  # first calls allocate and compile; not measured
        yield made


def count(name: str, model: str, overrides: list[str]) -> dict[str, Any]:
    """Tensor operations and Python calls of one student update of a recipe, with all its steps."""
    with trainer(name, model, overrides) as ready:
        ready.probe = lambda *_: None  # type: ignore[method-assign]
        with Operations() as operations:
            ready.cycle(2)
        calls = 0

        def note(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(note)
        try:
            ready.cycle(3)
        finally:
            sys.setprofile(None)
    return {
        "recipe": name,
        "operations": operations.counts.total(),
        "python_calls": calls,
        "most": operations.counts.most_common(12),
    }


def measure(
    name: str, model: str, updates: int, overrides: list[str], cpu_time: bool
) -> dict[str, Any]:
    """Seconds and the share outside the networks of `updates` student updates of one recipe."""
    with trainer(name, model, overrides) as trainer_:
        family, device, recipe = trainer_.nets.family, trainer_.nets.device, trainer_.recipe
        clock, backward = Clock(device, cpu_time), torch.Tensor.backward
        for pass_ in ("predict", "decode_latents"):
            setattr(family, pass_, clock.wrap(getattr(family, pass_)))
        torch.Tensor.backward = clock.wrap(backward)  # type: ignore[method-assign]
        probes = Clock(device, cpu_time)
        trainer_.probe = probes.wrap(trainer_.probe)  # type: ignore[method-assign]
        try:
            start = clock.now()
            for update in range(2, updates + 2):
                trainer_.cycle(update)
            trainer_.flush(updates + 1)
            total = clock.now() - start
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
    iterations = updates * recipe.schedule.student_update_freq
    return {
        "recipe": name,
        "device": str(device),
        "seconds_per_update": total / updates,
        "milliseconds_per_iteration": 1000 * total / iterations,
        "share_outside_networks": 1 - clock.seconds / total,
        "share_of_probes": probes.seconds / total,
    }


def against(checkout: Path, name: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Processor seconds of an update here and in `checkout`, timed in turn, and their ratios."""
    here = Path(__file__).resolve().parents[1]

    def seconds(version: Path, own: list[str]) -> float:
        command = [
            sys.executable, str(Path(__file__).resolve()), "--json", "--cpu-time", "--model", model,
            "--recipes", name, "--updates", str(options.updates), *options.overrides, *own,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(version), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not done.stdout:
            raise SystemExit(done.stderr)
        value: float = json.loads(done.stdout)[0]["seconds_per_update"]
        return value

    pairs = [(seconds(checkout, []), seconds(here, options.new)) for _ in range(options.pairs)]
    ratios = [old / new for old, new in pairs]
    return {
        "recipe": name,
        "seconds": pairs,
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "new": options.new,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="", help="default: a random one of the toy's size")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--recipes", default="dmd2,dfd,dp_dmd")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, for a busy machine"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", action="store_true", help="operations and Python calls")
    parser.add_argument("--against", type=Path, help="checkout of another version, to time in turn")
    parser.add_argument("--pairs", type=int, default=5, help="times of both, with --against")
    parser.add_argument(
        "--new", action="append", default=[], help="override of this version alone, with --against"
    )
    parser.add_argument("overrides", nargs="*", help="recipe overrides, e.g. optim.batch=4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(write_checkpoint(Path(folder) / "random-toy"))
        if options.count or options.against:
            for name in options.recipes.split(","):
                found = (
                    against(options.against.resolve(), name, model, options)
                    if options.against
                    else count(name, model, options.overrides)
                )
                print(json.dumps(found))
            return 0
        rows = [
            measure(name, model, options.updates, options.overrides, options.cpu_time)
            for name in options.recipes.split(",")
        ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(
                f"{row['recipe']:8} {row['seconds_per_update']:7.2f} s/student update  "
                f"{row['milliseconds_per_iteration']:7.0f} ms/iteration  outside networks "
                f"{row['share_outside_networks']:6.1%} (limit {LIMIT:.0%})  probes "
                f"{row['share_of_probes']:5.1%} (limit {PROBE_LIMIT:.0%})  {row['device']}"
            )
    fine = all(
        row["share_outside_networks"] <= LIMIT and row["share_of_probes"] <= PROBE_LIMIT
        for row in rows
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
