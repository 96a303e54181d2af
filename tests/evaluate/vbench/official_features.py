"""Runs VBench's own code on a job read from standard input and prints its results as JSON.

Started by test_parity_features.py in its own process, with the folder of an installed vbench 0.1.5
on the path. Job: {"dimensions": [...], "info": [entries of a full_info.json with video_list],
"images": {video: image}}. The checkpoints lie in $VBENCH_CACHE_DIR. Shims, all for what is not
vbench's: pkg_resources (openai-clip imports it; newer setuptools lack it) and DINO's repository,
for which DreamSim's copy of the same definition is taken.
"""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import packaging.version
import torch


def shim() -> None:
    """What vbench needs beside itself."""
    sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
    sys.modules["pkg_resources"].packaging = packaging  # type: ignore[attr-defined]

    def load(*args: Any, **options: Any) -> torch.nn.Module:
        from dreamsim.feature_extraction.vision_transformer import vit_base

        file = Path(os.environ["VBENCH_CACHE_DIR"], "dino_model", "dino_vitbase16_pretrain.pth")
        model = vit_base(patch_size=16)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()

    torch.hub.load = load


def of_t2v(dimension: str, job: Path) -> tuple[float, list[dict[str, Any]]]:
    """A dimension of vbench, by the function that its command line calls."""
    from importlib import import_module

    from vbench.utils import init_submodules

    # so that it does not clone a repository: the folder is asked for, the shim does not read it
    Path(os.environ["VBENCH_CACHE_DIR"], "dino_model", "facebookresearch_dino_main").mkdir(
        exist_ok=True
    )
    modules = init_submodules([dimension], local=True)[dimension]
    function = getattr(import_module(f"vbench.{dimension}"), f"compute_{dimension}")
    with torch.no_grad():
        return function(str(job), torch.device("cpu"), modules)


def of_i2v(dimension: str, pairs: list[tuple[str, str]]) -> tuple[float, list[dict[str, Any]]]:
    """A dimension of vbench2_beta_i2v, below its function that takes images from fixed folders."""
    if dimension == "i2v_subject":
        from vbench2_beta_i2v.i2v_subject import i2v_subject as function

        model = torch.hub.load("facebookresearch/dino:main", "dino_vitb16")
    else:
        from dreamsim import dreamsim
        from vbench2_beta_i2v.i2v_background import i2v_background as function

        folder = Path(os.environ["VBENCH_CACHE_DIR"], "dreamsim")
        model, _ = dreamsim(pretrained=True, device="cpu", cache_dir=str(folder))
    with torch.no_grad():
        return function(model, pairs, torch.device("cpu"))


def main() -> None:
    job = json.load(sys.stdin)
    printed, sys.stdout = sys.stdout, sys.stderr
    shim()
    info = Path(os.environ["VBENCH_CACHE_DIR"], "full_info.json")
    info.write_text(json.dumps(job["info"]))
    pairs = [(image, video) for video, image in job["images"].items()]
    results = {}
    for dimension in job["dimensions"]:
        i2v = dimension.startswith("i2v_")
        total, videos = of_i2v(dimension, pairs) if i2v else of_t2v(dimension, info)
        results[dimension] = {
            "total": float(total),
            "videos": {Path(v["video_path"]).name: float(v["video_results"]) for v in videos},
        }
    json.dump(results, printed)


if __name__ == "__main__":
    main()
