"""VBench's weights for people: what is here, what each file unlocks, how to get what is not.

Used by doctor and the command `assets list`. Nothing is downloaded here; download.py does that.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from dfdbench.utils.vbench_weights import (
    COTRACKER_CHECKPOINT,
    COTRACKER_SOURCE,
    PREFIX,
    WEIGHTS,
    Weights,
    cotracker_folder,
    find_weights,
)

BERT = "bert-base-uncased"

Row = dict[str, Any]


def rows() -> list[Row]:
    """A row for each file of WEIGHTS, for CoTracker's repository and for BERT's.

    Keys: name (as `assets get` takes it), file, state (present or absent), path (or None), size in
    words, licence, unlocks (dimensions), bridge (only the official package reads it), source, and
    get, a command for what is absent.
    """
    found = [_file_row(weights) for weights in WEIGHTS]
    found.insert(1 + [r["file"] for r in found].index(COTRACKER_CHECKPOINT), _cotracker_row())
    return [*found, _bert_row()]


def _row(name: str, file: str, path: Path | None, get: str, **facts: Any) -> Row:
    state = "present" if path else "absent"
    shown = str(path) if path else None
    return {"name": name, "file": file, "state": state, "path": shown, **facts,
            "get": "" if path else get}  # fmt: skip


def _file_row(weights: Weights) -> Row:
    name = PREFIX + weights.name
    return _row(
        name, PurePosixPath(weights.path).name, find_weights(weights),
        f"dfdbench assets get {name}",
        size=weights.size, licence=weights.licence, unlocks=list(weights.dimensions),
        bridge=weights.bridge, source=weights.source,
    )  # fmt: skip


def _cotracker_row() -> Row:
    folder = cotracker_folder()
    return _row(
        PREFIX + "cotracker2-code", folder.name,
        folder if (folder / "hubconf.py").is_file() else None,
        f"git clone {COTRACKER_SOURCE} {folder}",
        size="a few MB", licence="CC BY-NC 4.0", unlocks=["camera_motion"], bridge=False,
        source=COTRACKER_SOURCE,
    )  # fmt: skip


def _bert_row() -> Row:
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"models--{BERT}"
    unlocks = [d for w in WEIGHTS if w.name in ("grit", "tag2text") for d in w.dimensions]
    return _row(
        PREFIX + BERT, BERT, kept if kept.is_dir() else None, f"hf download {BERT}",
        size="about 440 MB", licence="Apache-2.0", unlocks=unlocks, bridge=True,
        source=f"hub {BERT}",
    )  # fmt: skip
