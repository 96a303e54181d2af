"""The registry of methods: a module with these five functions, named in the recipe."""

from typing import Any, Protocol

from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import Generated
from dfdbench.distill.methods import dfd, dmd2, dp_dmd
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.recipe import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import unknown_name


class Method(Protocol):
    """What the loop asks of a method."""

    def uses_gan(self, recipe: Recipe) -> bool:
        """Whether to build discriminator heads."""
        ...

    def record(self, recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
        """Entries of the fairness record; raises UserError where recipe and method disagree."""
        ...

    def generate(self, batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
        """G as the method trains on it; gradients follow the caller's grad mode."""
        ...

    def student_loss(self, batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
        """Loss of one student update."""
        ...

    def critic_loss(self, batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
        """Loss of one update of the fake score and the discriminator."""
        ...


METHODS: dict[str, Method] = {"dmd2": dmd2, "dp_dmd": dp_dmd, "dfd": dfd}


def get_method(name: str) -> Method:
    """The method of a recipe; UserError with near names."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
