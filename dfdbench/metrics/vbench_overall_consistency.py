"""VBench's overall_consistency: ViCLIP cosine of a clip and its prompt.

Huang et al., "VBench" (2311.17982): f and g the embeddings of 8 frames (middles of equal parts) and
of the prompt, f·g / (|f| |g|), neither scaled nor clamped.
"""

from dfdbench.vbench.viclip import family

FAMILY = family(
    "overall_consistency",
    "VBench (CVPR 2024), overall_consistency: ViCLIP-L cosine of 8 frames and the prompt",
)
