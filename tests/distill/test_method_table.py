"""The table of baselines/README.md: what each method needs, against the methods at work."""

import re

import pytest
import torch

from dfdbench.distill.discriminator import Heads
from dfdbench.distill.methods import get_method, method_names
from dfdbench.distill.plan import table
from dfdbench.distill.recipe import baselines_folder, load_recipe
from dfdbench.distill.stages import resolve
from dfdbench.distill.statistics import new_statistics
from dfdbench.distill.streams import Stream
from dfdbench.models.wan import WAN_DEFAULTS

CPU = torch.device("cpu")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (baselines_folder() / "README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \w+ \| (yes|no) \|", line)
]
NAMES = [row[0] for row in ROWS]


def nets_for(tools, recipe, heads=True):
    torch.manual_seed(0)
    nets = tools.nets(cfg=recipe.teacher.cfg, gan_teacher=recipe.gan.features == "teacher")
    if heads and recipe.gan.weight:
        nets.heads, nets.blocks = Heads(1, tools.shape[0]), (0,)
    nets.statistics = new_statistics(get_method(recipe.method), recipe, CPU)
    return nets


def test_the_readme_has_the_table_that_the_code_makes():
    assert [row[:-1] for row in ROWS] == table.rows()


@pytest.mark.slow
def test_the_readme_has_the_plan_s_memory():
    assert {row[0]: row[-1] for row in ROWS if row[-1]} == table.memory()


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_those_of_the_method_at_work(tools, name):
    """Calls of the networks, over all turns of a rollout's number of steps."""
    recipe = resolve(load_recipe(f"toy/{name}"), WAN_DEFAULTS)
    turns = recipe.student.steps
    for role, column in (("student_loss", 3), ("fake_score_loss", 4)):
        counts = dict.fromkeys(("student", "fake score", "teacher"), 0.0)
        for turn in range(turns):
            nets = nets_for(tools, recipe)
            names = {
                nets.student: "student", nets.fake_score: "fake score",
                nets.family.teacher: "teacher",
            }  # fmt: skip
            getattr(get_method(name), role)(
                tools.batch(), nets, recipe, Stream(0, turn, 0, CPU, turn)
            )
            for module, rows in nets.family.rows:
                counts[names[module]] += rows / 6 / turns
        said = dict.fromkeys(counts, 0.0)
        for part in dict(zip(NAMES, ROWS, strict=True))[name][column].split(", "):
            network, count = part.rsplit(" ", 1)
            said[network.removesuffix("*")] += float(count)
        assert counts == pytest.approx(said), role


@pytest.mark.parametrize("name", NAMES)
def test_real_clips_change_the_losses_of_those_that_say_so(tools, name):
    """With G from noise alone, other clips under the same prompts move a loss, or no loss."""
    recipe = load_recipe(f"toy/{name}", ["student.input=backward_simulation"])
    recipe = resolve(recipe, WAN_DEFAULTS)
    batch = tools.batch()
    moved = batch._replace(latents=batch.latents + 1)
    changed = False
    for role, network in (("student_loss", "student"), ("fake_score_loss", None)):
        for turn in range(8):  # DFD looks at the clip in about half of them
            gradients = []
            for clips in (batch, moved):
                nets = nets_for(tools, recipe)
                trained = (nets.student,) if network else (nets.fake_score, nets.heads)
                nets.train_only(*(module for module in trained if module is not None))
                rng = Stream(0, turn, 0, CPU, turn)
                report = getattr(get_method(name), role)(clips, nets, recipe, rng)
                weights = [p for m in trained if m is not None for p in m.parameters()]
                gradients.append(torch.autograd.grad(report.loss, weights, allow_unused=True))
            pairs = zip(*gradients, strict=True)
            changed |= any(a is not None and not torch.equal(a, b) for a, b in pairs)
    assert changed is (dict(zip(NAMES, ROWS, strict=True))[name][1] == "yes")


def test_every_bidirectional_method_is_in_the_table():
    assert set(NAMES) == set(method_names()) - {"teacher_forcing", "ode_init"}
