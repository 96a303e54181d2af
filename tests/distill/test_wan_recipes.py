"""The recipes of Wan2.1-T2V-1.3B against a table written by hand from the paper (2606.18478)."""

import dataclasses
import math
import re

import pytest

from dfdbench.distill.methods import get_method
from dfdbench.distill.methods.dp_dmd import anchor_steps
from dfdbench.distill.recipe import baselines_folder, load_recipe, shipped_recipes
from dfdbench.distill.stages import first_stage_recipe, grid
from dfdbench.models.published_configs import published_config

FOLDER = "wan2.1-t2v-1.3b"
DMD2_ITERATIONS, FIRST_STAGE, DFD_ITERATIONS = 30_000, 25_000, 100  # Table 4
STUDENT_EVERY = 5

# method, batch, student steps, iterations, GAN, p, first stage
TABLE = {
    "dmd2": ("dmd2", 16, 4, DMD2_ITERATIONS, True, None, None),
    "dp_dmd": ("dp_dmd", 16, 4, DMD2_ITERATIONS, False, None, None),
    "dfd": ("dfd", 16, 4, DFD_ITERATIONS, False, 0.5, "dmd2"),
    "dfd_gan": ("dfd", 16, 4, DFD_ITERATIONS, True, 0.5, "dmd2"),
    "dfd_w1": ("dfd", 16, 4, DFD_ITERATIONS, False, 1.0, "dmd2"),
    "dfd_scratch": ("dfd", 16, 4, FIRST_STAGE + DFD_ITERATIONS, False, 0.5, None),
    "dmd2_batch128": ("dmd2", 128, 4, DMD2_ITERATIONS, True, None, None),
    "dfd_batch128": ("dfd", 128, 4, DFD_ITERATIONS, False, 0.5, "dmd2_batch128"),
    "dmd2_two_step": ("dmd2", 16, 2, DMD2_ITERATIONS, True, None, None),
    "dfd_two_step": ("dfd", 16, 2, DFD_ITERATIONS, False, 0.5, "dmd2_two_step"),
}
# Methods of other papers: lr, fake lr, batch, ratio, standard guidance, G's input, sampler.
RIVALS = {
    "decoupled_dmd": (1e-5, 1e-5, 16, 5, 5.0, "noised_real", "ode"),
    "dcm_dmd": (2e-6, 4e-7, 16, 5, 6.0, "noised_real", "sde"),
    "avd": (2e-6, 2e-6, 16, 5, 6.0, "backward_simulation", "sde"),
    "f_distill": (5e-5, 5e-5, 16, 5, 5.0, "noised_real", "ode"),
    "sid": (2e-6, 2e-6, 64, 5, 4.0, "backward_simulation", "sde"),
    "adversarial": (2e-6, 4e-6, 16, 2, 5.0, "noised_real", "ode"),
}
TIMES = {4: [0.999, 0.9375, 0.8333, 0.625, 0.0], 2: [0.999, 0.8333, 0.0]}


def test_the_table_lists_every_shipped_recipe():
    shipped = {name.split("/")[1] for name in shipped_recipes() if name.startswith(f"{FOLDER}/")}
    assert shipped == TABLE.keys() | RIVALS.keys()


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_papers_values(name):
    method, batch, steps, iterations, gan, p, first = TABLE[name]
    recipe = load_recipe(f"{FOLDER}/{name}")
    o, s, d = recipe.optim, recipe.schedule, recipe.gan
    assert recipe.method == method and recipe.arm == name
    assert (recipe.model, recipe.family) == (published_config(FOLDER)["repository"], "wan")
    assert (o.lr, o.fake_lr, o.batch) == (1e-5, 1e-5, batch)
    assert (o.betas, o.weight_decay, o.clip, o.ema) == ((0.9, 0.999), 0.01, 10.0, 0.0)
    assert o.checkpointing == "full" and o.batch == o.accumulate, "one clip at a time fits one GPU"
    assert (s.student_update_freq, s.student_updates * STUDENT_EVERY) == (STUDENT_EVERY, iterations)
    assert (s.shift, s.t_low, s.t_high, recipe.teacher.cfg) == (5.0, 0.001, 0.999, 5.0)
    assert grid(recipe).tolist() == pytest.approx(TIMES[steps], abs=1e-4)
    assert (recipe.student.input, recipe.student.sampler) == ("noised_real", "ode")
    assert (recipe.data.frames, recipe.data.height, recipe.data.width) == (81, 480, 832)
    assert recipe.teacher.negative is None, "the checkpoint's own"
    assert get_method(method).uses_gan(recipe) is gan
    if gan:
        assert (d.weight, d.blocks, d.lr or o.fake_lr) == (0.03, (15, 22, 29), 1e-5)
    if p is not None:
        assert (recipe.options.p, recipe.options.w, recipe.options.gradient_space) == (
            p,
            None,
            "x0",
        )
    assert recipe.init.recipe == (f"{FOLDER}/{first}" if first else "")
    if first:
        assert recipe.init.updates * STUDENT_EVERY == FIRST_STAGE
    assert recipe.log.decode_every == 0, "the autoencoder stays on the disk"


def test_dp_dmd_anchors_after_five_steps_of_wans_own_grid():
    options = load_recipe(f"{FOLDER}/dp_dmd").options
    assert (anchor_steps(options), options.weight) == (5, 0.05)
    assert (options.grid_steps, options.grid_shift) == (50, 5.0)


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row[-1]])
def test_a_first_stage_is_its_own_recipe_stopped_at_25000_iterations(name):
    first = load_recipe(f"{FOLDER}/{TABLE[name][-1]}")
    made = first_stage_recipe(load_recipe(f"{FOLDER}/{name}"))
    shorter = dataclasses.replace(first.schedule, student_updates=FIRST_STAGE // STUDENT_EVERY)
    assert made.digest() == dataclasses.replace(first, schedule=shorter).digest()


def test_a_first_stage_saves_memory_as_the_second_does():
    changes = ["teacher.guidance_passes=sequential", "optim.gradient_checkpointing=false"]
    made = first_stage_recipe(load_recipe(f"{FOLDER}/dfd", changes))
    assert made.teacher.guidance_passes == "sequential" and made.optim.checkpointing == "none"
    assert made.teacher.cfg == 5.0


def test_the_readme_starts_every_recipe_by_its_name():
    text = (baselines_folder() / FOLDER / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"--recipe {re.escape(FOLDER)}/(\w+)", text))
    assert named == TABLE.keys() | RIVALS.keys()


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_s_recipe_has_the_released_values(name):
    recipe = load_recipe(f"{FOLDER}/{name}")
    o, s, student = recipe.optim, recipe.schedule, recipe.student
    assert recipe.method == recipe.arm == name
    assert (recipe.model, recipe.family) == (published_config(FOLDER)["repository"], "wan")
    found = (o.lr, o.fake_lr, o.batch, s.student_update_freq, recipe.teacher.cfg)
    assert (*found, student.input, student.sampler) == RIVALS[name]
    assert o.checkpointing == "full" and o.batch == o.accumulate and s.shift == 5.0
    assert (recipe.data.frames, recipe.data.height, recipe.data.width) == (81, 480, 832)
    assert recipe.log.decode_every == 0 and not recipe.init.recipe
    get_method(name).record(recipe, None)


def test_rcm_s_released_sampler_is_in_its_recipe():
    """Starts at sigma 80, then at TrigFlow's times 1.3, 1 and .6: t = tan / (1 + tan)."""
    sigmas = [80.0, *(math.tan(time) for time in (1.3, 1.0, 0.6))]
    expected = [sigma / (1 + sigma) for sigma in sigmas]
    assert grid(load_recipe(f"{FOLDER}/dcm_dmd")).tolist()[:-1] == pytest.approx(expected, abs=5e-4)
