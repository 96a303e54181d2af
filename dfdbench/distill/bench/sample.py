"""Latency of few-step sampling with random weights, with and without the autoencoder.

Behind `dfdbench bench sample`. Sampler and decoding are those of `dfdbench generate`.
"""

from typing import Any

import torch

from dfdbench.distill.plan import setup_for
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import grid
from dfdbench.models.random_init import random_init_family
from dfdbench.models.sampling import (
    compile_blocks,
    compute_precision,
    decode_clips,
    is_tiled,
    predictor,
    sample_student,
)
from dfdbench.utils.device import describe, peak_memory, reset_peak, spread, times
from dfdbench.utils.errors import UserError


@torch.no_grad()
def bench_sample(
    recipe: Recipe,
    device: torch.device,
    batch: int,
    steps: int,
    warmup: int,
    compiled: bool,
    decode: bool,
) -> dict[str, Any]:
    """Time `steps` samplings of `batch` clips by the student of `recipe`, and their decoding.

    Returns:
        median and range of the times for a whole batch; frames of video a second without and with
        the autoencoder; peak memory; settings.

    Raises:
        UserError: the student is causal, or see `setup_for`.
    """
    if recipe.student.layout:
        raise UserError(
            f"bench sample times whole clips, and {recipe.arm}'s student makes them block by "
            "block; take bench stream, or leave out student.block_frames"
        )
    recipe, setup = setup_for(recipe)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    torch.manual_seed(recipe.seed)
    with random_init_family(recipe.model, dtype, device) as family:
        student = family.new_module().eval().requires_grad_(False)
        if compiled:
            compile_blocks(family, student)
        conditioning = setup.shape.batch(batch, device).conditioning
        predict = predictor(family, student, conditioning)
        noise = latents = torch.randn(batch, *setup.shape.latents, device=device)

        def sample(_: int) -> None:
            nonlocal latents
            with compute_precision(device):
                latents = sample_student(
                    predict, noise, grid(recipe), recipe.student.sampler, lambda _: noise
                )

        reset_peak(device)
        sampling = spread(times(sample, device, warmup, steps, "timing sampling"))
        sampling_memory = peak_memory(device)
        decoding, decoding_memory, tiled = None, None, None
        if decode:
            reset_peak(device)

            def look(_: int) -> None:
                for _clip in decode_clips(family, latents):
                    pass

            decoding = spread(times(look, device, min(warmup, 1), steps, "timing decoding"))
            decoding_memory, tiled = peak_memory(device), is_tiled(family)
    d, data = family.defaults, recipe.data
    frames = data.frames or d.frames
    alone = sampling["median_seconds"]
    whole = alone + decoding["median_seconds"] if decoding else None
    return {
        "bench": "sample",
        "sampling": sampling,
        "decoding": decoding,
        "vae_tiled": tiled,
        "fps": batch * frames / alone,
        "fps_with_vae": batch * frames / whole if whole else None,
        "peak_memory": {"sampling": sampling_memory, "decoding": decoding_memory},
        "batch": batch,
        "frames": frames,
        "height": data.height or d.height,
        "width": data.width or d.width,
        "student_steps": recipe.student.steps,
        "sampler": recipe.student.sampler,
        "parameters": setup.trained.parameters,
        "latents": list(setup.shape.latents),
        "text": list(setup.shape.text),
        "compile": compiled,
        "compute": "float32" if device.type == "cpu" else "bfloat16",
        "model": recipe.model,
        "warmup": warmup,
        **describe(device),
    }
