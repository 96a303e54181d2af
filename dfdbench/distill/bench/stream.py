"""Latency and steady rate of a causal student's stream of blocks, with random weights.

Behind `dfdbench bench stream`. Sampler, cache and decoder are those of `dfdbench generate`.
"""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dfdbench.distill.plan import setup_for
from dfdbench.distill.plan.memory import Setup
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import grid
from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.models.random_init import random_init_family
from dfdbench.models.sampling import compile_blocks, compute_precision, stream_blocks
from dfdbench.utils.device import describe, now, peak_memory, reset_peak, spread
from dfdbench.utils.errors import UserError
from dfdbench.utils.progress import Bar

Block = dict[str, Any]  # frames, seconds of sampling and decoding, and the peak of memory by then


def rollout_layout(recipe: Recipe, window: int | None, sinks: int | None) -> Layout:
    """The blocks of the recipe's student, in another window where one is given.

    Raises:
        UserError: the student is bidirectional, or the window does not hold a block and the sinks.
    """
    own = recipe.student.layout
    if own is None:
        raise UserError(
            f"bench stream times causal students, and {recipe.arm}'s is bidirectional; give "
            "--set student.block_frames=3 and student.input=self_forcing, or take bench sample"
        )
    return Layout(
        own.block_frames,
        own.window_frames if window is None else window,
        own.sink_frames if sinks is None else sinks,
    )


@torch.no_grad()
def bench_stream(
    recipe: Recipe,
    device: torch.device,
    frames: int | None,
    layout: Layout,
    clips: int,
    compiled: bool,
    decode: bool,
) -> dict[str, Any]:
    """Time streams of `clips` clips by the student of `recipe`, after one that is not timed.

    Args:
        frames: of a clip, counted in pixels' frames; None: the recipe's.
        layout: blocks and window of the stream, see `rollout_layout`.
        decode: each block by the autoencoder as well.

    Returns:
        latency of the first block (decoded where `decode`) and frames of video a second from the
        second block on, without and with the autoencoder, as medians over clips; peak memory when
        half of the last clip's blocks were there and at its end; settings.

    Raises:
        UserError: the clip does not fit the model or fill a block, is longer than trained without a
            window, or than the network's positions reach.
    """
    recipe, setup = setup_for(recipe)
    frames = setup.frames if frames is None else frames
    if frames > setup.frames and not layout.window_frames:
        raise UserError(
            f"--frames {frames}: more than the recipe's {setup.frames}, and without a window "
            f"memory grows with length; give --window, {setup.shape.latents[1]} for example"
        )
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    torch.manual_seed(recipe.seed)
    with random_init_family(recipe.model, dtype, device) as family:
        d, data = family.defaults, recipe.data
        size = data.height or d.height, data.width or d.width
        latents = family.latent_shape(frames, *size)[1]
        layout.blocks(latents)  # refuses a clip that does not fill one
        student = family.new_causal_module(layout).eval().requires_grad_(False)
        if (reach := family.causal_variant.reach(student)) < latents:
            raise UserError(
                f"--frames {frames}: {latents} latent frames, and the network's positions "
                f"reach {reach}; lower it"
            )
        if compiled:
            compile_blocks(family, student)
        run = _streamer(recipe, setup, family, student, (frames, latents), decode)
        with Bar(1 + clips, "timing streams") as bar:
            found = []
            for _ in range(1 + clips):
                reset_peak(device)
                found.append(run(device))
                bar.step()
    return {
        "bench": "stream",
        **_summary(found[1:], decode),
        "frames": frames,
        "height": size[0],
        "width": size[1],
        **vars(layout),
        "student_steps": recipe.student.steps,
        "sampler": recipe.student.sampler,
        "parameters": setup.trained.parameters,
        "compile": compiled,
        "compute": "float32" if device.type == "cpu" else "bfloat16",
        "model": recipe.model,
        **describe(device),
    }


def _streamer(
    recipe: Recipe,
    setup: Setup,
    family: ModelFamily,
    student: nn.Module,
    length: tuple[int, int],
    decode: bool,
) -> Callable[[torch.device], list[Block]]:
    """Streams a clip of so many frames and latent frames, and gives its blocks' times."""
    frames, latents = length
    packed = (frames - 1) // max(1, latents - 1)  # frames that a latent one holds; the first has 1

    def run(device: torch.device) -> list[Block]:
        conditioning = setup.shape.batch(1, device).conditioning
        channels, _, height, width = setup.shape.latents

        def noise(_: int, block: range) -> Tensor:
            return torch.randn(1, channels, len(block), height, width, device=device)

        blocks = stream_blocks(
            family, student, lambda _: conditioning, noise, latents, grid(recipe),
            recipe.student.sampler,
        )  # fmt: skip
        decoder = family.stream_decoder() if decode else None
        rows, begun = list[Block](), now(device)
        while True:
            with compute_precision(device) if device.type == "cuda" else nullcontext():
                block = next(blocks, None)
            if block is None:
                return rows
            sampled = now(device)
            if decoder:
                decoder(block)
            rows.append(
                {
                    "frames": block.shape[2] * packed - (0 if rows else packed - 1),
                    "sampling_seconds": sampled - begun,
                    "decoding_seconds": now(device) - sampled if decoder else 0.0,
                    "peak_memory": peak_memory(device),
                }
            )
            begun = now(device)

    return run


def _summary(clips: list[list[Block]], decode: bool) -> dict[str, Any]:
    """Latency and rates of clips; a rate is of the blocks from the second on, where there are."""
    latency, fps, whole = [], [], []
    for blocks in clips:
        latency.append(blocks[0]["sampling_seconds"] + blocks[0]["decoding_seconds"])
        frames, sampling, decoding = (
            sum(block[key] for block in blocks[1:] or blocks)
            for key in ("frames", "sampling_seconds", "decoding_seconds")
        )
        fps.append(frames / sampling)
        whole.append(frames / (sampling + decoding))
    last = clips[-1]
    return {
        "latency": spread(latency),
        "fps": statistics.median(fps),
        "fps_with_vae": statistics.median(whole) if decode else None,
        "peak_memory": {
            "half": last[(len(last) - 1) // 2]["peak_memory"],
            "whole": last[-1]["peak_memory"],
        },
        "blocks": last,
    }
