"""The names of a Wan's weights in its authors' own code (Wan2.1, 2503.20314), beside diffusers'.

Used by wan.py, for checkpoints and LoRAs that were written with the original names.
"""

PARTS = {  # module in diffusers -> in the original code, both without the number of the block
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
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "proj_out": "head.head",
}
MODULATION = "scale_shift_table"


def original_name(name: str) -> str:
    """The original name of a weight of diffusers' text-to-video Wan."""
    if name == MODULATION:
        return "head.modulation"
    block = ""
    if name.startswith("blocks."):
        _, number, name = name.split(".", 2)
        block = f"blocks.{number}."
    if name == MODULATION:
        return f"{block}modulation"
    part, _, leaf = name.rpartition(".")
    return f"{block}{PARTS.get(part, part)}.{leaf}"
