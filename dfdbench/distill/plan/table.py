"""What each method needs, as a table that is made from the methods themselves.

`python -m dfdbench.distill.plan.table` prints the table of baselines/README.md; a test compares the
two. Passes are counted by running each method on tensors without storage, as the plan does.
"""

from collections import defaultdict

from dfdbench.distill.methods import get_method, method_names
from dfdbench.distill.plan import GIB, setup_for, update_passes
from dfdbench.distill.plan.memory import Setup, lines
from dfdbench.distill.recipe import load_recipe, shipped_recipes

WAN = "wan2.1-t2v-1.3b"
NAMES = {"student": "student", "fake_score": "fake score", "teacher": "teacher"}
HEAD = (
    "method", "real clips in its loss", "networks", "student step", "fake score step", "an update",
)  # fmt: skip
MEMORY = "GiB of a GPU"


def rows() -> list[tuple[str, ...]]:
    """The columns of HEAD for every shipped method with a recipe that the plan can read."""
    return [
        (
            name,
            "yes" if getattr(get_method(name), "REAL_CLIPS", False) else "no",
            _networks(setup),
            _passes(setup, student=True),
            _passes(setup, student=False),
            f"{update_passes(setup):.1f}",
        )
        for name, setup in _setups("toy").items()
    ]


def memory() -> dict[str, str]:
    """GiB of one GPU by method, of its recipe for Wan2.1-T2V-1.3B; methods without one are left
    out."""
    setups = _setups(WAN)
    return {name: f"{sum(lines(setup).values()) / GIB:.1f}" for name, setup in setups.items()}


def markdown() -> str:
    """The whole table."""
    bytes_of = memory()
    text = [(*HEAD, MEMORY), ("---",) * (len(HEAD) + 1)]
    text += [(*row, bytes_of.get(row[0], "")) for row in rows()]
    return "\n".join(f"| {' | '.join(row)} |" for row in text)


def _setups(folder: str) -> dict[str, Setup]:
    names = [name for name in method_names() if f"{folder}/{name}" in shipped_recipes()]
    return {name: setup_for(load_recipe(f"{folder}/{name}"))[1] for name in names}


def _networks(setup: Setup) -> str:
    """Networks beside the student; those that are trained first."""
    passes = [*setup.passes(True), *setup.passes(False)]
    used = {one.network for one in passes}
    trained = {one.network for one in passes if one.gradient in ("weights", "features")}
    parts = ["fake score"] if "fake_score" in trained else []
    parts += ["heads"] if setup.taps else []
    return ", ".join([*parts, *(["teacher"] if "teacher" in used else [])])


def _passes(setup: Setup, student: bool) -> str:
    """Passes over a clip; a star marks those that a backward pass follows."""
    counts: dict[str, float] = defaultdict(float)
    for one in setup.passes(student):
        counts[NAMES[one.network] + ("" if one.gradient == "none" else "*")] += one.count
    order = [name + star for name in NAMES.values() for star in ("*", "")]
    return ", ".join(f"{name} {counts[name]:g}" for name in order if name in counts)


if __name__ == "__main__":
    print(markdown())
