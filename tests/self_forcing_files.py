"""Checkpoints for tests of causal students: a tiny Wan, and a student by Self Forcing's names."""

import torch

from dfdbench.distill.sections import Recipe
from dfdbench.models.causal import Layout
from dfdbench.toy.checkpoint import TINY, build_transformer, write_checkpoint
from dfdbench.utils.run import Run

ORIGINAL = {  # diffusers' names of a Wan -> the original ones, both without the block
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "proj_out": "head.head",
}


def original_name(name: str) -> str:
    if name == "scale_shift_table":
        return "model.head.modulation"
    block = ""
    if name.startswith("blocks."):
        _, number, name = name.split(".", 2)
        block = f"blocks.{number}."
    if name == "scale_shift_table":
        return f"model.{block}modulation"
    part, _, leaf = name.rpartition(".")
    return f"model.{block}{ORIGINAL[part]}.{leaf}"


def original(module) -> dict[str, torch.Tensor]:
    return {original_name(name): value for name, value in module.state_dict().items()}


def loud_checkpoint(folder):
    """A tiny Wan folder whose output is far from zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformer = build_transformer(TINY)
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    return write_checkpoint(folder, TINY, transformer=transformer)


def finished_run(folder, family, checkpoint, sampler="sde", arm="dfd", **layout) -> Run:
    """A run of a causal student with random weights; with block_frames=0 of a bidirectional one."""
    student = {"steps": 2, "sampler": sampler, **(layout or {"block_frames": 2})}
    recipe = Recipe(method="dfd", model=str(checkpoint)).as_dict()
    causal = student["block_frames"] > 0
    recipe["student"].update(student, input="self_forcing" if causal else "noised_real")
    info = {"arm": arm, "method": "dfd", "training_seed": 0, "recipe": recipe}
    run = Run.create(folder, {**info, "status": "finished"})
    frames = {key: value for key, value in student.items() if key.endswith("_frames")}
    module = family.new_causal_module(Layout(**frames)) if causal else family.new_module()
    family.save_student(module, run.student)
    return run
