"""What is installed, found and missing: for `dfdbench doctor`, `dfdbench assets` and bug reports.

Rows are plain dictionaries, so that --json prints what people read.
"""

import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dfdbench import __version__
from dfdbench.evaluate.metrics import FAMILY_NAMES, Setting, families_of, get_family
from dfdbench.generate.suites import find_suites
from dfdbench.utils.assets import ASSETS, Status, assets_folder, inspect, mend, readable
from dfdbench.utils.errors import UserError
from dfdbench.utils.progress import track

LIBRARIES = (
    "torch", "torchvision", "diffusers", "transformers", "open-clip-torch", "huggingface-hub",
    "safetensors", "numpy", "scipy", "pandas", "av", "decord", "opencv-python-headless",
)  # fmt: skip

OWN_CLIPS = "clips"  # the suite of folders
NAMES = {OWN_CLIPS: "a folder of clips"}

Row = dict[str, Any]


def take_stock(verify: bool = False) -> list[Status]:
    """The state of every asset; `verify` hashes every file anew, with a bar."""
    if not verify:
        return [inspect(asset) for asset in ASSETS.values()]
    return [inspect(asset, "full") for asset in track(ASSETS.values(), "assets", len(ASSETS))]


def asset_row(found: Status) -> Row:
    """One asset; `get` is what to do about it, empty where it is present."""
    asset = found.asset
    remedy = {"present": "", "absent": asset.remedy, "wrong": mend(found)}[found.state]
    return {
        "name": asset.name,
        "state": found.state,
        "path": str(found.folder) if found.folder else None,
        "size": asset.size,
        "licence": asset.licence,
        "unlocks": list(asset.unlocks or asset.dimensions) or [asset.use],
        "source": asset.source,
        "get": remedy,
        "detail": found.detail,
        "note": asset.note,
    }


def family_faults(stock: Sequence[Status]) -> dict[str, str]:
    """Metric family -> what it lacks, empty where it is ready."""
    return {name: _lacks(name, stock) for name in FAMILY_NAMES}


def _lacks(name: str, stock: Sequence[Status]) -> str:
    needed = [found for found in stock if name in found.asset.unlocks]
    lacking = [found.asset.name for found in needed if found.state != "present"]
    find = get_family(name).find
    if needed or find is None:
        return " and ".join(lacking)
    try:
        find(Setting())
    except UserError as error:
        return str(error)
    return ""


def suite_rows(faults: Mapping[str, str]) -> list[Row]:
    """Every suite with its families, those that are ready apart from those that lack something.

    A suite that lacks a file of its own has no version and none of them; `lacks` says which file.
    """
    found, absent = find_suites()
    unknown: Row = {"version": None, "prompts": None, "seeds": None, "ready": [], "missing": []}
    return [
        {
            "name": suite.name,
            "version": suite.version,
            "prompts": len(suite.prompts),
            "seeds": len(suite.seeds),
            "ready": [name for name in families_of(suite.metrics) if not faults[name]],
            "missing": [name for name in families_of(suite.metrics) if faults[name]],
            "lacks": "",
        }
        for suite in found
    ] + [{"name": name, **unknown, "lacks": reason} for name, reason in absent.items()]


def examine(verify: bool = False) -> Row:
    """Versions, devices, decoders, caches, assets, suites and what is missing; imports torch."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from dfdbench.distill.recipe import shipped_recipes
    from dfdbench.utils import decode

    stock = take_stock(verify)
    faults = family_faults(stock)
    return {
        "dfdbench": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in LIBRARIES},
        "decoders": [decode.name()],
        "recipes": shipped_recipes(),
        "caches": [_cache(assets_folder()), _cache(Path(HF_HUB_CACHE))],
        "assets": [asset_row(found) for found in stock],
        "suites": suite_rows(faults),
        "missing": {name: fault for name, fault in faults.items() if fault},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cache(folder: Path) -> Row:
    """A folder, which need not exist yet, and the bytes that are free on its disk."""
    disk = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return {"path": str(folder), "free": shutil.disk_usage(disk).free}


def lines(found: Mapping[str, Any]) -> list[str]:
    """`examine`'s result for people: first what is ready, last what is missing for what."""
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in found["versions"].items())
    caches = (f"{c['path']} ({readable(c['free'])} free)" for c in found["caches"])
    return [
        f"ready: {ready(found)}",
        f"dfdbench {found['dfdbench']}, Python {found['python']}, {found['system']}",
        f"GPU: {found['cuda'] or 'none (CPU only)'}",
        f"libraries: {versions}",
        f"video decoder: {', '.join(found['decoders'])}",
        f"recipes: {', '.join(found['recipes'])}",
        f"caches: {', '.join(caches)}",
        "",
        *table(
            ("asset", "state", "size", "what to do"),
            [(r["name"], r["state"], readable(r["size"]), _to_do(r)) for r in found["assets"]],
        ),
        "",
        *suite_table(found["suites"]),
        "",
        "metrics that cannot be computed, and what they lack:" + " none" * (not found["missing"]),
        *(f"  {name}: {fault}" for name, fault in found["missing"].items()),
    ]  # fmt: skip


def ready(found: Mapping[str, Any]) -> str:
    """Models that are here, and suites with how many of their metric families can be computed."""
    models = [r["name"] for r in found["assets"]
              if r["state"] == "present" and r["unlocks"][0].startswith("--model")]  # fmt: skip
    usable = [r for r in found["suites"] if not r["lacks"]]
    alike: dict[str, list[str]] = {}
    for r in sorted(usable, key=lambda r: r["name"] not in NAMES):
        share = f"{len(r['ready'])}/{len(r['ready']) + len(r['missing'])}"
        alike.setdefault(share, []).append(NAMES.get(r["name"], r["name"]))
    suites = "; ".join(f"{', '.join(names)} {share}" for share, names in alike.items())
    return f"{', '.join(models) or 'no model'}; metric families: {suites}"


def in_short(found: Mapping[str, Any]) -> list[str]:
    """What is ready, what is wrong, and how to get what the scoring of folders lacks."""
    own: list[str] = next((r["missing"] for r in found["suites"] if r["name"] == OWN_CLIPS), [])
    get = [r for r in found["assets"] if r["state"] == "absent" and {*own} & {*r["unlocks"]}]
    names, size = " ".join(r["name"] for r in get), readable(sum(r["size"] or 0 for r in get))
    closed = [r["name"] for r in found["suites"] if r["lacks"]]
    return [
        f"ready: {ready(found)}",
        f"GPU: {found['cuda'] or 'none (CPU only)'}",
        f"dfdbench {found['dfdbench']}, Python {found['python']}, {found['system']}",
        *(f"wrong: {r['name']}: {_to_do(r)}" for r in found["assets"] if r["state"] == "wrong"),
        *[f"for the rest of {NAMES[OWN_CLIPS]} ({size}): dfdbench assets get {names}"] * bool(get),
        *[f"suites that need a file first: {', '.join(closed)}"] * bool(closed),
        "everything, with libraries, weights and what each metric needs: dfdbench doctor --all",
    ]


def asset_table(rows: Iterable[Row]) -> list[str]:
    """Asset rows for people: a line of facts each, under it where it lies or how to get it."""
    rows = list(rows)
    facts = table(
        ("asset", "state", "size", "licence", "unlocks"),
        [
            (
                r["name"], r["state"], readable(r["size"]), r["licence"],
                ", ".join(r["unlocks"]),
            )
            for r in rows
        ],
    )  # fmt: skip
    under = [[r["source"], r["path"], _to_do(r), r["note"]] for r in rows]
    text = [facts[0]]
    for line, others in zip(facts[1:], under, strict=True):
        text += [line, *(f"    {other}" for other in others if other)]
    return text


def suite_table(rows: Iterable[Row]) -> list[str]:
    """Suite rows for people; under them the suites that cannot be used."""
    rows = list(rows)
    usable = [r for r in rows if not r["lacks"]]
    return table(
        ("suite", "version", "prompts", "seeds", "families ready", "not ready"),
        [
            (
                r["name"], str(r["version"]), str(r["prompts"] or "yours"),
                str(r["seeds"] or "yours"), ", ".join(r["ready"]), ", ".join(r["missing"]) or "-",
            )
            for r in usable
        ],
    ) + [f"suite {r['name']}: {r['lacks']}" for r in rows if r["lacks"]]  # fmt: skip


def _to_do(row: Row) -> str:
    return f"{row['detail']}; {row['get']}" if row["detail"] else str(row["get"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns that are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
