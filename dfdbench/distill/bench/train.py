"""Times and memory of the real training step on random clips with random weights.

Behind `dfdbench bench train`. Networks, optimisers and losses are those of `dfdbench distill`; only
what they hold is random.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from dfdbench.distill.batch import Batch
from dfdbench.distill.bench.device import peak_tflops
from dfdbench.distill.loop import Trainer, build_networks
from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import Group
from dfdbench.distill.plan import flops, setup_for
from dfdbench.distill.plan.memory import lines
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.sections import Recipe
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.random_init import random_init_family
from dfdbench.utils.device import describe, peak_memory, reset_peak, spread, times
from dfdbench.utils.run import Run

ROLES = {"student_step": "student", "fake_score_step": "fake_score"}  # the loop's names


class RandomClips:
    """The same random clips and prompts for every batch: keeps `distill.data.clips.Clips`."""

    sha256, encodes = "random", False

    def __init__(self, shape: Shape, size: int, device: torch.device) -> None:
        self.shape, self.size, self.device = shape, size, device

    @cached_property
    def held(self) -> Batch:
        return self.shape.batch(self.size, self.device)

    def __len__(self) -> int:
        return self.size

    def batch(self, start: int, count: int) -> Batch:
        return self.held

    def spread(self) -> None:
        return None

    def negative(self, prompt: str) -> Conditioning:
        return self.held.conditioning.select(slice(0, 1))


def bench_train(
    recipe: Recipe, device: torch.device, steps: int, warmup: int, compiled: bool
) -> dict[str, Any]:
    """Time `steps` student steps of `recipe`, and as many of the fake score where there is one.

    A step is a whole iteration: all accumulation rounds of optim.batch and the optimiser's step.

    Returns:
        median, range and MFU of each kind of step, peak memory beside the plan's, settings.
        MFU counts no work twice: neither checkpointing's second pass nor attention's.
    """
    if compiled:
        recipe = replace(recipe, optim=replace(recipe.optim, compile=True))
    recipe, setup = setup_for(recipe)
    method = get_method(recipe.method)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    torch.manual_seed(recipe.seed)
    with ExitStack() as stack:
        family = stack.enter_context(random_init_family(recipe.model, dtype, device))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        clips, group = RandomClips(setup.shape, setup.micro, device), Group(device=device)
        negative = clips.negative("").map(lambda value: value.clone())
        nets = build_networks(recipe, family, method, None, group, negative)
        trainer = Trainer(recipe, method, nets, clips, Run(Path(folder), {}), None, group)
        roles = {name: role for name, role in ROLES.items() if hasattr(method, f"{role}_loss")}
        for role in roles.values():  # both sets of AdamW's moments exist before the peak
            times(partial(trainer.step, role), device, warmup, 0, f"warming up {role}")
        reset_peak(device)
        seconds = {
            name: times(partial(trainer.step, role), device, 0, steps, f"timing {role}")
            for name, role in roles.items()
        }
        memory = peak_memory(device)
    peak = peak_tflops(device)
    rows = {}
    for name in roles:
        work, again = flops(setup, name == "student_step")
        rows[name] = _row(
            seconds[name], recipe.optim.batch * work, recipe.optim.batch * again, peak
        )
    student, *fake = (row["median_seconds"] for row in rows.values())
    update = student + (recipe.schedule.student_update_freq - 1) * sum(fake)
    return {
        "bench": "train",
        **rows,
        "student_update_seconds": update,
        "samples_a_second": recipe.optim.batch * recipe.schedule.student_update_freq / update,
        "peak_memory": memory,
        "planned_bytes": lines(setup) if device.type == "cuda" else None,
        "parameters": setup.trained.parameters,
        "latents": list(setup.shape.latents),
        "text": list(setup.shape.text),
        "gan_blocks": list(setup.taps),
        "compile": recipe.optim.compile,
        "compute": str(nets.autocast or torch.float32).removeprefix("torch."),
        "peak_tflops": peak,
        "warmup": warmup,
        "recipe": recipe.as_dict(),
        **describe(device),
    }


def _row(seconds: Sequence[float], work: float, again: float, peak: float | None) -> dict[str, Any]:
    """Times of a kind of step with its FLOPs and the share of the peak that they make."""
    row = spread(seconds)
    rate = work / row["median_seconds"]
    return row | {
        "flops": work,
        "recomputed_flops": again,
        "tflops_a_second": rate / 1e12,
        "mfu": None if peak is None else rate / (peak * 1e12),
    }
