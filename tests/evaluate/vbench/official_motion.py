"""VBench's own code on given clips, run by test_parity_motion.py in another process.

Reads a job from stdin: {"cache"} alone writes random weights of the right architectures there;
with {"videos": {dimension: files}, "hub"} it prints {dimension: {"score", "videos", "magnitudes"}}
by those weights, with {"verdicts": [...]} whether such magnitudes make a clip move or static. Only
what VBench cannot do on a CPU or today is replaced: device names, drawing, and the network that
torch hub would fetch.
"""

import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import torch

torch.set_num_threads(1)
DEVICE = torch.device("cpu")
RAFT_OPTIONS = {"small": False, "mixed_precision": False, "alternate_corr": False}


def randomise_statistics(network):
    """Batch norms of a new network do nothing; a mix-up of theirs would not show."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return network


def write_weights(cache: Path) -> None:
    from easydict import EasyDict
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.third_party.amt.utils.build_utils import build_from_cfg
    from vbench.third_party.RAFT.core.raft import RAFT

    torch.manual_seed(0)
    parameters = {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}
    amt = build_from_cfg({"name": "networks.AMT-S.Model", "params": parameters})
    raft = randomise_statistics(RAFT(EasyDict(RAFT_OPTIONS)))
    musiq = MUSIQ(pretrained=False)
    with torch.no_grad():
        # Weights fresh from initialisation give nearly the same score to every clip. With these
        # the fastest pixels move by about 3, VBench's threshold at 128 pixels.
        raft.update_block.flow_head.conv2.weight *= 0.104
        raft.update_block.flow_head.conv2.bias.zero_()
        musiq.head.weight *= 20
    files = {
        "amt_model/amt-s.pth": {"state_dict": amt.state_dict()},
        "raft_model/models/raft-things.pth": {
            f"module.{name}": value for name, value in raft.state_dict().items()
        },
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth": musiq.state_dict(),
    }
    for name, state in files.items():
        (cache / name).parent.mkdir(parents=True)
        torch.save(state, cache / name)


def motion_smoothness(listing, job):
    import vbench
    from vbench.motion_smoothness import compute_motion_smoothness

    config = Path(vbench.__file__).parent / "third_party/amt/cfgs/AMT-S.yaml"
    files = {"config": str(config), "ckpt": f"{job['cache']}/amt_model/amt-s.pth"}
    return compute_motion_smoothness(listing, DEVICE, files)


def dynamic_degree(listing, job):
    from vbench.dynamic_degree import DynamicDegree, compute_dynamic_degree

    seen, check = [], DynamicDegree.check_move

    def recorded(self, scores):
        seen.append(scores)
        return check(self, scores)

    DynamicDegree.check_move = recorded
    model = f"{job['cache']}/raft_model/models/raft-things.pth"
    score, videos = compute_dynamic_degree(listing, DEVICE, {"model": model})
    for video, magnitudes in zip(videos, seen, strict=True):
        video["magnitudes"] = magnitudes
    return score, videos


def static_filter(listing, job):
    from easydict import EasyDict
    from vbench.cli import static_filter

    static_filter.DEVICE = DEVICE
    seen, check = [], static_filter.StaticFilter.check_static

    def recorded(self, scores):
        seen.append([float(score) for score in scores])
        return check(self, scores)

    static_filter.StaticFilter.check_static = recorded
    options = EasyDict(model=f"{job['cache']}/raft_model/models/raft-things.pth", **RAFT_OPTIONS)
    judge = static_filter.StaticFilter(options, DEVICE)
    files = job["videos"]["static_filter"]
    videos = [{"video_path": v, "video_results": bool(judge.infer(v))} for v in files]
    for video, magnitudes in zip(videos, seen, strict=True):
        video["magnitudes"] = magnitudes
    return sum(v["video_results"] for v in videos) / len(videos), videos


def temporal_flickering(listing, job):
    from vbench.temporal_flickering import compute_temporal_flickering

    return compute_temporal_flickering(listing, DEVICE, [])


def imaging_quality(listing, job):
    from vbench.imaging_quality import compute_imaging_quality

    path = f"{job['cache']}/pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"
    with torch.no_grad():
        return compute_imaging_quality(listing, DEVICE, {"model_path": path})


def camera_motion(listing, job):
    for name in ("", ".cotracker", ".cotracker.utils", ".cotracker.utils.visualizer"):
        sys.modules[f"vbench2_beta_i2v.third_party{name}"] = ModuleType(name)
    sys.modules["vbench2_beta_i2v.third_party.cotracker.utils.visualizer"].Visualizer = None
    from vbench2_beta_i2v.camera_motion import compute_camera_motion

    fetch = torch.hub.load
    torch.hub.load = lambda repo, model: fetch(job["hub"], model, source="local")
    names = {"repo": "facebookresearch/co-tracker", "model": "cotracker2"}
    score, _, videos = compute_camera_motion(listing, DEVICE, names)
    return score, videos


def verdicts(cases):
    """[moves, static] for each {"magnitudes", "frames", "height", "width"} of the rules alone."""
    from vbench.cli.static_filter import StaticFilter
    from vbench.dynamic_degree import DynamicDegree

    found = []
    for case in cases:
        frame = torch.zeros(1, 3, case["height"], case["width"])
        mover, filter_ = (object.__new__(kind) for kind in (DynamicDegree, StaticFilter))
        for judge in (mover, filter_):
            judge.set_params(frame, case["frames"])
        # dynamic_degree has no magnitudes between the two ends, which come last
        moves = mover.check_move(case["magnitudes"][:-2])
        found.append([moves, filter_.check_static(case["magnitudes"])])
    return found


def score(job):
    results = {}
    for dimension, files in job["videos"].items():
        entry = {"prompt_en": "", "dimension": [dimension], "video_list": files}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as listing:
            json.dump([entry], listing)
            listing.flush()
            total, videos = globals()[dimension](listing.name, job)
        results[dimension] = {
            "score": float(total),
            "videos": {v["video_path"]: float(v["video_results"]) for v in videos},
            "magnitudes": {v["video_path"]: v.get("magnitudes") for v in videos},
        }
    return results


def main() -> None:
    job = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        if "verdicts" in job:
            found = verdicts(job["verdicts"])
        else:
            found = score(job) if "videos" in job else write_weights(Path(job["cache"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
