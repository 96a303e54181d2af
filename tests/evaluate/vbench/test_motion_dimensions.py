"""Closed forms of VBench's motion, quality and camera dimensions, without package or weights."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import as_clip, moving_texture
from hub_tracker import write_hub
from joint_passes import all_at_once
from torchvision.models.optical_flow import raft_large

from dfdbench.evaluate.metrics import Setting, get_family
from dfdbench.evaluate.metrics.vbench import (
    camera_motion,
    dynamic_degree,
    imaging_quality,
    motion_smoothness,
    static_filter,
)
from dfdbench.evaluate.metrics.vbench.nets import pairs, raft
from dfdbench.evaluate.metrics.vbench.nets.definitions import load_definition
from dfdbench.evaluate.metrics.vbench.verdict import exceed
from dfdbench.utils.assets import ASSETS, Asset, Package
from dfdbench.utils.errors import MissingWeights, UserError


def levels(values: list[int], height: int = 128, width: int = 128) -> np.ndarray:
    """A clip of one grey level a frame."""
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def means_network(first, second, middle, eval):
    """Instead of AMT: the mean of the two frames."""
    assert middle.shape == (len(first), 1, 1, 1) and (middle == 0.5).all() and eval
    return {"imgt_pred": (first + second) / 2}


def smoothness(monkeypatch, frames: np.ndarray) -> float:
    monkeypatch.setattr(motion_smoothness, "load_network", lambda device: means_network)
    return motion_smoothness.load(Setting())(as_clip(frames))["motion_smoothness"]


# motion_smoothness


def test_odd_frames_are_compared_with_what_the_even_ones_predict(monkeypatch):
    # predicted 30, 61 (of 61.5); there 25, 90; the last frame has no successor
    found = smoothness(monkeypatch, levels([10, 25, 50, 90, 73, 255]))
    assert found == pytest.approx((255 - (5 + 29) / 2) / 255, abs=1e-12)


def test_predictions_are_cut_to_whole_levels_not_rounded(monkeypatch):
    # 12.5 and 13.5 are cut to 12 and 13; rounded half to even they would be 12 and 14
    assert smoothness(monkeypatch, levels([12, 12, 13, 13, 14])) == 1


def test_borders_of_the_prediction_are_those_that_were_added(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (1, 131, 150, 3), np.uint8).repeat(3, 0)
    # x / 255 · 255 may end just below x, which is then cut
    assert smoothness(monkeypatch, noise) > 1 - 1 / 255


def test_batches_of_pairs_join_without_a_seam(monkeypatch):
    frames = levels(np.random.default_rng(1).integers(0, 256, 23).tolist())
    together = smoothness(monkeypatch, frames)
    for most in (1, 2, 5):
        monkeypatch.setattr(pairs, "MOST", most)
        assert smoothness(monkeypatch, frames) == pytest.approx(together, abs=1e-12)


def test_clips_too_small_for_the_networks_have_no_value(monkeypatch):
    monkeypatch.setattr(motion_smoothness, "load_network", lambda device: means_network)
    compute = motion_smoothness.load(Setting())
    assert compute(as_clip(levels([0, 1, 2], 112, 200))) == {}
    assert compute(as_clip(levels([0, 1, 2], 113, 200))) != {}
    monkeypatch.setattr(raft, "load_raft", lambda device: raft_large(weights=None))
    for family in (dynamic_degree, static_filter):
        assert family.load(Setting())(as_clip(levels([0, 1, 2], 200, 120))) == {}


def test_memory_of_a_batch_is_bounded():
    many = [(i, i + 1) for i in range(80)]
    sizes = {
        (device, side): max(len(batch) for batch in pairs.batches(many, side, side, device))
        for device in ("cpu", "cuda")
        for side in (128, 640, 2000)
    }
    assert sizes["cpu", 640] == 1 and sizes["cuda", 2000] == 1
    assert 1 < sizes["cuda", 640] < sizes["cuda", 128] == sizes["cpu", 128] == pairs.MOST
    assert [p for b in pairs.batches(many, 200, 300, "cpu") for p in b] == many


# dynamic_degree and the static filter


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return raft_large(weights=None).eval().requires_grad_(False)


def test_magnitudes_are_those_of_the_networks_own_forward_pass(network):
    frames, chosen = moving_texture(3, 5, 128, 136), [(0, 2), (2, 0)]
    found = list(raft.Magnitudes(network, 0.05)(frames, chosen))
    x = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    for (i, j), value in zip(chosen, found, strict=True):
        u, v = network(x[i, None], x[j, None], num_flow_updates=20)[-1][0].numpy()
        longest = np.sort(np.hypot(u, v).ravel())[::-1][: int(0.05 * u.size)]
        assert value == pytest.approx(longest.mean(), rel=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_one_pair_at_once_gives_the_same_magnitudes(network, monkeypatch):
    monkeypatch.setattr(raft, "UPDATES", 3)
    frames, chosen = moving_texture(3, 5, 125, 130), [(0, 1), (1, 2), (2, 0)]
    together = list(raft.Magnitudes(network, 0.02)(frames, chosen))
    monkeypatch.setattr(pairs, "MOST", 1)
    alone = list(raft.Magnitudes(network, 0.02)(frames, chosen))
    assert alone == pytest.approx(together, abs=1e-5)


def test_magnitudes_of_clips_that_share_passes_are_those_of_each_alone(network, monkeypatch):
    monkeypatch.setattr(raft, "UPDATES", 2)
    sizes, chosen = [(128, 136), (136, 128), (128, 136)], [(0, 1), (1, 2)]
    clips = [moving_texture(3, 3 + k, *size) for k, size in enumerate(sizes)]
    alone = [list(raft.Magnitudes(network, 0.05)(frames, chosen)) for frames in clips]
    together = raft.Magnitudes(network, 0.05, shared=True)
    futures, widths = all_at_once(monkeypatch, lambda c: list(together(c, chosen)), clips)
    for values, future in zip(alone, futures, strict=True):
        assert future.result() == pytest.approx(values, abs=1e-5)
    assert max(widths) == 2 and len({round(values[0], 3) for values in alone}) == 3


def test_a_clip_at_fault_fails_alone_among_those_that_share_passes(monkeypatch):
    def network(first, second, middle, eval):
        if (first == 1).flatten(1).all(1).any():
            raise RuntimeError("white")
        return means_network(first, second, middle, eval)

    clips = [as_clip(levels(values)) for values in ([10, 25, 50], [255, 9, 9], [90, 73, 80])]
    expected = [smoothness(monkeypatch, clip.frames) for clip in (clips[0], clips[2])]
    monkeypatch.setattr(motion_smoothness, "load_network", lambda device: network)
    monkeypatch.setattr(motion_smoothness, "is_shared", lambda device: True)
    monkeypatch.setattr(pairs, "fit_together", lambda *_: 9)
    compute = motion_smoothness.load(Setting())
    futures, widths = all_at_once(monkeypatch, compute, clips)
    assert max(widths) == 3
    with pytest.raises(RuntimeError, match="white"):
        futures.pop(1).result()
    assert [f.result()["motion_smoothness"] for f in futures] == pytest.approx(expected, abs=1e-12)


def test_a_gpu_s_passes_take_a_share_of_what_is_free(monkeypatch):
    volume = pairs.VOLUMES * 4 * (480 * 832 / 64) ** 2
    for free, size in [(None, 2**32 / volume), (2**30, 2**32 / volume), (2**36, 2**34 / volume)]:
        monkeypatch.setattr(pairs, "free_memory", lambda _, free=free: free)
        assert pairs.fit_together((480, 832), torch.device("cuda")) == int(size)
    monkeypatch.setattr(pairs, "free_memory", lambda _: None)
    assert pairs.fit_together((480, 832), torch.device("cpu")) == 1


def test_every_tensor_of_the_authors_checkpoint_has_its_place(network):
    theirs = {
        "module.fnet.conv1.weight": "feature_encoder.convnormrelu.0.weight",
        "module.cnet.norm1.running_var": "context_encoder.convnormrelu.1.running_var",
        "module.cnet.layer2.0.conv2.bias": "context_encoder.layer2.0.convnormrelu2.0.bias",
        "module.cnet.layer3.1.norm1.weight": "context_encoder.layer3.1.convnormrelu1.1.weight",
        "module.cnet.layer2.0.downsample.1.bias": "context_encoder.layer2.0.downsample.1.bias",
        "module.fnet.conv2.bias": "feature_encoder.conv.bias",
        "update_block.encoder.convc2.bias": "update_block.motion_encoder.convcorr2.0.bias",
        "update_block.encoder.convf1.bias": "update_block.motion_encoder.convflow1.0.bias",
        "update_block.encoder.conv.bias": "update_block.motion_encoder.conv.0.bias",
        "update_block.gru.convq2.bias": "update_block.recurrent_block.convgru2.convq.bias",
        "update_block.flow_head.conv1.bias": "update_block.flow_head.conv1.bias",
        "update_block.mask.0.bias": "mask_predictor.convrelu.0.bias",
        "update_block.mask.2.bias": "mask_predictor.conv.bias",
    }
    assert {name: raft.renamed(name) for name in theirs} == theirs
    assert set(theirs.values()) <= set(network.state_dict())


def test_no_more_values_are_read_than_settle_the_verdict():
    rng = np.random.default_rng(0)
    for _ in range(200):
        total, needed = int(rng.integers(1, 12)), int(rng.integers(0, 12))
        values = rng.uniform(0, 2, total)
        source = iter(values)
        assert exceed(source, total, 1, needed) == ((values > 1).sum() >= needed)
    source = iter([2.0, 0.0, 2.0, 9.0])
    assert exceed(source, 4, 1, 2) and next(source) == 9
    source = iter([0.0, 1.0, 2.0, 9.0])  # 1 is not above 1
    assert not exceed(source, 4, 1, 3) and next(source) == 2


def test_every_eighth_of_a_second_is_looked_at():
    assert dynamic_degree.sampled(9, 16) == [0, 2, 4, 6, 8]
    assert dynamic_degree.sampled(4, 3) == [0, 1, 2, 3]
    assert dynamic_degree.sampled(9, 24) == [0, 3, 6]
    assert dynamic_degree.sampled(6, 20) == [0, 2, 4]  # 2.5, half to even


def test_a_quarter_of_the_frames_must_move_by_six_pixels_at_256():
    above, below = 6.01, 5.99
    assert dynamic_degree.moves(iter([above] * 4 + [below] * 11), 16, 256)
    assert not dynamic_degree.moves(iter([above] * 3 + [below] * 12), 16, 256)
    assert not dynamic_degree.moves(iter([above] * 15), 16, 257)
    assert dynamic_degree.moves(iter([0.0]), 2, 256)  # VBench asks for round(0.5) = 0 pairs
    assert not dynamic_degree.moves(iter([]), 1, 256)


def test_a_static_clip_may_move_in_an_eighth_of_its_frames_and_return():
    above, below = 3.01, 2.99
    steps = [above] * 2 + [below] * 13

    def judge(ends: list[float], steps: list[float], side: int = 256) -> bool:
        return static_filter.is_static(iter(ends), iter(steps), 16, side)

    assert judge([11.99, 11.99], steps)
    assert not judge([11.99, 11.99], [above] * 3 + [below] * 12)
    assert not judge([0, 12.01], steps) and not judge([12.01, 0], steps)
    assert not judge([0, 0], [above] * 3 + [below] * 12) and judge([0, 0], [above] * 15, 257)


# imaging_quality


def test_only_frames_longer_than_512_are_reduced_and_sides_rounded_down():
    def shape(height: int, width: int) -> tuple[int, ...]:
        return tuple(imaging_quality.preprocess(np.zeros((1, height, width, 3), np.uint8)).shape)

    assert shape(480, 832) == (1, 3, 295, 512)  # 295.38
    assert shape(832, 480) == (1, 3, 512, 295)
    assert shape(511, 300) == (1, 3, 511, 300)


def test_frames_are_reduced_without_antialiasing():
    frame = np.random.default_rng(0).integers(0, 256, (300, 1024, 3), np.uint8)
    expected = cv2.resize(frame.astype(np.float32), (512, 150), interpolation=cv2.INTER_LINEAR)
    found = imaging_quality.preprocess(frame[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected / 255, atol=1e-4)


def test_quality_is_the_mean_over_frames_in_parts_of_a_hundred(monkeypatch):
    def brightness(images: torch.Tensor) -> torch.Tensor:
        assert images.max() <= 1
        return 80 * images.mean((1, 2, 3))[:, None]

    monkeypatch.setattr(imaging_quality, "load_network", lambda device: brightness)
    found = imaging_quality.load(Setting())(as_clip(levels([0, 51, 255, 255, 0], 32, 40)))
    assert found["imaging_quality"] == pytest.approx(0.8 * (0.2 + 2) / 5, abs=1e-6)


def test_quality_of_clips_that_share_passes_is_that_of_each_alone(monkeypatch):
    clips = [as_clip(levels(values, 32, 40)) for values in ([0, 51, 255], [9, 9], [255, 0, 0, 7])]

    def brightness(images: torch.Tensor) -> torch.Tensor:
        return 80 * images.mean((1, 2, 3))[:, None]

    monkeypatch.setattr(imaging_quality, "load_network", lambda device: brightness)
    alone = [imaging_quality.load(Setting())(clip) for clip in clips]
    monkeypatch.setattr(imaging_quality, "is_shared", lambda device: True)
    monkeypatch.setitem(imaging_quality.BATCH, "cpu", 4)
    futures, widths = all_at_once(monkeypatch, imaging_quality.load(Setting()), clips)
    assert max(widths) > 1
    for values, future in zip(alone, futures, strict=True):
        assert future.result() == pytest.approx(values, abs=1e-6)


# camera_motion


def tracks(dx: float = 0, dy: float = 0, growth: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Points in the first and the last frame of 200 × 100 pixels: (10, 10, 2) each."""
    y, x = np.meshgrid(np.linspace(0, 99, 10), np.linspace(0, 199, 10), indexing="ij")
    first, centre = np.stack((x, y), -1), np.array([99.5, 49.5])
    return first, (first - centre) * growth + centre + (dx, dy)


@pytest.mark.parametrize(
    "way, expected",
    [
        ({"dx": 3}, {"pan_left"}),
        ({"dx": -3}, {"pan_right"}),
        ({"dy": 3}, {"tilt_up"}),
        ({"dy": -3}, {"tilt_down"}),
        ({"growth": 1.02}, {"zoom_in"}),
        ({"growth": 0.98}, {"zoom_out"}),
        # ten points have no middle one: VBench's lie right of it and below
        ({"growth": 1.2}, {"zoom_in", "pan_left", "tilt_up"}),
        ({"dx": 3, "dy": 3}, {"pan_left", "tilt_up"}),
        ({"dx": 0.5, "dy": -0.5}, {"static"}),  # 0.5 % of 100 pixels is not beyond it
    ],
)
def test_the_picture_moves_against_the_camera(way, expected):
    assert camera_motion.motions(*tracks(**way), side=100) == expected


def test_a_clip_is_static_only_if_all_four_edges_are():
    first, last = tracks()
    assert camera_motion.motions(first, last, 100) == {"static"}
    last[0, 5] += (0, 9)  # the top edge alone moves: neither a motion nor stillness
    assert camera_motion.motions(first, last, 100) == set()
    last[0, 0] += 99  # corners do not count
    assert camera_motion.motions(first, first + (last - first) * 0, 100) == {"static"}


def test_the_motion_is_read_from_the_prompt():
    assert camera_motion.target("a lake, camera pans left") == "pan_left"
    assert camera_motion.target("a lake, camera zooms out") == "zoom_out"
    assert camera_motion.target("a lake") is None


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    return tmp_path


def spot(x: int, prompt: str | None):
    frames = np.full((3, 48, 64, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        frame[20:23, 30 + i * x : 33 + i * x] = 255
    return as_clip(frames)._replace(prompt=prompt)


def test_a_clip_is_scored_by_the_motion_that_its_prompt_names(torch_home):
    write_hub(torch_home)
    family = get_family("vbench_camera_motion")
    assert family.needs == ("prompt",)
    compute = family.load(Setting())
    for x, motion in ((5, "left"), (-5, "right")):
        assert compute(spot(x, f"a room, camera pans {motion}")) == {"camera_motion": 1.0}
        assert compute(spot(-x, f"a room, camera pans {motion}")) == {"camera_motion": 0.0}
    assert compute(spot(5, "a room")) == {}


def test_weights_of_the_tracker_are_those_of_the_checkpoint(torch_home):
    write_hub(torch_home, scale=-1)
    compute = camera_motion.load(Setting())
    assert compute(spot(5, "a room, camera pans right")) == {"camera_motion": 1.0}


def test_a_tracker_of_another_version_is_refused_with_the_remedy(torch_home):
    write_hub(torch_home)
    checkpoint = torch_home / "hub" / "checkpoints" / "cotracker2.pth"
    torch.save({"other": torch.zeros(1)}, checkpoint)
    with pytest.raises(UserError, match=r"cotracker2\.pth: .*update that clone"):
        camera_motion.load(Setting())


# weights and definitions


@pytest.mark.parametrize(
    "family, file",
    [
        ("vbench_dynamic_degree", "raft-things.pth"),
        ("vbench_static_filter", "raft-things.pth"),
        ("vbench_camera_motion", "facebookresearch_co-tracker_main"),
    ],
)
def test_missing_weights_are_named(torch_home, monkeypatch, family, file):
    monkeypatch.chdir(torch_home)
    with pytest.raises(MissingWeights, match=file):
        get_family(family).find(Setting())


def test_other_weights_are_refused_by_name(torch_home):
    file = torch_home / "vbench" / "raft_model" / "models" / "raft-things.pth"
    file.parent.mkdir(parents=True)
    torch.save({"module.fnet.conv1.weight": torch.zeros(2)}, file)
    with pytest.raises(UserError, match=r"raft-things\.pth: not the checkpoint of RAFT"):
        dynamic_degree.load(Setting())
    torch.save({"module.fnet.conv1.weight": print}, file)
    with pytest.raises(UserError, match=r"raft-things\.pth: not "):
        dynamic_degree.load(Setting())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An asset whose package fails to import, beside a file of it that is pinned."""
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    folder = tmp_path / "thing"
    contents = {
        "__init__.py": "raise SystemExit('the package itself was run')",
        "nets/__init__.py": "raise SystemExit('the package itself was run')",
        "nets/deep.py": "from thingpkg.parts import WIDTH\nfrom .wide import FACTOR\nN = WIDTH",
        "nets/wide.py": "FACTOR = 3",
        "parts/__init__.py": "from .size import WIDTH",
        "parts/size.py": "WIDTH = 7",
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    pinned = [name for name in contents if name.startswith("parts") or "__init__" not in name]
    files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in pinned}
    source = (Package("thing-pkg", "1", "", "thingpkg"),)
    monkeypatch.setitem(ASSETS, "thing", Asset("thing", files, 1, "MIT", packages=source))
    return folder


def test_a_definition_is_run_without_its_package(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "thingpkg", sys)
    module = load_definition("thing", "nets.deep")
    assert module.N == 7 and module.FACTOR == 3
    assert Path(module.__file__) == package / "nets" / "deep.py"
    assert [n for n in sys.modules if n.startswith("thingpkg")] == ["thingpkg"]
    assert sys.modules["thingpkg"] is sys


def test_a_changed_definition_is_not_run(package):
    (package / "nets" / "wide.py").write_text("raise SystemExit('this ran')", encoding="utf-8")
    with pytest.raises(UserError, match=r"nets/wide\.py: .*sha256"):
        load_definition("thing", "nets.deep")
    assert not [n for n in sys.modules if n.startswith("thingpkg")]
