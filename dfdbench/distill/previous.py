"""Recipe keys of the previous version, read as today's; used by recipe.py.

That version had no [gan] and no [fake_score]: [dmd2] held both for every method. DFD had its GAN
only with `dfd.gan`, DP-DMD never, whatever [dmd2] said.
"""

from typing import Any

RENAMED = {
    "schedule.ratio": "schedule.student_update_freq",
    "dmd2.gan_weight": "gan.weight",
    "dmd2.gan_features": "gan.features",
    "dmd2.gan_critic_weight": "gan.discriminator_weight",
    "dmd2.gan_lr": "gan.lr",
    "dmd2.blocks": "gan.blocks",
    "dmd2.r1_weight": "gan.r1_weight",
    "dmd2.r1_alpha": "gan.r1_alpha",
    "dmd2.critic_loss": "fake_score.loss",
    "optim.gradient_checkpointing": "optim.checkpointing",
}


CHECKPOINTING = {True: "full", False: "none", None: "none"}
"""Policies that optim.gradient_checkpointing, and "none" as --set reads it, stand for."""


def modern(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of a recipe, as they were given one after the other, under today's
    names; of two that set one key the later wins."""
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        name = RENAMED.get(key, key)
        if name == "optim.checkpointing" and (value is None or isinstance(value, bool)):
            value = CHECKPOINTING[value]
        renamed[name] = value
    method, switch = renamed.get("method"), None
    if isinstance(renamed.get("dfd.gan"), bool):
        switch = renamed.pop("dfd.gan")
    only_old = "dmd2.gan_weight" in values and "gan.weight" not in values
    off = (
        (method == "dfd" and switch is False)
        or (method == "dfd" and only_old and switch is None)
        or (method == "dp_dmd" and only_old)
    )
    return renamed | {"gan.weight": 0.0} if off else renamed
