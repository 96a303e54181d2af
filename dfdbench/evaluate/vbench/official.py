"""Run the official package vbench on some clips, in its own interpreter; used by bridge.py.

The package sees a folder of links in place of VBench's cache, so nothing in the user's folders is
written and only weights that are here are in it. It fetches nothing: its proxy does not exist.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfdbench.evaluate.metrics.vbench.bridge import VERSION
from dfdbench.evaluate.vbench.results import read_results
from dfdbench.utils.assets import ASSETS, cache_folders, find_file
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.vbench_weights import vbench_file

WORKER = Path(__file__).with_name("official_worker.py")
PROBE = "from importlib.metadata import version; print(version('vbench'))"
DINO = "dino_model/facebookresearch_dino_main"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "no_proxy": "", "NO_PROXY": ""} | (
    dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:9")
)


def check_python(python: Path) -> Path:
    """The absolute path of an interpreter; a UserError where it has no vbench of that version."""
    python = python.expanduser().absolute()  # not resolved: a venv's python is a link
    try:
        command = [str(python), "-c", PROBE]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        said = last_line(done.stdout or done.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"--vbench-python {python}: {error}; name VENV/bin/python") from error
    if said != VERSION:
        raise UserError(
            f"--vbench-python {python}: has no vbench {VERSION} ({said}); "
            f"`{python} -m pip install vbench=={VERSION}`"
        )
    return python


def find_files(dimension: str) -> dict[str, Path]:
    """Where weights are to lie in the worker's folder, and where they are, or MissingWeights."""
    needed = [a for a in ASSETS.values() if a.url and not a.clone and dimension in a.dimensions]
    paths = [path for asset in needed for path in asset.files]
    files = {f"cache/{path}": vbench_file(path, Path(path).name, what=dimension) for path in paths}
    if dimension == "subject_consistency":
        code = find_file(f"{DINO}/hubconf.py", f"../{Path(DINO).name}/hubconf.py")
        if code is None:
            raise MissingWeights(
                f"no {Path(DINO).name}, DINO's code; clone "
                f"https://github.com/facebookresearch/dino to {cache_folders()[0] / DINO}"
            )
        (dino,) = files.values()
        files[f"torch/hub/checkpoints/{dino.name}"] = dino
        files[f"cache/{DINO}/hubconf.py"] = code
    return files


def ask(
    python: Path,
    dimension: str,
    clips: Sequence[tuple[Path, Mapping[str, Any]]],
    device: str,
    log: Path,
) -> list[float | None]:
    """The package's value of each clip, in order; None: it has none.

    Args:
        clips: each with VBench's entry of its prompt.
        log: file for all that the package prints.

    Raises:
        UserError: it stopped, or its results are not of these clips.
    """
    with tempfile.TemporaryDirectory(prefix="dfdbench-") as name:
        room, links = Path(name), []
        for path, file in find_files(dimension).items():
            if file.name == "hubconf.py":  # which stands for its folder
                _link((room / path).parent, file.parent)
            else:
                _link(room / path, file)
        for i, (clip, entry) in enumerate(clips):
            # human_action reads the action from the name; readers go by .mp4 or .gif
            text = re.sub(r"[/\0]", " ", entry["prompt_en"]).encode()[:200].decode(errors="ignore")
            suffix = ".gif" if clip.suffix.lower() == ".gif" else ".mp4"
            links.append(_link(room / "videos" / f"{i:05d}" / f"{text}-0{suffix}", clip))
        entries = [
            {**entry, "video_list": [link]} for (_, entry), link in zip(clips, links, strict=True)
        ]
        write_json(room / "listing.json", entries)
        command = [python, WORKER, dimension, device, room / "listing.json", room]
        environment = OFFLINE | {"VBENCH_CACHE_DIR": str(room / "cache")}
        if (room / "torch").exists():
            environment["TORCH_HOME"] = str(room / "torch")
        if status := _run([str(word) for word in command], environment, log):
            reason = f"killed by signal {-status}" if status < 0 else last_line(log.read_bytes())
            raise UserError(f"official vbench {VERSION} failed ({reason}); all it said is in {log}")
        values = read_results([room / f"{dimension}_eval_results.json"])[dimension]
    # The package leaves out clips of color in which it saw no colour of the object.
    if not values.keys() <= set(links) or (len(values) < len(links) and dimension != "color"):
        raise UserError(f"official vbench {VERSION} answered for other clips; see {log}")
    return [values.get(link) for link in links]


def _link(link: Path, target: Path) -> str:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.absolute())
    return str(link)


def _run(command: list[str], environment: Mapping[str, str], log: Path) -> int:
    """Run the worker; its exit status. It ends with this process, however that ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            cwd=command[-1], env=os.environ | environment, start_new_session=True,
        ) as child,
    ):  # fmt: skip
        try:
            return child.wait()
        except BaseException:  # Ctrl-C above all: what the package started goes too
            os.killpg(child.pid, signal.SIGKILL)
            raise


def last_line(said: bytes) -> str:
    """The last line that says something, at most 160 characters."""
    lines = said.decode(errors="replace").split("\n")
    return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "it said nothing")
