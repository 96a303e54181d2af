"""Everything about a run that run.json states before training: lineage and fairness record.

Used by the loop. A method adds its own entries (`Method.record`).
"""

import os
from pathlib import Path
from typing import Any

from dfdbench.distill.data.clips import Clips
from dfdbench.distill.methods import get_method
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import grid, parent_heads, recipe_of, run_id
from dfdbench.models.family import ModelFamily
from dfdbench.utils.run import Run, weights_sha256


def describe(
    recipe: Recipe,
    family: ModelFamily,
    clips: Clips,
    parent: Run | None,
    run_path: Path,
    dtypes: dict[str, str],
    blocks: tuple[int, ...],
) -> dict[str, Any]:
    """Fields of run.json known before training, with the fairness record.

    Args:
        dtypes: of weights and of computing. blocks: that a GAN's heads look at, () without one.
    """
    o, s = recipe.optim, recipe.schedule
    lineage = None
    if parent is not None:
        lineage = {
            "id": parent.info["id"],
            "path": os.path.relpath(parent.path, run_path),
            "arm": parent.arm,
            "student_sha256": parent.info["student_sha256"],
            "student_updates": parent.info["student_updates_total"],
            "iterations": parent.info["iterations_total"],
            "wall_seconds_total": parent.info["wall_seconds_total"],
        }
    fairness = {
        "student_updates": s.student_updates,
        "fake_updates": s.student_updates * (s.student_update_freq - 1),
        "ratio": s.student_update_freq,
        "sampler": recipe.student.sampler,
        "student_times": grid(recipe).tolist(),
        "score_times": {"shift": s.shift, "low": s.t_low, "high": s.t_high},
        "score_time_per": "batch" if s.one_time else "sample",
        "cfg_convention": "standard: negative + g (conditional - negative)",
        "cfg": recipe.teacher.cfg,
        "negative_prompt": recipe.teacher.negative,
        "teacher_parameters": sum(p.numel() for p in family.teacher.parameters()),
        "ema": o.ema,
        **({"ema_start": o.ema_start} if o.ema_start else {}),
        **({"causal_student": vars(recipe.student.layout)} if recipe.student.layout else {}),
        "saved_student": _saved(recipe),
        "dtypes": dtypes,
        "batch": o.batch,
        "lr": o.lr,
        "fake_lr": o.fake_lr,
        "data_sha256": clips.sha256,
        "data_clips": len(clips),
        "data_level": recipe.data.level if recipe.data.source == "toy" else None,
        "data_mix": recipe.data.mix if recipe.data.source == "toy" else None,
        "data_weights": [*recipe.data.weights] or None,
        "data_captions": [*recipe.data.captions] or None,
        "real_spread_given_caption": clips.spread(),
        "initial_student": lineage["id"] if lineage else "teacher",
        "initial_student_weights": _saved(recipe_of(parent)) if parent else "teacher",
        "initial_fake_score": lineage["id"] if lineage else "teacher",
        "initial_heads": _initial_heads(recipe, parent, blocks),
        "initial_optimisers": "fresh",
        **get_method(recipe.method).record(recipe, family),
    }
    return {
        "id": run_id(recipe),
        "arm": recipe.arm,
        "method": recipe.method,
        "training_seed": recipe.seed,
        "model": recipe.model,
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "recipe": recipe.as_dict(),
        "recipe_digest": recipe.digest(),
        "fairness": fairness,
        "parent": lineage,
        "status": "running",
    }


def _saved(recipe: Recipe) -> str:
    """Which weights a run saves as its student, and a second stage starts from."""
    return "average" if recipe.optim.ema else "last"


def _initial_heads(recipe: Recipe, parent: Run | None, blocks: tuple[int, ...]) -> str | None:
    """The run whose discriminator heads are gone on with, or "fresh"; None without a GAN."""
    if not blocks:
        return None
    if parent is not None and parent_heads(recipe, parent, blocks):
        return str(parent.info["id"])
    return "fresh"
