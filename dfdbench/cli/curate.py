"""`dfdbench data curate`: from a heap of videos to captioned tars, stage by stage.

Registered by data.py. The embedders of `features` belong to the metrics, so they are given from
here to the stage, which may not know them.
"""

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from dfdbench.cli.options import Device, Json, ShardPart, finite, show

app = typer.Typer(help="Curate a training set: shots, captions, clusters, picks, tars.")
Folder = Annotated[Path, typer.Argument(help="Folder of the curation, which shots made.")]
SERVERS = "Servers"  # panel of the help


@app.callback()
def curate() -> None:
    """Curate a training set from videos; the stages work in one folder, in this order.

    Example: dfdbench data curate shots videos --out curation
    """


@app.command("shots")
def shots(
    inputs: Annotated[list[Path], typer.Argument(help="Videos, folders, tables, tars; see below.")],
    out: Annotated[Path, typer.Option(help="Folder of the curation.")],
    cuts: Annotated[
        str, typer.Option(help="adaptive, content (PySceneDetect's), or none: a video, a shot.")
    ] = "adaptive",
    min_seconds: Annotated[float, typer.Option(min=0, callback=finite)] = 2.0,
    max_seconds: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="Longer ones become equal pieces; 0: left whole."
        ),
    ] = 10.0,
    min_side: Annotated[int, typer.Option(min=0, help="Pixels of the short side.")] = 240,
    min_motion: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Grey levels of 255 that a frame changes by."),
    ] = 0.2,
    max_bars: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the area in black bars.")
    ] = 0.05,
    max_text: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the area that looks like letters.")
    ] = 0.006,
    near: Annotated[
        int, typer.Option(min=0, max=64, help="Bits of 64 below which shots are near duplicates.")
    ] = 6,
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Cut videos into shots, and leave out what is short, small, still, letterboxed, or twice.

    Inputs are videos and folders of them, with captions in .txt; tables (.csv, .jsonl, .parquet)
    of paths and captions; outputs of data-juicer and NeMo-Curator; WebDataset tars. Every shot is
    listed with what was measured and why it is left out. Needs dfdbench\\[curate].

    Example: dfdbench data curate shots videos --out curation
    """
    from dfdbench.distill.data.curate.rows import Shot
    from dfdbench.distill.data.curate.shots import LEFT_OUT, Filters
    from dfdbench.distill.data.curate.shots import shots as work
    from dfdbench.distill.data.curate.work import read_rows

    filters = Filters(
        cuts, min_seconds, max_seconds, min_side, min_motion, max_bars, max_text, near
    )
    done = work(inputs, out, filters, _part(shard))
    reasons = dict[str, int]()
    unreadable = 0
    if done.finished:
        for row in read_rows(out, "shots", Shot):
            reason = "" if row.left_out is None else _kind(row.left_out)
            reasons[reason] = reasons.get(reason, 0) + 1
        unreadable = (out / LEFT_OUT).read_bytes().count(b"\n")
    kept = reasons.pop("", 0)
    lines = [f"left out: {count} {reason}" for reason, count in sorted(reasons.items())]
    if unreadable:
        lines.append(f"left out: {unreadable} videos that cannot be read, see {out / LEFT_OUT}")
    lines.append(f"{kept} shots kept of {done.rows}")
    value = {"kept": kept, "left_out": reasons, "unreadable": unreadable}
    _end(done, out, "caption", value, lines, as_json, "videos")


@app.command("caption")
def caption(
    folder: Folder,
    server: Annotated[
        list[str],
        typer.Option(
            help="Address such as http://localhost:8000/v1; repeatable.", rich_help_panel=SERVERS
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Its name there; else the only one.", rich_help_panel=SERVERS),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="Asks a second of each; 0: any.", rich_help_panel=SERVERS
        ),
    ] = 0,
    at_once: Annotated[
        int, typer.Option(min=1, max=1000, help="Asks at a time.", rich_help_panel=SERVERS)
    ] = 8,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, callback=finite, help="Seconds for an answer.", rich_help_panel=SERVERS
        ),
    ] = 120,
    retries: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Of an ask that no server took.", rich_help_panel=SERVERS
        ),
    ] = 5,
    frames: Annotated[int, typer.Option(min=1, max=256, help="Pictures of a shot.")] = 8,
    side: Annotated[int, typer.Option(min=32, help="Pixels of their short side.")] = 448,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer; else room for the longest.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Answers before a shot is left out.")] = 4,
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Caption shots at three lengths, by a model behind an OpenAI-compatible server.

    A key, where the server wants one, comes from the environment: DFDBENCH_CAPTION_KEY.

    Example: dfdbench data curate caption curation --server http://localhost:8000/v1
    """
    from dfdbench.distill.data.curate.caption import Asking
    from dfdbench.distill.data.curate.caption import caption as work
    from dfdbench.distill.data.curate.rows import Captions
    from dfdbench.distill.data.curate.servers import Servers
    from dfdbench.distill.data.curate.wording import MAX_TOKENS

    servers = Servers(server, model, rate, timeout, retries)
    asking = Asking(frames, side, max_tokens or MAX_TOKENS, tries)
    done = work(folder, servers, asking, at_once, _part(shard))
    _end_with_reasons(done, folder, "features", Captions, "shots captioned", as_json)


@app.command("features")
def features(
    folder: Folder,
    backend: Annotated[
        str, typer.Option(help="Network of the frames: clip_vit_l14, effnet_lite2 (offline), …")
    ] = "clip_vit_l14",
    policy: Annotated[
        str, typer.Option(help="Frames of a shot: even16, middle8, middle16, all.")
    ] = "even16",
    device: Device = "auto",
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Embed shots: the mean of their frames' features, of length one.

    Example: dfdbench data curate features curation --backend effnet_lite2
    """
    from dfdbench.distill.data.curate.features import features as work
    from dfdbench.distill.data.curate.rows import Feature
    from dfdbench.utils.video import frame_indices

    frame_indices(1, policy)
    done = work(folder, embedder(backend, device), policy, _part(shard))
    _end_with_reasons(done, folder, "cluster", Feature, "shots with features", as_json)


def embedder(name: str, device: str) -> Any:
    """The network of a family of metrics that gives frames' features, as the stage takes it.

    Raises:
        UserError: there is no such network, or its weights are not here.
    """
    import numpy as np

    from dfdbench.distill.data.curate.features import Embedder
    from dfdbench.evaluate.metrics import FAMILY_NAMES, Setting, get_family
    from dfdbench.utils.device import choose_device
    from dfdbench.utils.errors import unknown_name
    from dfdbench.utils.video import Clip

    known = [n for n in FAMILY_NAMES if f"{n}_frechet" in {m.name for m in get_family(n).metrics}]
    if name not in known:
        raise unknown_name("backend", name, known)
    family, setting = get_family(name), Setting(str(choose_device(device)))
    weights = family.find(setting) if family.find else ""
    compute = family.load(setting)

    def embed(frames: np.ndarray) -> np.ndarray:
        clip = Clip(frames, 0.0, "", np.arange(len(frames)))
        return np.asarray(compute(clip)[f"{name}_features"])

    return Embedder(name, weights, embed)


@app.command("cluster")
def cluster(
    folder: Folder,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="How many; else the root of half the shots.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    backend: Annotated[
        str | None, typer.Option(help="faiss or sklearn; else faiss where it is installed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Group shots by k-means of their features; no group is empty, the largest is number 0.

    Example: dfdbench data curate cluster curation --clusters 200
    """
    from dfdbench.distill.data.curate.cluster import BACKENDS
    from dfdbench.distill.data.curate.cluster import cluster as work
    from dfdbench.distill.data.curate.rows import Member
    from dfdbench.distill.data.curate.work import read_rows
    from dfdbench.utils.errors import unknown_name

    if backend is not None and backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    done = work(folder, clusters, seed, backend)
    there = 1 + max(row.cluster for row in read_rows(folder, "cluster", Member))
    lines = [f"{done.rows} shots in {there} clusters"]
    if clusters and there < clusters:
        lines.append(f"{clusters} were asked for; no more shots differ")
    _end(done, folder, "grid", {"clusters": there}, lines, as_json)


@app.command("grid")
def grid(
    folder: Folder,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Candidates a cluster.")] = 10,
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Draw a page a cluster: candidates at even percentiles of the distance to its centre.

    Example: dfdbench data curate grid curation --count 10
    """
    from dfdbench.distill.data.curate.grid import grid as work

    done = work(folder, count, _part(shard))
    page = folder / "grid" / "index.html"
    _end(done, folder, "pick", {"page": str(page)}, [f"{done.rows} candidates; {page}"], as_json)


@app.command("pick")
def pick(
    folder: Folder,
    auto: Annotated[
        str | None,
        typer.Option(help="By a rule: nearest:4, even:4 of each cluster, or all; no page."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    as_json: Json = False,
) -> None:
    """Choose shots on a page in the browser, or by a rule; writes picks.csv.

    The page is served to this machine alone until Ctrl-C; each click is saved.

    Example: dfdbench data curate pick curation
    """
    from dfdbench.distill.data.curate import pick as picking
    from dfdbench.utils.errors import UserError
    from dfdbench.utils.folders import locked
    from dfdbench.utils.progress import say

    path = folder / picking.FILE
    if auto is not None:
        rule, _, count = auto.partition(":")
        if count and not count.isdecimal():
            raise UserError(f"--auto {auto}: {count} is no whole number; write such as even:4")
        total = picking.pick_by_rule(folder, rule, int(count or 0))
        text = f"{total} shots in {path}\nnext: dfdbench data curate pack {folder}"
        show({"picks": str(path), "count": total}, as_json, text)
        return
    with locked(folder, picking.NAME):
        page = picking.serve(folder, port)
        say(f"choose on {page.url}; Ctrl-C ends it, picks are in {path}")
        if browser:
            webbrowser.open(page.url)
        try:
            page.server.serve_forever()
        finally:
            page.server.server_close()


@app.command("pack")
def pack(
    folder: Folder,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a tar.")] = 100,
    shard: ShardPart = None,
    as_json: Json = False,
) -> None:
    """Write picked shots and their captions into WebDataset tars, which data encode reads.

    Example: dfdbench data curate pack curation
    """
    from dfdbench.distill.data.curate.pack import FOLDER
    from dfdbench.distill.data.curate.pack import pack as work
    from dfdbench.distill.data.curate.rows import Packed
    from dfdbench.distill.data.curate.work import read_rows
    from dfdbench.utils.manifest import capped

    done = work(folder, shard_size, _part(shard))
    rows = read_rows(folder, "pack", Packed) if done.finished else []
    faults = [f"left out: {row.id}: {row.left_out}" for row in rows if row.left_out]
    tars = folder / FOLDER
    lines = capped(faults, folder / "pack.jsonl")
    if done.finished:
        lines.append(f"{len(rows) - len(faults)} samples in {tars}")
        levels = " --caption-levels" if (folder / "caption.json").is_file() else ""
        lines.append(f"next: dfdbench data encode {tars}/*.tar{levels} --out latents")
    value = {"samples": len(rows) - len(faults), "left_out": faults}
    _end(done, folder, "", value, lines, as_json, "tars")


def _part(shard: str | None) -> Any:
    from dfdbench.utils.shards import parse_shard

    return None if shard is None else parse_shard(shard)


def _kind(reason: str) -> str:
    """The reason without its numbers: what it is about."""
    if reason.startswith("near duplicate"):
        return "near duplicate"
    return reason.partition(":")[0] if ":" in reason else reason.rpartition(", ")[2].split()[0]


def _end_with_reasons(
    done: Any, folder: Path, following: str, kind: Any, what: str, as_json: bool
) -> None:
    """Say how many rows are of use and why others are not."""
    from dfdbench.distill.data.curate.work import read_rows
    from dfdbench.utils.manifest import capped

    rows = read_rows(folder, done.file.stem, kind) if done.finished else []
    faults = [f"left out: {row.id}: {row.left_out}" for row in rows if row.left_out]
    count = len(rows) - len(faults)
    lines = [*capped(faults, done.file), f"{count} {what} of {len(rows)}"]
    _end(done, folder, following, {"count": count, "left_out": faults}, lines, as_json, "shots")


def _end(
    done: Any,
    folder: Path,
    following: str,
    value: dict[str, Any],
    lines: list[str],
    as_json: bool,
    items: str = "items",
) -> None:
    """Print what a stage did, and what comes next."""
    if not done.finished:
        lines = [f"{done.rows} {items} done; other parts are to come, the last one joins them"]
    elif following:
        lines = [*lines, f"next: dfdbench data curate {following} {folder}"]
    head = {"file": str(done.file), "rows": done.rows, "finished": done.finished}
    show(head | value, as_json, "\n".join(lines))
