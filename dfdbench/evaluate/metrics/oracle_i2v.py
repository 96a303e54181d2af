"""Fidelity and diversity of image-to-video on the toy: does the picture's sprite go on, and where?

Suite toy-i2v is scored with it, where all clips of a prompt are given one picture. It fixes shape,
scene, hue and start; direction and pan stay free. A clip continues its picture if its sprite stays
whole, of the picture's shape and hue, and moves on steadily (dfdbench.toy.oracle.continues); the
entropies count such clips only (n says how many) and are missing with fewer than 2.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, plain
from dfdbench.evaluate.metrics.oracle import FREE, MIN_CLIPS, normalised_entropy
from dfdbench.utils.video import Clip

STILL = 5  # frames of a picture shown as a clip, the fewest that the oracle reads
OPEN = {name: FREE[name] for name in ("direction", "pan")}  # classes of what the picture leaves


def compute(clip: Clip) -> dict[str, float]:
    """What the oracle reads in a clip beside its picture; nothing without a picture."""
    from dfdbench.toy import oracle

    if clip.image is None:
        return {}
    picture = oracle.read(np.repeat(clip.image[None], STILL, 0))
    reading = oracle.read(clip.frames)
    goes_on = picture.intact and oracle.continues(reading, picture.shape, picture.hue)
    values = {f"i2v_{name}": float(getattr(reading, name)) for name in OPEN}
    return values | {"sprite_continues": float(goes_on)}


def group(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Entropies over the clips of one picture that continue it."""
    kept = [
        r
        for r in readings
        if r["sprite_continues"] == 1 and min(r[f"i2v_{name}"] for name in OPEN) >= 0
    ]
    if len(kept) < MIN_CLIPS:
        return {}
    labels = {name: np.array([r[f"i2v_{name}"] for r in kept], dtype=int) for name in OPEN}
    return {
        f"{name}_entropy_given_image": GroupValue(
            normalised_entropy(labels[name], classes), len(kept)
        )
        for name, classes in OPEN.items()
    }


ENTROPY = "Miller–Madow entropy over clips that continue one picture / log of the classes"
FAMILY = MetricFamily(
    "oracle_i2v",
    policy="all",
    metrics=(
        *(
            Metric(
                f"i2v_{name}", "nearest_reference", "class", (-1, classes - 1),
                "toy oracle: class index, -1 where it cannot be read",
                f"Number of the {name}'s class that the oracle reads in the clip; −1 where it "
                "cannot.", kind="reading",
            )
            for name, classes in OPEN.items()
        ),
        Metric(
            "sprite_continues", "higher", "", (0.0, 1.0),
            "one whole sprite of the picture's shape and hue, moving steadily",
            "1 if the sprite of the given picture goes on through the clip, whole, of its shape and"
            " hue and in steady motion, else 0; its mean is the share of such clips.",
        ),
        *(
            Metric(
                f"{name}_entropy_given_image", "higher", "", (0.0, 1.5), ENTROPY,
                f"How evenly the clips that continue one picture spread over the {classes} classes "
                f"of {name}, which the picture leaves open: entropy (Miller–Madow) / log "
                f"{classes}. 0 if always the same, about 1 if uniform.", level="prompt",
            )
            for name, classes in OPEN.items()
        ),
    ),
    load=plain(compute),
    group=group,
    needs=("image",),
    min_frames=STILL,
)  # fmt: skip
