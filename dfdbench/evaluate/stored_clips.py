"""What a store holds of clips that a call does not name: forgotten if gone, else kept apart.

Used by engine.py before it scores. A store gathers the clips of many calls. Rows of clips that are
no longer there must not count beside those that are, and two models must not become one method.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import Sample, listed


def settle(
    store: Store, suite: str, samples: Sequence[Sample], folders: Mapping[str, Path]
) -> list[str]:
    """Forget the rows of `suite` whose clips are gone, of the methods of `samples`.

    Args:
        samples: all clips that the call names for this store.
        folders: method -> the folder that it is named after.

    Returns:
        A line about what was forgotten, or none.

    Raises:
        UserError: the store has another clip of the same method, prompt and seed, or clips of
            another folder under a folder's name.
    """
    named = {store.name_of(sample.path) for sample in samples}
    rows = store.samples(suite)
    ours = rows["method"].isin({sample.method for sample in samples})
    others = rows[ours & ~rows["path"].isin(named)]
    there = np.array([_exists(store, path) for path in others["path"]], bool)
    _keep_apart(store, others[there], samples, folders)
    gone = [str(path) for path in others[~there]["path"]]
    failures = store.failures()
    failed = {str(path) for path in failures[failures["suite"] == suite]["path"]}
    stale = {path for path in failed - named if not _exists(store, path)}
    if gone or stale:
        store.keep_samples(suite, {*rows["path"], *failed} - {*gone, *stale})
    return [f"{len(gone)} clips are gone and count no longer ({listed(gone)})"] if gone else []


def _exists(store: Store, path: str) -> bool:
    return os.path.exists(store.path.parent / path)


def _keep_apart(
    store: Store,
    others: pd.DataFrame,
    samples: Sequence[Sample],
    folders: Mapping[str, Path],
) -> None:
    mine = {(s.method, s.prompt_id, s.seed): s.path for s in samples if s.seed is not None}
    remedy = "name this input with --arm, or another --out"
    for row in others.to_dict("records"):
        path, method = str(row["path"]), str(row["method"])
        key = (method, row["prompt_id"], row["seed"])
        if key in mine:
            raise UserError(
                f"{store.path}: has {path} as method {method}, prompt "
                f"{key[1]}, seed {key[2]}, which {mine[key]} is too; {remedy}"
            )
        folder = (store.path.parent / path).parent
        if method in folders and folder.resolve() != folders[method].resolve():
            raise UserError(
                f"{store.path}: has clips of {folder} as method {method}, not of "
                f"{folders[method]}; {remedy}"
            )
