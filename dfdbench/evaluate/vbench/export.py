"""Results in VBench's own files: what was evaluated, what came out, and the leaderboard's zip.

Used by `dfdbench export` (cli/vbench.py). Formats as vbench 0.1.5 writes and the leaderboard's
scripts read them, with two differences: no NaN (which is not JSON) stands for a camera motion
without clips, and nothing but the protocol's dimensions is written, because the I2V script stops at
any other (such as temporal_flickering). VBench's scripts count a dimension that is not in the zip
as 0, so the name of a zip that lacks some says how many it has.
"""

import math
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dfdbench.evaluate.metrics.vbench.camera_motion import target
from dfdbench.evaluate.vbench.totals import PROTOCOLS, counted, dimension_scores
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import atomic_path, write_json

Entry = Mapping[str, Any]
"""One prompt of VBench's info file: prompt_en, dimension (a list), and what else it has."""

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever the zip is written
VERDICTS = ("human_action", "dynamic_degree")  # whose values VBench writes as true and false
PERCENT = ("imaging_quality",)  # whose clips VBench gives 0 to 100, and only the score 0 to 1


def dimensions_of(entries: Mapping[str, Entry] | None) -> dict[str, Collection[str]] | None:
    """The dimensions of each prompt id, as dfdbench.evaluate.vbench.totals takes them."""
    return None if entries is None else {name: e["dimension"] for name, e in entries.items()}


def full_info(
    values: pd.DataFrame, entries: Mapping[str, Entry] | None = None
) -> list[dict[str, Any]]:
    """One method's clips, as VBench lists what it is to evaluate.

    Args:
        values: one row a clip: path, prompt_id, prompt and columns of dimensions.
        entries: VBench's entry of each prompt id; None: any clips, each with its own prompt, for
            the dimensions that it has values of.

    Returns:
        Entries with `video_list`, the clips' paths in order; prompts without clips are left out.
    """
    info = []
    for prompt_id, clips in values.sort_values("path").groupby("prompt_id"):
        if entries is not None:
            if str(prompt_id) not in entries:
                continue
            entry = dict(entries[str(prompt_id)])
        else:
            asked = [name for name in DIMENSIONS if name in clips and clips[name].notna().any()]
            prompt = clips["prompt"].iloc[0]
            entry = {"prompt_en": prompt_id if pd.isna(prompt) else prompt, "dimension": asked}
        info.append(entry | {"video_list": clips["path"].tolist()})
    return info


def eval_results(
    values: pd.DataFrame,
    protocol: str,
    entries: Mapping[str, Entry] | None = None,
    static_filter: bool = False,
) -> dict[str, list[Any]]:
    """One method's results: for each dimension of the protocol its score, then each clip's value.

    Args:
        values: as of `dimension_scores`, with the clips' prompts, of one method.
        protocol: "t2v" or "i2v".
        entries: as of `full_info`.
        static_filter: as of `dimension_scores`.

    Returns:
        {dimension: [score, [{"video_path", "video_results", …}, …]]}, and for camera_motion the
        score of each motion between the two. Dimensions without a score are left out.

    Raises:
        UserError: an unknown protocol, or several methods.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("VBench protocol", protocol, PROTOCOLS)
    methods = values["method"].unique()
    if len(methods) > 1:
        raise UserError(f"methods {', '.join(sorted(methods))}: VBench's files hold one; name it")
    prompts = dimensions_of(entries)
    scores = dimension_scores(values, prompts, static_filter).set_index("dimension")["score"]
    results: dict[str, list[Any]] = {}
    for name in PROTOCOLS[protocol].dimensions:
        if name not in scores or math.isnan(scores[name]):
            continue
        clips = counted(values, name, prompts, static_filter).sort_values("path")
        results[name] = [float(scores[name]), [_result(name, row) for _, row in clips.iterrows()]]
        if name == "camera_motion":
            motions = clips.groupby(clips["prompt"].map(target))[name].mean()
            results[name].insert(1, {str(motion): float(v) for motion, v in motions.items()})
    return results


def _result(dimension: str, row: "pd.Series[Any]") -> dict[str, Any]:
    value: float | bool = float(row[dimension])
    if dimension in VERDICTS:
        value = bool(value)
    if dimension in PERCENT:
        value *= 100
    result: dict[str, Any] = {"video_path": row["path"], "video_results": value}
    if DIMENSIONS[dimension].by_frame and pd.notna(row[f"{dimension}_frames"]):
        result["cnt_per_video"] = int(row[f"{dimension}_frames"])
    return result


def write_files(
    folder: Path,
    name: str,
    values: pd.DataFrame,
    protocol: str,
    entries: Mapping[str, Entry] | None = None,
    static_filter: bool = False,
) -> list[Path]:
    """Write the three files of one method into `folder`; arguments as of `eval_results`.

    Returns:
        Their paths. The zip is NAME.zip, or NAME_12of16.zip if dimensions are missing.

    Raises:
        UserError: a name that VBench's scripts would skip, no score at all, and what
            `eval_results` raises.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"name '{name}': VBench's scripts skip it; start with a letter or a digit")
    results = eval_results(values, protocol, entries, static_filter)
    if not results:
        raise UserError(f"{name}: no score of VBench's {protocol} dimensions; score some first")
    info = full_info(values, entries)
    expected = len(PROTOCOLS[protocol].dimensions)
    partial = "" if len(results) == expected else f"_{len(results)}of{expected}"
    files = {f"{name}_full_info.json": info, f"{name}_eval_results.json": results}
    for file, content in files.items():
        write_json(folder / file, content)
    archive = folder / f"{name}{partial}.zip"
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w") as opened:
        for file in files:
            opened.writestr(zipfile.ZipInfo(file, EPOCH), (folder / file).read_bytes())
    return [*(folder / file for file in files), archive]
