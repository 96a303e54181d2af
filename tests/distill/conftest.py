"""A family of two-parameter networks and everything a method needs around it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dfdbench.distill.batch import Batch
from dfdbench.distill.nets import Networks
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import student_times

SHAPE = (3, 2, 4, 4)  # C T H W


class Linear(nn.Module):
    """v = a x + b t + mean of the prompt: enough for gradients, guidance and time to matter."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(value)) for value in (a, b))

    def forward(self, x, t, prompt):
        shift = self.b * t.to(x.dtype) + prompt.flatten(1).mean(1)
        return self.a * x + shift.view(-1, 1, 1, 1, 1)


class PerStep(nn.Module):
    """A student with a bias of its own for each of its times, to see where gradients arrive."""

    def __init__(self, times):
        super().__init__()
        self.times = times[:-1].float()
        self.bias = nn.Parameter(torch.zeros(len(self.times)))

    def forward(self, x, t, prompt):
        which = (self.times - t[0]).abs().argmin()
        return 0.5 * x + self.bias[which]


class MockFamily:
    """Runs any module as `module(x_t, t, prompt_embeds)` and keeps how many rows it was given."""

    conditioning_frames = 0

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher.requires_grad_(False)
        self.rows: list[tuple[nn.Module, int]] = []

    def predict(self, module, x_t, t, conditioning):
        self.rows.append((module, len(x_t)))
        return module(x_t, t, conditioning.prompt_embeds)

    def predict_with_features(self, module, x_t, t, conditioning, blocks):
        v = self.predict(module, x_t, t, conditioning)
        return v, [v.flatten(2).transpose(1, 2) * (1 + block) for block in blocks]


def make_recipe(method="dmd2", **sections):
    return recipe_from_dict({"method": method, **sections})


def make_nets(steps=4, cfg=3.0, **changes):
    nets = Networks(
        family=MockFamily(Linear(0.4, 0.2)),
        student=Linear(0.9, -0.1),
        fake_score=Linear(0.6, 0.3),
        negative=Conditioning(torch.full((1, 2, 3), -0.5)),
        cfg=cfg,
        times=student_times(steps, 5.0),
    )
    for name, value in changes.items():
        setattr(nets, name, value)
    return nets


def make_batch(count=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(count, *SHAPE, generator=g),
        Conditioning(torch.randn(count, 2, 3, generator=g)),
    )


def gradients(report, module):
    """Gradients of a report's loss by parameter, zeros where none arrives."""
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(report.loss, [*parameters.values()], allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(parameters.items(), found, strict=True)
    }


@pytest.fixture
def tools():
    """The helpers above, for tests that would otherwise import a conftest."""
    return SimpleNamespace(
        Linear=Linear,
        MockFamily=MockFamily,
        PerStep=PerStep,
        recipe=make_recipe,
        nets=make_nets,
        batch=make_batch,
        gradients=gradients,
        shape=SHAPE,
    )


@pytest.fixture(scope="session")
def tiny_recipe(tiny_checkpoint):
    """Makes recipes of few small updates of the tiny checkpoint: (name, *overrides)."""

    def make(name, *overrides):
        return load_recipe(
            f"toy/{name}",
            [
                f"model={tiny_checkpoint}", "data.count=8", "optim.batch=2", "optim.lr=1e-3",
                "optim.fake_lr=1e-3", "schedule.student_update_freq=2", "log.every=1",
                "log.decode_every=0", *overrides,
            ],
        )  # fmt: skip

    return make
