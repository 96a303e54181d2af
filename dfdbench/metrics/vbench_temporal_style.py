"""VBench's temporal_style: ViCLIP cosine of a clip and a prompt that asks for a camera or style.

Huang et al., "VBench" (2311.17982). The formula is that of vbench_overall_consistency; VBench asks
it of 100 other prompts, which end in a manner of filming such as "in super slow motion".
"""

from dfdbench.vbench.viclip import family

FAMILY = family(
    "temporal_style",
    "VBench (CVPR 2024), temporal_style: ViCLIP-L cosine of 8 frames and the prompt",
)
