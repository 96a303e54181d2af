"""The real training step on a GPU that is not there: networks, optimisers, rounds and losses."""

from types import SimpleNamespace
from typing import Any

import torch
from pytest import MonkeyPatch

from dfdbench.distill import streams
from dfdbench.distill.bench.train import RandomClips
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.loop import STORED, Trainer, build_networks
from dfdbench.distill.methods import get_method, ode_init
from dfdbench.distill.methods.ode_init import euler_steps
from dfdbench.distill.parallel import Group
from dfdbench.distill.plan import fake_cuda, setup_for
from dfdbench.distill.plan.measure import Live
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import grid
from dfdbench.models.random_init import random_init_family
from dfdbench.utils.run import Run


class Loss:
    """A scalar that the loop divides and differentiates, and that keeps no graph after that."""

    def __init__(self, value):
        self.value = value

    def __truediv__(self, rounds):
        self.value = self.value / rounds
        return self

    def backward(self):
        value, self.value = self.value, None
        fake_cuda.backward(value)


def with_own_backward(loss):
    def wrapped(*arguments):
        report = loss(*arguments)
        return report._replace(loss=Loss(report.loss))

    return wrapped


def moved(heads, device):
    """`heads` on a device; their `to` would swap tensors, which fake ones refuse."""
    for part in heads.modules():
        for name, value in part._parameters.items():
            part._parameters[name] = torch.nn.Parameter(torch.empty(value.shape, device=device))
    return heads


def most_held(recipe: Recipe, folder, coin: bool) -> int:
    """The most bytes on the GPU in a student step and one of the fake score, after the first.

    coin: how random choices fall.
    """
    recipe, setup = setup_for(recipe)
    method, gpu = get_method(recipe.method), fake_cuda.DEVICE
    times = grid(recipe)  # with values
    steps = euler_steps(times[:-1], recipe.options) if recipe.method == "ode_init" else None
    roles = ["student", *(["fake_score"] if hasattr(method, "fake_score_loss") else [])]
    seeded = streams.seeded
    with MonkeyPatch.context() as patch, fake_cuda.fake_gpu(), Live() as live:
        patch.setattr(
            streams, "seeded", lambda where, *key: None if where == gpu else seeded(where, *key)
        )
        patch.setattr(Heads, "to", moved)
        nothing = SimpleNamespace(add_bins=lambda report: None)  # the log looks at numbers
        patch.setattr("dfdbench.distill.diagnostics.Recorder", lambda *_: nothing)
        patch.setattr(
            streams.Stream,
            "times",
            lambda self, name, schedule, count: torch.full((count,), 0.5, device=gpu),
        )
        patch.setattr(ode_init, "euler_steps", lambda *_: steps)
        patch.setattr(torch.Tensor, "__float__", lambda _: 0.5)  # the teacher's times have none
        patch.setattr(streams.Stream, "bernoulli", lambda *_: coin)
        patch.setattr(streams.Stream, "integer", lambda self, name, high: coin * (high - 1))
        with random_init_family(recipe.model, torch.bfloat16, gpu) as family:
            draw = family._load_part(family.network, family.path / "transformer", torch.bfloat16)
            family.teacher = family.adapt(draw).eval().requires_grad_(False)  # `to` as well
            clips, group = RandomClips(setup.shape, setup.micro, gpu), Group(device=gpu)
            negative = clips.negative("").map(lambda value: value.clone())
            nets = build_networks(recipe, family, method, None, group, negative)
            nets.times = times
            losses: Any = SimpleNamespace(
                **{
                    f"{role}_loss": with_own_backward(getattr(method, f"{role}_loss"))
                    for role in roles
                }
            )
            trainer = Trainer(recipe, losses, nets, clips, Run(folder, {}), None, group)
            for role in roles:  # moments are there from the second step on
                optimiser = trainer.optimisers[STORED[role]]
                for parameter in (p for group in optimiser.param_groups for p in group["params"]):
                    parameter.grad = torch.zeros_like(parameter)
                optimiser.step()
                optimiser.zero_grad()
            for role in roles:
                trainer.step(role, 0)
    return live.peak
