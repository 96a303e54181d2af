"""`dfdbench plan`: memory, FLOPs and hours of a recipe before anything is downloaded.

Used by the command and by the benches, which take their FLOPs from here. Nothing is estimated but
the share of the GPU's peak that is reached (`mfu`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import rounds_each
from dfdbench.distill.plan.memory import Setup, lines
from dfdbench.distill.plan.streaming import in_words, streaming
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.sections import Optim, Recipe
from dfdbench.distill.stages import first_stage_recipe, resolve
from dfdbench.models.random_init import random_init_family
from dfdbench.utils.errors import UserError, unknown_name

GIB = 2**30
RESERVE = 0.06  # of a GPU's memory: CUDA's context and fragmentation


@dataclass(frozen=True)
class Gpu:
    """Memory in GiB as the driver reports it, and the data sheet's TFLOP/s of dense bfloat16."""

    name: str
    memory: float
    tflops: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("h100", 79, 989),
        Gpu("h100-pcie", 79, 756),
        Gpu("h200", 140, 989),
        Gpu("b200", 179, 2250),
        Gpu("a100-80g", 80, 312),
        Gpu("a100-40g", 40, 312),
        Gpu("l40s", 45, 362),
        Gpu("rtx4090", 24, 165),
    )
}


# Shares of an H100's peak that the field reaches at these shapes, by attention and compile; nobody
# measured them here. Kernels and pairs that are not named count as the slower one that is.
MFU = {("flash", False): 0.25, ("cudnn", False): 0.31, ("cudnn", True): 0.38}


def estimated_mfu(optim: Optim) -> float:
    """Share of the peak to expect of these blocks: an estimate, until `bench train` measured it."""
    if optim.attention in ("cudnn", "fa3"):
        return MFU["cudnn", bool(optim.compile)]
    return MFU["flash", False]


def choose_gpu(name: str, memory: float | None, tflops: float | None) -> Gpu:
    """A known GPU, or with memory (GiB) and peak of its own.

    Raises:
        UserError: no such name, or only one of the two numbers.
    """
    if (memory is None) != (tflops is None):
        raise UserError("--gpu-memory and --tflops belong together; give both, or --gpu NAME")
    if memory is not None and tflops is not None:
        return Gpu("own", memory, tflops)
    if name not in GPUS:
        raise unknown_name("--gpu", name, GPUS)
    return GPUS[name]


def setup_for(recipe: Recipe, gpus: int = 1) -> tuple[Recipe, Setup]:
    """The recipe with its model's defaults filled in, and what it trains, without any weights.

    Raises:
        UserError: nothing is known of the model, clips that do not fit it or a causal student's
            blocks, too many GPUs, or a causal student of a family that has none.
    """
    with random_init_family(recipe.model, torch.bfloat16, "meta") as family:
        d, data = family.defaults, recipe.data
        recipe = resolve(recipe, d)
        get_method(recipe.method).record(recipe, family)
        size = (data.frames or d.frames, data.height or d.height, data.width or d.width)
        shape = Shape(family.latent_shape(*size), family.text_shape, family.conditioning_frames)
        blocks = family.block_count(family.teacher)
        if layout := recipe.student.layout:
            _ = family.causal_variant, layout.blocks(shape.latents[1])  # or they refuse it
    rounds_each(recipe.optim.accumulate, recipe.optim.batch, gpus)
    return recipe, Setup(recipe, recipe.model, shape, blocks, gpus, size[0])


def flops(setup: Setup, student: bool) -> tuple[float, float]:
    """FLOPs of a step for one clip, and those of gradient checkpointing on top."""
    work = again = 0.0
    for one in setup.passes(student):
        cost = setup.cost(one)
        work += one.count * (cost.forward + cost.backward)
        again += one.count * setup.recomputed(one)
    work += sum(count * (look.forward + look.backward) for count, look in setup.looks(student))
    return work, again


def update_passes(setup: Setup) -> float:
    """What a student update costs for each clip of its batch, in forward passes of the network.

    By FLOPs, backward passes and the steps of the fake score or heads among them.
    """
    work = _of_update(setup.recipe, flops(setup, True)[0], flops(setup, False)[0])
    return work / setup.trained.whole.forward


def _of_update(recipe: Recipe, student: float, fake: float) -> float:
    """What a student update costs, of the costs of its one student step and of a fake score's."""
    return student + (recipe.schedule.student_update_freq - 1) * fake


def _variants(setup: Setup) -> list[tuple[str, Setup]]:
    """Ways to need less memory, each on top of those before it, in the order to try them."""

    def changed(now: Setup, **values: Any) -> Setup:
        optim = dataclasses.replace(now.recipe.optim, **values)
        return dataclasses.replace(now, recipe=dataclasses.replace(now.recipe, optim=optim))

    variants, now = [], setup
    if now.recipe.optim.checkpointing == "none":
        now = changed(now, checkpointing="full")
        variants.append(("--set optim.checkpointing=full", now))
    if now.micro > 1:
        now = changed(now, accumulate=now.recipe.optim.batch)
        variants.append((f"--set optim.accumulate={now.recipe.optim.batch}", now))
    for gpus in (2, 4, 8, 16, 32, 64):
        if gpus > setup.gpus and now.recipe.optim.accumulate % gpus == 0:
            now = dataclasses.replace(now, gpus=gpus)
            variants.append((f"{gpus} GPUs (torchrun --nproc-per-node {min(gpus, 8)})", now))
    if now.recipe.teacher.guidance_passes == "batched":
        teacher = dataclasses.replace(now.recipe.teacher, guidance_passes="sequential")
        now = dataclasses.replace(now, recipe=dataclasses.replace(now.recipe, teacher=teacher))
        variants.append(("--set teacher.guidance_passes=sequential", now))
    return variants


def advice(setup: Setup, gpu: Gpu) -> list[str]:
    """What to change, in order, until a step fits; empty where it fits as it is."""
    room = gpu.memory * GIB * (1 - RESERVE)
    if sum(lines(setup).values()) <= room:
        return []
    said = []
    for change, variant in _variants(setup):
        total = sum(lines(variant).values())
        said.append(f"{change}: {total / GIB:.1f} GiB a GPU")
        if total <= room:
            return said
    return [*said, "none of these suffices: take a GPU with more memory, or smaller clips"]


def make_plan(
    recipe: Recipe, gpus: int, gpu: Gpu, mfu: float | None = None, first: bool = True
) -> dict[str, Any]:
    """Memory, FLOPs and time of training `recipe`, as plain values; `text` puts them in words.

    Args:
        mfu: share of the peak that is reached, not counting what checkpointing does again; None
            for the estimate by the recipe's attention and compile.
        first: plan the first stage too that the recipe names.

    Raises:
        UserError: see `setup_for`.
    """
    recipe, setup = setup_for(recipe, gpus)
    memory = lines(setup)
    student, student_again = flops(setup, True)
    fake, fake_again = flops(setup, False)
    s, batch = recipe.schedule, recipe.optim.batch
    update = batch * _of_update(recipe, student, fake)
    share = estimated_mfu(recipe.optim) if mfu is None else mfu
    rate = gpus * gpu.tflops * 1e12 * share
    n, to_change = setup.trained, advice(setup, gpu)
    return {
        "recipe": recipe.arm,
        "method": recipe.method,
        "model": recipe.model,
        "latents": list(setup.shape.latents),
        "text": list(setup.shape.text),
        "gpus": gpus,
        "gpu": dataclasses.asdict(gpu),
        "mfu": share,
        "mfu_is_an_estimate": mfu is None,
        "batch": batch,
        "clips_at_a_time": setup.micro,
        "rounds_a_gpu": setup.rounds,
        "checkpointing": recipe.optim.checkpointing,
        "guidance_passes": recipe.teacher.guidance_passes,
        "parameters": {"network": n.parameters, "heads": setup.head_parameters},
        "memory_bytes": {**memory, "total": sum(memory.values())},
        "fits": not to_change,
        "advice": to_change,
        "passes": {
            name: [dataclasses.asdict(p) for p in setup.passes(name == "student_step")]
            for name in ("student_step", "fake_score_step")
        },
        "flops": {
            "forward_pass_of_one_clip": n.whole.forward,
            "student_step": batch * student,
            "fake_score_step": batch * fake,
            "student_update": update,
            "recomputed_in_student_update": batch * _of_update(recipe, student_again, fake_again),
        },
        "seconds_a_student_update": update / rate,
        "samples_a_second": batch * s.student_update_freq * rate / update,
        "student_updates": s.student_updates,
        "streaming": streaming(setup, setup.frames, gpu.tflops * 1e12 * share),
        "hours": s.student_updates * update / rate / 3600,
        "first_stage": make_plan(first_stage_recipe(recipe), gpus, gpu, mfu)
        if first and recipe.init.recipe
        else None,
    }


WHAT = {
    "clip": "all blocks",
    "after_clean": "all blocks, after a clean clip",
    "block": "a block after the cache",
    "memory": "a clean block into the cache",
}


def _kinds(passes: list[dict[str, Any]]) -> dict[str, float]:
    """Passes in words, and how often they are; those of a rollout's blocks are one kind."""
    kinds: dict[str, float] = {}
    for p in passes:
        kept = {"none": "no gradient"}.get(p["gradient"], f"gradient to {p['gradient']}")
        said = f"{p['network']:<11}{kept}"
        if piece := p["piece"]:
            said = f"{said:<31}{WHAT[piece['kind']]}"
        kinds[said] = kinds.get(said, 0.0) + p["count"]
    return kinds


def text(plan: dict[str, Any]) -> str:
    """The plan for people."""
    gpu, memory, f = plan["gpu"], plan["memory_bytes"], plan["flops"]
    channels, frames, height, width = plan["latents"]
    guessed = " (an estimate, not measured; --mfu sets it)" if plan["mfu_is_an_estimate"] else ""
    fake = f"fake score step {f['fake_score_step'] / 1e12:.0f}, " if f["fake_score_step"] else ""
    rows = [
        f"{plan['recipe']} on {plan['model']}: {plan['parameters']['network'] / 1e9:.3f} billion "
        f"parameters, latents {channels}x{frames}x{height}x{width}, "
        f"text {'x'.join(map(str, plan['text']))}",
        f"batch {plan['batch']}: {plan['gpus']} GPU x {plan['rounds_a_gpu']} rounds x "
        f"{plan['clips_at_a_time']} clips, checkpointing {plan['checkpointing']}, "
        f"guidance {plan['guidance_passes']}",
        "",
        "memory of a GPU, GiB",
    ]
    rows += [f"  {name:<40}{size / GIB:8.2f}" for name, size in memory.items() if size]
    rows.append("  text encoder and autoencoder: not resident, as data encode made latents before")
    verdict = "fits" if plan["fits"] else "does not fit"
    rows.append(f"  {verdict} {gpu['name']} ({gpu['memory']:g} GiB, {RESERVE:.0%} kept free)")
    rows += [f"    then {line}" for line in plan["advice"]]
    rows += ["", "passes for each clip"]
    for name, passes in plan["passes"].items():
        rows += [f"  {name:<17}{count:5.2f} x {said}" for said, count in _kinds(passes).items()]
    rows += [
        "",
        f"TFLOP: forward pass of a clip {f['forward_pass_of_one_clip'] / 1e12:.1f}, student step "
        f"{f['student_step'] / 1e12:.0f}, "
        f"{fake}"
        f"student update {f['student_update'] / 1e12:.0f} "
        f"(and {f['recomputed_in_student_update'] / 1e12:.0f} again for checkpointing)",
        f"at {plan['mfu']:.0%}{guessed} of {plan['gpus']} x {gpu['tflops']:g} TFLOP/s: "
        f"{plan['seconds_a_student_update']:.3g} s a student update, "
        f"{plan['samples_a_second']:.3g} samples/s, {plan['hours']:.1f} hours for "
        f"{plan['student_updates']} updates",
    ]
    if plan["streaming"]:
        rows.append(in_words(plan["streaming"], guessed))
    if plan["first_stage"]:
        stage = plan["first_stage"]
        rows += ["", "before it, unless --init names such a run:", ""]
        rows += text(stage).splitlines()
    return "\n".join(rows)
