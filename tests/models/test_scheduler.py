"""A student's folder in plain diffusers: the same times, and the same clip."""

import json

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dfdbench.models.flow import student_times
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import predictor, sample_student, start_at
from dfdbench.models.scheduler import Sampling, student_scheduler, write_scheduler
from dfdbench.utils.errors import UserError

OWN_TIMES = (1.0, 0.858, 0.602, 0.009)  # DP-DMD's, as released


def shifted(steps, shift):
    return tuple(student_times(steps, shift)[:-1].tolist())


@pytest.fixture
def folder(tmp_path):
    index = {"_class_name": "WanPipeline", "scheduler": ["diffusers", "UniPCMultistepScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(
    ("times", "shift"),
    [(OWN_TIMES, 5.0), *((shifted(n, s), s) for n in (1, 2, 4) for s in (1.0, 3.0, 5.0))],
)
def test_the_times_are_read_back_exactly(folder, times, shift):
    write_scheduler(folder, Sampling(times, shift))
    scheduler = student_scheduler(folder)
    scheduler.set_timesteps(len(times))
    expected = torch.tensor([*times, 0.0])
    torch.testing.assert_close(scheduler.sigmas, expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(scheduler.timesteps, 1000 * expected[:-1])
    assert scheduler.config.student_times == list(times) and scheduler.config.student_shift == shift
    index = json.loads((folder / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0, 8.0])
def test_as_diffusers_loads_it_only_the_first_time_differs(folder, steps, shift):
    """It is 1, where the student's is 0.999."""
    write_scheduler(folder, Sampling(shifted(steps, shift), shift))
    plain = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    plain.set_timesteps(steps)
    expected = torch.tensor([1.0, *shifted(steps, shift)[1:], 0.0])
    torch.testing.assert_close(plain.sigmas, expected, atol=1e-5, rtol=0)


def test_the_sampler_is_the_students(folder):
    for sampler, fresh in (("ode", False), ("sde", True)):
        write_scheduler(folder, Sampling(shifted(4, 5.0), 5.0, sampler))
        assert student_scheduler(folder).config.stochastic_sampling is fresh


def test_explicit_timesteps_alone_would_not_set_the_sigmas():
    """Diffusers since 0.40 derives others from them, which is why sigmas are passed."""
    times = torch.tensor(shifted(4, 5.0))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    scheduler.set_timesteps(timesteps=(1000 * times).tolist())
    assert (scheduler.sigmas[:-1] - times).abs().max() > 0.1


def test_a_teachers_folder_has_no_student_times(tiny_checkpoint):
    with pytest.raises(UserError, match=r"scheduler_config\.json has no student_times; give the"):
        student_scheduler(tiny_checkpoint)


@pytest.mark.parametrize("times", [shifted(4, 5.0), OWN_TIMES], ids=["shifted", "own"])
def test_a_plain_pipeline_samples_the_students_clip(tiny_checkpoint, tmp_path, times):
    family = load_family(tiny_checkpoint)
    student = family.new_module()
    with torch.no_grad():
        student.proj_out.bias += 0.1
    family.save_student(student, tmp_path / "student", Sampling(times, 5.0))
    pipeline = diffusers.WanPipeline.from_pretrained(tmp_path / "student")
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *family.latent_shape(17, 64, 64),
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    grid = torch.tensor([*times, 0.0], dtype=torch.float64)

    def plain():
        return pipeline(
            "a ball", height=64, width=64, num_frames=17, num_inference_steps=4,
            guidance_scale=1.0, latents=start_at(noise, times[0]), max_sequence_length=16,
            output_type="latent",
        ).frames  # fmt: skip

    untold = plain()
    if times != OWN_TIMES:
        torch.testing.assert_close(
            pipeline.scheduler.sigmas[1:].double(), grid[1:], atol=1e-5, rtol=0
        )
    pipeline.scheduler = student_scheduler(tmp_path / "student")
    theirs = plain()
    torch.testing.assert_close(pipeline.scheduler.sigmas.double(), grid, atol=1e-6, rtol=0)
    with torch.no_grad():
        ours = sample_student(
            predictor(family, student, family.encode_prompt(["a ball"])), noise, grid
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    if times != OWN_TIMES:
        assert (untold - ours).norm() / ours.norm() < 5e-3, "all but the clip, without being told"
