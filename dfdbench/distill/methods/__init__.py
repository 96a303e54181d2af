"""The registry of methods: one file each, which owns options, losses, passes and record.

To add one, write methods/NAME.py with what `Method` asks for and put NAME into SHIPPED; a package
of your own calls `register`. A recipe names it: `method = "NAME"`, options in [NAME].
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from dfdbench.utils.errors import unknown_name

if TYPE_CHECKING:
    from dfdbench.distill.batch import Batch
    from dfdbench.distill.inputs import Generated
    from dfdbench.distill.nets import LossReport, Networks
    from dfdbench.distill.sections import MethodOptions, Recipe
    from dfdbench.distill.streams import Stream
    from dfdbench.models.family import ModelFamily

SHIPPED = (
    "dmd2", "dp_dmd", "dfd", "regression", "decoupled_dmd", "dcm_dmd", "avd", "f_distill", "sid",
    "adversarial", "teacher_forcing", "ode_init",
)  # fmt: skip
_registered: dict[str, "Method"] = {}


class Method(Protocol):
    """What a method gives: a module with these names, or any object.

    It may also have REAL_CLIPS, whether its losses look at real clips beyond what student.input and
    a GAN do, and `statistics(recipe)` and `survey(batch, nets, recipe, rng)`, see statistics.py.
    """

    Options: "type[MethodOptions]"  # a frozen dataclass with defaults: the recipe's section

    def uses_gan(self, recipe: "Recipe") -> bool:
        """Whether to build discriminator heads, for a recipe with a [gan] weight."""
        ...

    def record(self, recipe: "Recipe", family: "ModelFamily") -> dict[str, Any]:
        """Entries of the fairness record; raises UserError where recipe and method disagree."""
        ...

    def generate(
        self, batch: "Batch", nets: "Networks", recipe: "Recipe", rng: "Stream"
    ) -> "Generated":
        """G as the method trains on it; gradients follow the caller's grad mode."""
        ...

    def student_loss(
        self, batch: "Batch", nets: "Networks", recipe: "Recipe", rng: "Stream"
    ) -> "LossReport":
        """Loss of one student update."""
        ...

    def fake_score_loss(
        self, batch: "Batch", nets: "Networks", recipe: "Recipe", rng: "Stream"
    ) -> "LossReport":
        """Loss of one update of the fake score and the discriminator. A method that matches no
        scores leaves it out: the fake score then stays the teacher's copy that a later stage needs,
        and `schedule.student_update_freq` is 1."""
        ...


def register(name: str, method: Method) -> None:
    """Make `method` known under `name`, for recipes and `--method`; a second time replaces it."""
    _registered[name] = method


def method_names() -> list[str]:
    """Names of all methods, the shipped ones first; imports none of them."""
    return [*SHIPPED, *(name for name in _registered if name not in SHIPPED)]


def get_method(name: str) -> Method:
    """The method of a recipe; UserError with near names."""
    if name in _registered:
        return _registered[name]
    if name not in SHIPPED:
        raise unknown_name("method", name, method_names())
    return cast(Method, import_module(f"{__name__}.{name}"))
