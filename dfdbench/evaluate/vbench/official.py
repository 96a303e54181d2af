"""Run the official package vbench on a list of clips: in its own interpreter, JSON in and out.

Used by bridge.py. The package sees a folder of links in place of VBench's cache, so nothing in the
user's folders is written and only weights that are here are in it.
"""

import json
import math
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, VERSION
from dfdbench.utils.assets import cache_folders
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.vbench_weights import vbench_file

WORKER = Path(__file__).with_name("official_worker.py")
PROBE_SECONDS = 60
PERCENT = "imaging_quality"  # whose clips the package gives 0 to 100
GRIT, TAG2TEXT = "grit_model/grit_b_densecap_objectdet.pth", "caption_model/tag2text_swin_14m.pth"
CLIP_B, DINO = "clip_model/ViT-B-32.pt", "dino_model/dino_vitbase16_pretrain.pth"
DINO_CODE = "facebookresearch_dino_main"
VICLIP = ("ViCLIP/ViClip-InternVid-10M-FLT.pth", "ViCLIP/bpe_simple_vocab_16e6.txt.gz")
FILES: Mapping[str, tuple[str, ...]] = {
    "object_class": (GRIT,),
    "multiple_objects": (GRIT,),
    "color": (GRIT,),
    "spatial_relationship": (GRIT,),
    "scene": (TAG2TEXT,),
    "subject_consistency": (DINO,),
    "background_consistency": (CLIP_B,),
    "appearance_style": (CLIP_B,),
    "temporal_flickering": (),
    "motion_smoothness": ("amt_model/amt-s.pth",),
    "dynamic_degree": ("raft_model/models/raft-things.pth",),
    "aesthetic_quality": (
        "clip_model/ViT-L-14.pt",
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    ),
    "imaging_quality": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",),
    "human_action": ("umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",),
    "temporal_style": VICLIP,
    "overall_consistency": VICLIP,
}
"""The weights of each dimension, by their paths in VBench's cache."""
BERT = "bert-base-uncased"  # in the hub's cache: the tokenizer, and for scene a network


Entry = Mapping[str, Any]


class Failed(UserError):
    """The package gave no values for a dimension; the message says why, in one line."""


def check_python(python: Path) -> Path:
    """The absolute path of an interpreter that has the package.

    Raises:
        UserError: it is none, or has no vbench of the right version.
    """
    python = python.expanduser().absolute()  # not resolved: a venv's python is a link
    if not python.is_file() or not os.access(python, os.X_OK):
        what = "no such file" if not python.exists() else "not a program that can be run"
        raise UserError(
            f"--vbench-python {python}: {what}; name the python of an environment with "
            f"vbench {VERSION}, such as VENV/bin/python"
        )
    try:
        done = subprocess.run(
            [str(python), str(WORKER), "--probe"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS,
        )  # fmt: skip
        found = json.loads(done.stdout)
        release, version = tuple(found["python"]), found["vbench"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"--vbench-python {python}: not a Python interpreter; name the python of an "
            f"environment with vbench {VERSION}"
        ) from error
    if release < (3, 8):
        raise UserError(
            f"--vbench-python {python}: is Python {release[0]}.{release[1]}, 3.8 is needed"
        )
    if version != VERSION:
        has = f"has vbench {version}" if version else "has no vbench"
        raise UserError(
            f"--vbench-python {python}: {has}; `{python} -m pip install vbench=={VERSION}`"
        )
    return python


def find_files(dimension: str) -> dict[str, Path]:
    """Where the weights of a dimension are to lie in the worker's room, and where they are.

    Raises:
        MissingWeights: one is not here; the message names the file and how to get it.
    """
    found = {}
    for path in FILES[dimension]:
        found[f"cache/{path}"] = vbench_file(path, Path(path).name, what=dimension)
    if DINO in FILES[dimension]:
        found[f"torch/hub/checkpoints/{Path(DINO).name}"] = found[f"cache/{DINO}"]
        found[f"cache/dino_model/{DINO_CODE}/hubconf.py"] = _dino_code() / "hubconf.py"
    if dimension in BRIDGED:
        _check_bert(dimension)
    return found


def _dino_code() -> Path:
    vbench, checkpoints = cache_folders()[:2]
    for folder in (vbench / "dino_model" / DINO_CODE, checkpoints.parent / DINO_CODE):
        if (folder / "hubconf.py").is_file():
            return folder
    raise MissingWeights(
        f"no {DINO_CODE}, DINO's code; clone https://github.com/facebookresearch/dino to "
        f"{vbench / 'dino_model' / DINO_CODE}"
    )


def _check_bert(dimension: str) -> None:
    """Raise MissingWeights where the hub's cache lacks what a dimension takes of BERT."""
    from huggingface_hub import try_to_load_from_cache

    network = ("model.safetensors", "pytorch_model.bin")
    for names in (("vocab.txt",), *([network] if dimension == "scene" else [])):
        if not any(isinstance(try_to_load_from_cache(BERT, name), str) for name in names):
            raise MissingWeights(
                f"no {names[0]} of {BERT} in the hub's cache; get it with `hf download {BERT}`"
            )


def ask(
    python: Path,
    dimension: str,
    clips: Sequence[tuple[Path, Entry]],
    files: Mapping[str, Path],
    device: str,
    log: Path,
) -> list[float | None]:
    """The package's value of each clip, in order, 0 to 1; None where it has none.

    Args:
        python: as of `check_python`.
        dimension: VBench's name.
        clips: each with VBench's entry of its prompt.
        files: as of `find_files`.
        device: "cpu" or "cuda".
        log: file for all that the package prints.

    Raises:
        Failed: it stopped, or its answer is not what was asked for.
    """
    with tempfile.TemporaryDirectory(prefix="dfdbench-") as name:
        room = Path(name)
        for path, file in files.items():
            _link(room / path, file)
        links, entries = _listing(room / "videos", clips)
        job, answer = room / "job.json", room / "answer.json"
        write_json(job, {"dimension": dimension, "entries": entries, "device": device})
        environment = {
            "VBENCH_CACHE_DIR": str(room / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        if DINO in FILES[dimension]:
            environment["TORCH_HOME"] = str(room / "torch")
        command = [str(python), str(WORKER), str(job), str(answer)]
        status = _run(command, environment, room, log)
        if status:
            reason = f"killed by signal {-status}" if status < 0 else last_line(log)
            raise Failed(f"official vbench {VERSION} failed ({reason}); all it said is in {log}")
        return read_answer(answer, links, dimension, log)


def _listing(
    links: Path, clips: Sequence[tuple[Path, Entry]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Links to the clips, named after their prompts, and VBench's entries that list them."""
    paths, entries = [], []
    for i, (path, entry) in enumerate(clips):
        # human_action reads the action from the file's name; readers go by .mp4 or .gif
        text = re.sub(r"[/\0]", " ", entry["prompt_en"]).encode()[:200].decode(errors="ignore")
        suffix = ".gif" if path.suffix.lower() == ".gif" else ".mp4"
        link = links / f"{i:05d}" / f"{text}-0{suffix}"
        _link(link, path)
        paths.append(str(link))
        entries.append({**entry, "video_list": [str(link)]})
    return paths, entries


def _link(link: Path, target: Path) -> None:
    """A link to a file, or for DINO's code to the folder that the file lies in."""
    if target.name == "hubconf.py":
        link, target = link.parent, target.parent
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.absolute())


def _run(command: list[str], environment: Mapping[str, str], folder: Path, log: Path) -> int:
    """Run the worker; its exit status. It ends with this process, however that ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            cwd=folder, env=os.environ | environment, start_new_session=True,
        ) as child,
    ):  # fmt: skip
        try:
            return child.wait()
        except BaseException:  # Ctrl-C above all: what the package started goes too
            os.killpg(child.pid, signal.SIGKILL)
            raise


def last_line(log: Path) -> str:
    """The last line of a log that says something, at most 160 characters."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "it said nothing")


def read_answer(
    answer: Path, links: Sequence[str], dimension: str, log: Path
) -> list[float | None]:
    """The values in the worker's answer, in the order of `links`; None: the clip has none.

    The package leaves clips out of color only: those in which it saw no colour of the object.

    Raises:
        Failed: the answer is not what was asked for.
    """
    try:
        videos = json.loads(answer.read_text(encoding="utf-8"))["videos"]
        values = {video["path"]: float(video["value"]) for video in videos}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"official vbench {VERSION} gave no usable answer; see {log}") from error
    lost = [link for link in links if link not in values] if dimension != "color" else []
    strange = [path for path in values if path not in links]
    if lost or strange:
        raise Failed(
            f"official vbench {VERSION} answered for {len(values) - len(strange)} of {len(links)} "
            f"clips and {len(strange)} others; see {log}"
        )
    scale = 100 if dimension == PERCENT else 1
    found = [values.get(link, math.nan) / scale for link in links]
    return [value if math.isfinite(value) else None for value in found]
