"""A package that looks like the official vbench and torch, for tests of the bridge to it.

Each dimension's value of a clip is made of the clip's bytes, and each call is written to a log.
What it does is set by a JSON file: {"fail", "hang", "drop", "odd", "download": dimensions}.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, NATIVE

DIMENSION = """
import json, os, time, urllib.request
from vbench.utils import behaves, log

NAME = __name__.split(".")[-1]

def compute(listing, device, submodules):
    entries = json.load(open(listing))
    paths = [path for entry in entries for path in entry["video_list"]]
    log(call="compute", dimension=NAME, entries=entries, device=str(device), modules=submodules,
        cache=os.environ["VBENCH_CACHE_DIR"], offline=os.environ["HF_HUB_OFFLINE"],
        pid=os.getpid())
    if behaves("hang", NAME):
        time.sleep(600)
    if behaves("fail", NAME):
        raise ValueError("the detector\\nfell over")
    if behaves("download", NAME):
        urllib.request.urlopen("http://192.0.2.1/weights.pth", timeout=5)
    scale = 100 if NAME == "imaging_quality" else 1
    values = {path: sum(open(path, "rb").read()) % 1000 / 1000 * scale for path in paths}
    if behaves("drop", NAME):
        del values[paths[0]]
    score = sum(values.values()) / len(values)
    if behaves("odd", NAME):
        values["/another"] = 0.5
    return score, [{"video_path": p, "video_results": v} for p, v in reversed(values.items())]

globals()["compute_" + NAME] = compute
"""
PACKAGE = """
import importlib, json, os
from .utils import init_submodules

class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.device, self.output_path = device, output_path

    def build_full_info_json(self, *args, **kwargs):
        raise AssertionError("the package is not to choose the clips")

    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False):
        results, submodules = {}, init_submodules(dimension_list, local=local)
        listing = self.build_full_info_json(videos_path, name, dimension_list, prompt_list)
        for dimension in dimension_list:
            module = importlib.import_module("vbench." + dimension)
            compute = getattr(module, "compute_" + dimension)
            results[dimension] = compute(listing, self.device, submodules[dimension])
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump(results, file)
"""
UTILS = """
import json, os

def behaves(how, dimension):
    return dimension in json.load(open(os.environ["FAKE_VBENCH"])).get(how, ())

def log(**facts):
    with open(os.environ["FAKE_VBENCH"] + ".log", "a") as file:
        file.write(json.dumps(facts) + "\\n")

def init_submodules(dimensions, local=False, read_frame=False):
    cache = os.environ["VBENCH_CACHE_DIR"]
    found = sorted(os.path.relpath(os.path.join(folder, name), cache)
                   for folder, _, names in os.walk(cache) for name in names)
    log(call="init", dimensions=dimensions, local=local, files=found)
    return {dimension: {"of": dimension} for dimension in dimensions}
"""
TORCH = """
import contextlib
no_grad = contextlib.nullcontext
device = str
"""


class Fake:
    """The installed package: its site folder, what it should do, and what it was asked."""

    def __init__(self, folder: Path, version: str = "0.1.5") -> None:
        self.site, self.orders = folder / "site", folder / "orders.json"
        package, info = self.site / "vbench", self.site / f"vbench-{version}.dist-info"
        for made in (package, info):
            made.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vbench\nVersion: {version}\n")
        (package / "__init__.py").write_text(PACKAGE)
        (package / "utils.py").write_text(UTILS)
        (self.site / "torch.py").write_text(TORCH)
        for dimension in (*BRIDGED, *NATIVE):
            (package / f"{dimension}.py").write_text(DIMENSION)
        self.behave()

    @property
    def environment(self) -> dict[str, str]:
        """What the interpreter needs to find it."""
        return {"PYTHONPATH": str(self.site), "FAKE_VBENCH": str(self.orders)}

    def behave(self, **how: list[str]) -> None:
        """Set what it does and forget what it was asked."""
        self.orders.write_text(json.dumps(how))
        Path(f"{self.orders}.log").write_text("")

    def log(self) -> list[dict[str, Any]]:
        """What it was asked, in order."""
        lines = Path(f"{self.orders}.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def asked(self) -> list[tuple[str, int]]:
        """Each dimension computed, with the number of its clips."""
        return [
            (call["dimension"], sum(len(entry["video_list"]) for entry in call["entries"]))
            for call in self.log()
            if call["call"] == "compute"
        ]


def value_of(clip: Path) -> float:
    """What the package finds of a clip, in every dimension."""
    return sum(clip.read_bytes()) % 1000 / 1000


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(pid, signal.SIG_DFL)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
