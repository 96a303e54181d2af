"""`dfdbench data describe`: what is in a training set, alone or against another. See data.py."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dfdbench.cli.options import Device, Json, ShardPart, show

SETS = ("set", "against")  # files of the folder, in which the clips are noted


def describe(
    inputs: Annotated[
        list[Path], typer.Argument(help="The set: videos, folders, tables, tars; or latents.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    other: Annotated[
        list[Path] | None,
        typer.Option("--against", help="The set to compare it with; repeatable for its parts."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="Network of the frames: clip_vit_l14, effnet_lite2 (offline), …; none."),
    ] = "clip_vit_l14",
    device: Device = "auto",
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Describe a set: lengths, sizes, colours, motion, captions, duplicates, diversity, coverage.

    Writes index.html, describe.json and describe.txt; a clip that cannot be read is listed and left
    out. A call that was stopped goes on where it was. Of latents, which are not decoded, it says
    what is in the set, and compares them by their means over time.

    Example: dfdbench data describe clips --against other --out described
    """
    from dfdbench.cli.curate import embedder
    from dfdbench.evaluate.set_latents import incomparable
    from dfdbench.evaluate.set_numbers import against, lines_against, lines_of, set_numbers
    from dfdbench.evaluate.set_rows import is_latent_set, measure_set, read_set
    from dfdbench.report.set_page import DescribedSet, set_page
    from dfdbench.utils.files import write_json, write_text
    from dfdbench.utils.manifest import capped, listed
    from dfdbench.utils.shards import parse_shard

    part = None if shard is None else parse_shard(shard)
    parts_of = {SETS[0]: inputs, **({SETS[1]: other} if other else {})}
    latents = {key: is_latent_set(paths) for key, paths in parts_of.items()}
    network = None if backend == "none" or all(latents.values()) else embedder(backend, device)
    done = [measure_set(paths, out, key, network, part) for key, paths in parts_of.items()]
    if not all(outcome.finished for outcome in done):
        text = f"{done[0].rows} clips done; other parts are to come, the last one writes the page"
        show({"finished": False, "out": str(out)}, as_json, text)
        return
    read = [read_set(out, key) for key in parts_of]
    sets = [
        DescribedSet(listed([*map(str, paths)], 2), rows, set_numbers(rows, array))
        for paths, (rows, array) in zip(parts_of.values(), read, strict=True)
    ]
    value: dict[str, Any] = {
        "format": 1,
        "features": _features(backend, [*latents.values()]),
        "sets": [{"name": own.name, **own.numbers} for own in sets],
    }
    lines = [line for own in sets for line in lines_of(own.name, own.numbers)]
    beside = None
    if other:
        why = "one set is latents, the other videos" if len({*latents.values()}) > 1 else None
        if all(latents.values()):
            why = incomparable(inputs[0], other[0])
        beside = against(*read[0], *read[1], why)
        value["against"] = beside
        lines += lines_against(sets[0].name, sets[1].name, beside)
    for key, own in zip(SETS, sets, strict=False):
        faults = [f"left out: {name}: {reason}" for name, reason in own.left_out]
        lines += capped(faults, out / f"{key}.jsonl")
    write_json(out / "describe.json", value)
    write_text(out / "describe.txt", "".join(f"{line}\n" for line in lines))
    write_text(out / "index.html", set_page(sets, beside))
    show(value, as_json, "\n".join([*lines, f"page: {out / 'index.html'}"]))


def _features(backend: str, latents: list[bool]) -> str:
    """What diversity and coverage are of."""
    if all(latents):
        return "latents"
    return f"{backend}, latents" if any(latents) else backend
