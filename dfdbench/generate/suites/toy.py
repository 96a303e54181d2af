"""The toy suites: captions of the toy world, with or without a first frame."""

from dataclasses import replace

from dfdbench.generate.suites.base import TOY_FIRST_FRAME, Prompt, Suite
from dfdbench.toy.world import captions

TOY_METRICS = ("oracle", "colour", "flicker")


def toy_t2v() -> Suite:
    """Captions of the toy world; everything else is free."""
    return Suite(
        "toy-t2v",
        version=1,
        description="12 captions that fix shape and scene; hue, direction and pan are free",
        prompts=tuple(
            Prompt(c.id, c.text, {"shape": c.shape, "scene": c.scene}) for c in captions()
        ),
        seeds=tuple(range(1, 17)),
        metrics=TOY_METRICS,
    )


def toy_i2v() -> Suite:
    """The same captions, each with one first frame."""
    return replace(
        toy_t2v(),
        name="toy-i2v",
        description="toy-t2v's captions, each with one first frame; direction and pan are free",
        metrics=("oracle_i2v", "first_frame", "colour", "flicker"),
        conditions=TOY_FIRST_FRAME,
    )
