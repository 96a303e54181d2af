"""The toy suites: captions of the toy world at three levels, and with a first frame."""

from dataclasses import replace

from dfdbench.generate.suites.base import TOY_FIRST_FRAME, Prompt, Suite
from dfdbench.toy.world import Caption, captions

CLIPS = tuple(range(1, 65))  # fewer leave entropies biased and modes uncounted
FEWER = CLIPS[:16]  # of suites with many prompts


def _prompt(caption: Caption) -> Prompt:
    fixed = {
        "shape": caption.shape,
        "scene": caption.scene,
        "hue": caption.hue,
        "direction": caption.direction,
    }
    return Prompt(caption.id, caption.text, {k: v for k, v in fixed.items() if v})


TOY_METRICS = ("oracle", "colour", "flicker")


def toy_t2v() -> Suite:
    """Captions that name shape and scene; everything else is free."""
    return Suite(
        "toy-t2v",
        version=2,
        description="16 captions that fix shape and scene; hue, direction, pan and size are free",
        prompts=tuple(_prompt(caption) for caption in captions()),
        seeds=CLIPS,
        metrics=TOY_METRICS,
    )


def toy_hue() -> Suite:
    """Captions that name the hue as well."""
    return replace(
        toy_t2v(),
        name="toy-hue",
        version=1,
        description="96 captions that fix shape, scene and hue; direction, pan and size are free",
        prompts=tuple(_prompt(caption) for caption in captions(2)),
        seeds=FEWER,
    )


def toy_direction() -> Suite:
    """Captions that name hue and direction as well: of all 768, every eighth in turn."""
    every = captions(3)
    chosen = [every[8 * i + (i + i // 8) % 8] for i in range(len(every) // 8)]
    return replace(
        toy_t2v(),
        name="toy-direction",
        version=1,
        description="96 captions that fix shape, scene, hue and direction; pan and size are free",
        prompts=tuple(_prompt(caption) for caption in chosen),
        seeds=FEWER,
    )


def toy_i2v() -> Suite:
    """toy-t2v's captions, each with one first frame, whose sprite has no colour yet."""
    return replace(
        toy_t2v(),
        name="toy-i2v",
        version=2,
        description="toy-t2v's captions, each with one first frame; hue, size, direction and pan "
        "are free",
        metrics=("oracle_i2v", "first_frame", "colour", "flicker"),
        conditions=TOY_FIRST_FRAME,
    )
