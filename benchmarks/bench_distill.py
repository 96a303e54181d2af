"""Share of a distillation iteration spent outside the networks' passes; must stay within 10 %.

    python benchmarks/bench_distill.py [--model DIR] [--updates 20] [--cpu-time] [KEY=VALUE ...]

Trains each toy recipe for some student updates on random latents (no checkpoints, log and probes
at the recipes' own cadence) and times every forward pass, every backward pass and every decoding.
The rest is data, noise, losses, optimisers and logging. Without --model it builds a random
checkpoint of the shipped toy's size, so no weights are needed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

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


def measure(
    name: str, model: str, updates: int, overrides: list[str], cpu_time: bool
) -> dict[str, Any]:
    """Seconds and the share outside the networks of `updates` student updates of one recipe."""
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
        trainer = Trainer(recipe, method, nets, clips, run, None, group)
        trainer.cycle(1)  # first calls allocate; not measured
        clock, backward = Clock(device, cpu_time), torch.Tensor.backward
        for pass_ in ("predict", "decode_latents"):
            setattr(family, pass_, clock.wrap(getattr(family, pass_)))
        torch.Tensor.backward = clock.wrap(backward)  # type: ignore[method-assign]
        probes = Clock(device, cpu_time)
        trainer.probe = probes.wrap(trainer.probe)  # type: ignore[method-assign]
        try:
            start = clock.now()
            for update in range(2, updates + 2):
                trainer.cycle(update)
            trainer.flush(updates + 1)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="", help="default: a random one of the toy's size")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--recipes", default="dmd2,dfd,dp_dmd")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, for a busy machine"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*", help="recipe overrides, e.g. optim.batch=4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(write_checkpoint(Path(folder) / "random-toy"))
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
