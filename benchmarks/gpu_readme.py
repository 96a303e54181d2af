"""README.md of results/gpu from the parts' JSON files; used by gpu_suite.py."""

from collections.abc import Callable, Mapping
from typing import Any

from dfdbench.utils.table import escape_markdown

GIB = 2**30
COMMAND = "python benchmarks/gpu_suite.py"
INTRODUCTION = """# On a GPU

Written by `make gpu-bench` ([gpu_suite.py](../../benchmarks/gpu_suite.py)) from the JSON \
files here: random weights in real shapes, nothing downloaded. MFU counts no work twice, neither \
what checkpointing computes again nor attention's second pass."""
TINY = """# Tried in small

Written by `python benchmarks/gpu_suite.py --tiny`: tiny random networks, to see that the parts \
run. No number here tells anything about a GPU, or about the shapes that the titles name."""


def render(
    measured: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
) -> str:
    """The page: measured parts, then failed and missing ones with the command for each.

    Args:
        measured: the parts' files, by part. failed: those of tries after them, likewise.
        titles: of all parts, in order.
    """
    tiny = any(record["tiny"] for record in (*measured.values(), *failed.values()))
    pages, missing = [TINY if tiny else INTRODUCTION], list[str]()
    for name, title in titles.items():
        record, tried = measured.get(name), failed.get(name)
        lines = _shown(name, record) if record else None
        command = f"`{COMMAND} {name}{' --tiny' if tiny else ''}`"
        if record and lines:
            lines += ["", f"Measured again later, it {_failure(name, tried)}"] if tried else []
            pages.append(
                "\n".join([f"## {title}", "", _origin(f"{name}.json", record), "", *lines])
            )
        elif record:
            missing.append(f"- {title}: this version cannot show {name}.json. {command}")
        elif tried:
            missing.append(f"- {title}: {_failure(name, tried)} {command}")
        else:
            missing.append(f"- {title}: not measured yet. {command}")
    if missing:
        pages.append("\n".join(["## Missing", "", *missing]))
    return "\n\n".join(pages) + "\n"


def _shown(name: str, record: Mapping[str, Any]) -> list[str] | None:
    """A measurement in words; None where its file has not what is shown, as of another version."""
    try:
        return SHOW[name](record["result"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _failure(name: str, record: Mapping[str, Any]) -> str:
    reason = escape_markdown(str(record["failed"])).rstrip(".")
    return f"failed on {_origin(f'{name}.failed.json', record)}: {reason}."


def _origin(file: str, record: Mapping[str, Any]) -> str:
    device = record.get("device", {})
    where = record["gpu"] if record["gpu"] != "cpu" else f"a CPU {device.get('name', '')}"
    said = [where.strip(), *(["tiny networks, not the shapes named"] if record["tiny"] else [])]
    if versions := record.get("versions"):
        said += [f"torch {versions['torch']}", f"diffusers {versions['diffusers']}"]
    said += [f"{key} {device[key]}" for key in ("cuda", "cudnn") if key in device]
    commit = record.get("commit") or {}
    said += [f"code {record['code']}", *([f"commit {commit[:12]}"] if commit else [])]
    return f"{', '.join(said)} ([{file}]({file}))"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _memory(memory: Mapping[str, int]) -> str:
    return ", ".join(
        f"{key.removesuffix('_bytes')} {size / GIB:.2f} GiB" for key, size in memory.items()
    )


def _attention(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, kernel in result["kernels"].items():
        rates = [kernel.get(f"{way}_tflops_a_second") for way in ("forward", "backward")]
        said = [f"{rate:.1f}" if rate is not None else "" for rate in rates]
        rows.append([name, *said, kernel.get("reason", "").replace("|", "/")])
    peak = result["peak_tflops"]
    return [
        f"{'×'.join(map(str, result['shape']))}, {result['dtype']}; PyTorch chooses "
        f"{result['choice']}; peak {'unknown' if peak is None else f'{peak:g} TFLOP/s'}.",
        "",
        *_table(["kernel", "forward TFLOP/s", "backward TFLOP/s", "not run because"], rows),
    ]


def _prediction(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in ("teacher", "trained"):
        row = result[name]
        dtypes = [", ".join(row["dtypes"][key]) for key in ("q", "k", "time_embedding")]
        differences = [row["relative_difference"], row["largest_difference"]]
        rows.append([name, *(f"{value:.2e}" for value in differences), *dtypes])
    verdict = "within" if result["within"] else "**beyond**"
    head = ["network", "‖Δ‖ / ‖v̂‖", "largest Δ", "q", "k", "embedding of time"]
    return [f"{result['model']}: {verdict} {result['limit']}.", "", *_table(head, rows)]


def _resume(result: Mapping[str, Any]) -> list[str]:
    apart, reason = result["largest_difference"], result["reason"]
    outcome = (
        "equal bit for bit to the run that nothing stopped"
        if result["bit_equal"]
        else f"not equal (largest difference {apart:.3g}): {reason}"
    )
    done = f"{result['killed_after_updates']} of {result['updates']} updates"
    return [f"Killed after {done} and resumed: {outcome}."]


def _step(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in ("student_step", "fake_score_step"):
        row = result[name]
        rows.append(
            [
                name.replace("_", " "),
                f"{row['median_seconds']:.3f}",
                f"{row['tflops_a_second']:.1f}",
                "" if row["mfu"] is None else f"{row['mfu']:.1%}",
            ]
        )
    planned = result["planned_bytes"]
    plan = f"planned {sum(planned.values()) / GIB:.2f} GiB" if planned else "no plan on a CPU"
    return [
        *_table(["step", "seconds", "TFLOP/s", "MFU"], rows),
        "",
        f"Peak: {_memory(result['peak_memory'])}; {plan}. "
        f"{result['samples_a_second']:.3g} samples/s.",
    ]


def _profile(result: Mapping[str, Any]) -> list[str]:
    whole = sum(row["microseconds"] for row in result["rows"])
    rows = [
        [f"`{row['name'][:80]}`", str(row["calls"]), f"{row['microseconds'] / 1e3:.2f}",
         f"{row['microseconds'] / whole:.1%}"]
        for row in result["rows"][:12]
    ]  # fmt: skip
    return [
        f"{result['tokens']} tokens, {result['block']['median_seconds'] * 1e3:.1f} ms.",
        "",
        *_table(["kernel", "calls", "ms", "share of those listed"], rows),
    ]


def _nccl(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in ("teacher", "trained"):
        row, norms = result[name], result[name]["gradient_norms"]
        shown = "none" if norms is None else " / ".join(f"{norm:.6g}" for norm in norms)
        rows.append([name, ", ".join(row["dtypes"]), f"{row['relative_difference']:.2e}", shown])
    head = ["network", "weights", "‖Δv̂‖ / ‖v̂‖ of cut and whole", "gradient norm, whole / cut"]
    return [f"Backend {result['backend']}.", "", *_table(head, rows)]


def _decode(result: Mapping[str, Any]) -> list[str]:
    rows = [
        [count, f"{row['seconds']:.2f}", _memory(row["peak_memory"])]
        for count, row in result["clips"].items()
    ]
    said = " in tiles" if result["tiled"] else ""
    shape = "×".join(map(str, result["clip"]))
    return [f"Clips of {shape}{said}.", "", *_table(["clips", "seconds", "peak"], rows)]


def _checkpoint(result: Mapping[str, Any]) -> list[str]:
    equal = "as they were" if result["equal"] else "**not as they were**"
    gigabytes = result["bytes"] / 1e9
    return [
        f"{gigabytes:.3g} GB in {result['files']} files: saved in {result['save_seconds']:.1f} s, "
        f"restored in {result['restore_seconds']:.1f} s, weights {equal}."
    ]


SHOW: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "attention": _attention,
    "toy_prediction": _prediction,
    "toy_resume": _resume,
    "wan_step": _step,
    "block_profile": _profile,
    "wan_step_compiled": _step,
    "nccl": _nccl,
    "vae_decode": _decode,
    "cosmos_step": _step,
    "save_restore": _checkpoint,
}
