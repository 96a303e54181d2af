"""A causal student of another program as a run that generates and is scored.

Used by cli. What is read is a student alone: it says neither how it was trained nor its fake score,
so the run has the published recipe as far as sampling needs it, and no second stage starts from it.
"""

import dataclasses
from pathlib import Path

from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.stages import resolve, sampling
from dfdbench.models.causal import Layout
from dfdbench.models.difference import relative_difference
from dfdbench.models.registry import load_family
from dfdbench.models.wan_causal_import import read_student
from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.files import sha256_file
from dfdbench.utils.progress import say
from dfdbench.utils.run import RUN_FILE, Run, weights_sha256

RECIPE = "wan-self-forcing/dmd"


@memory_remedy("a network and its file must fit the memory; take a machine with more")
def import_student(
    file: str | Path, model: str, out: str | Path, layout: Layout | None = None
) -> Run:
    """Make the run folder of a student in a Self Forcing checkpoint or a diffusers folder.

    Args:
        file: see `read_student`.
        model: the bidirectional checkpoint that it was made from.
        out: run folder to make; it takes its run.json when the student in it is whole.
        layout: the student's blocks and window, where `file` does not say them; by default blocks
            of 3 latent frames without a window, as released.

    Raises:
        UserError: `out` holds a run, or the file is no student of that model.
    """
    file, out = Path(file), Path(out)
    if (out / RUN_FILE).exists():
        raise UserError(f"{out} already holds a run; choose another --out")
    family = load_family(model)
    if family.causal is None:
        raise UserError(
            f"--model {model}: a model of the family {family.name} has no causal students; give "
            "the Wan text-to-video folder that the student was made from"
        )
    module = read_student(file, family, layout)
    d, given = family.defaults, vars(family.causal.layout(module))
    recipe = load_recipe(
        RECIPE,
        [
            *(f"student.{name}={value}" for name, value in given.items()),
            *(f"data.{name}={getattr(d, name)}" for name in ("frames", "height", "width")),
            "init.recipe=''",
        ],
    )
    recipe = resolve(dataclasses.replace(recipe, model=model), d)
    family.save_student(module, out / "student", sampling(recipe))
    difference = relative_difference(module, family.path / "transformer")
    say(f"difference to the base: {difference:.3g} of its norm, over all weights")
    if not difference:
        say(f"{file}: these are the base's own weights")
    return Run.create(
        out,
        {
            "arm": recipe.arm,
            "method": recipe.method,
            "model": model,
            "recipe": recipe.as_dict(),
            "imported": {
                "file": file.resolve().name,
                "sha256": _sha256(file),
                "relative_difference": difference,
            },
            "teacher_sha256": weights_sha256(family.path / "transformer"),
            "student_sha256": weights_sha256(out / "student" / "transformer"),
            "status": "finished",
        },
    )


def _sha256(path: Path) -> str:
    """Of a file, or of the weights in a diffusers folder."""
    if path.is_file():
        return sha256_file(path)
    inner = path / "transformer"
    return weights_sha256(inner if inner.is_dir() else path)
