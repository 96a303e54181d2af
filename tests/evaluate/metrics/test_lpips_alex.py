"""LPIPS vectors and their pairwise mean against the package lpips and plain loops."""

import pickle
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import as_clip, forget_hashes, moving_texture, needs

from dfdbench.evaluate.metrics import Setting, lpips_alex
from dfdbench.evaluate.metrics.lpips_alex import (
    FEATURES,
    group,
    load_backbone,
    load_embed,
    load_heads,
)
from dfdbench.utils.assets import locate
from dfdbench.utils.errors import UserError
from dfdbench.utils.pickles import read_plain_pickle

CONVOLUTIONS = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")


def packaged_heads() -> dict[str, torch.Tensor]:
    file = locate("lpips_heads") / "weights/v0.1/alex.pth"
    return torch.load(file, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def embed():
    needs("lpips_alexnet", "lpips_heads")
    return load_embed("cpu")


@pytest.fixture(scope="module")
def compute():
    needs("lpips_alexnet", "lpips_heads")
    return lpips_alex.load(Setting())


@pytest.fixture(scope="module")
def reference():
    """The package's own LPIPS with our backbone and its own heads."""
    needs("lpips_alexnet", "lpips_heads")
    lpips = pytest.importorskip("lpips", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks torchvision in a way that has gone out of use
        model = lpips.LPIPS(pretrained=False, pnet_rand=True, net="alex", verbose=False)
    assert not model.load_state_dict(packaged_heads(), strict=False).unexpected_keys
    for name, (kernel, bias) in zip(CONVOLUTIONS, load_backbone(), strict=True):
        layer = model.net.get_submodule(name)
        layer.load_state_dict({"weight": kernel, "bias": bias})

    @torch.inference_mode()
    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        x, y = (torch.from_numpy(f).permute(0, 3, 1, 2) / 127.5 - 1 for f in (a, b))
        return model(x, y).flatten().numpy()

    return distance


def frames_of(seed: int, count: int = 4) -> np.ndarray:
    """Half noise, half texture, at the size that needs no resizing."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    noise[count // 2 :] = moving_texture(count - count // 2, 7, 64, 64, seed)
    return noise


def pairwise_by_loops(clips: list[np.ndarray]) -> float:
    """Mean over pairs and frames of the squared distance of vectors."""
    clips = [clip.astype(np.float64) for clip in clips]
    return float(np.mean([np.square(a - b).sum(1) for a, b in combinations(clips, 2)]))


def test_squared_distance_of_vectors_is_the_reference(embed, reference):
    a, b = frames_of(0), frames_of(1)
    expected = reference(a, b)
    u, v = embed(a), embed(b)
    assert u.dtype == np.float32 and expected.min() > 0.1
    np.testing.assert_allclose(np.square(u - v).sum(1), expected, atol=1e-5)


def test_stored_halves_are_close_enough(compute, reference):
    clips = [frames_of(seed) for seed in range(3)]
    stored = [compute(as_clip(clip)) for clip in clips]
    assert all(s[FEATURES].dtype == np.float16 for s in stored)
    expected = np.mean([reference(a, b) for a, b in combinations(clips, 2)])
    value, n = group(stored, {})["lpips_alex_diversity"]
    assert n == 3 and value == pytest.approx(expected, abs=1e-4)


def test_kernels_keep_their_rows_and_columns():
    """One output of the first layer, summed by the axes that flax's HWIO layout names."""
    needs("lpips_alexnet")
    file = locate("lpips_alexnet") / "weights/alexnet.ckpt"
    raw = read_plain_pickle(file)["AlexNet_0"]["Conv_0"]
    patch_yxi = np.random.default_rng(0).normal(size=(11, 11, 3)).astype(np.float32)
    by_axes = np.einsum("yxi,yxio->o", patch_yxi, raw["kernel"]) + raw["bias"]
    kernel, bias = load_backbone()[0]
    x = torch.from_numpy(patch_yxi).permute(2, 0, 1)[None]
    found = torch.nn.functional.conv2d(x, kernel, bias).flatten()
    np.testing.assert_allclose(found, by_axes, rtol=1e-4, atol=1e-4)


def test_pairwise_mean_is_the_double_loop():
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(5, 40)).astype(np.float16) for _ in range(4)]
    value, n = group([{FEATURES: clip} for clip in clips], {})["lpips_alex_diversity"]
    assert value == pytest.approx(pairwise_by_loops(clips), rel=1e-12) and n == 4
    backwards = group([{FEATURES: clip} for clip in clips[::-1]], {})
    assert backwards["lpips_alex_diversity"].value == pytest.approx(value, rel=1e-12)


def test_frames_are_matched_by_index():
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(5, 40)).astype(np.float16)
    same, turned = ([{FEATURES: clip}, {FEATURES: other}] for other in (clip, clip[::-1]))
    assert group(same, {})["lpips_alex_diversity"] == (0, 2)
    assert group(turned, {})["lpips_alex_diversity"].value > 1


def test_identical_clips_are_zero_apart(compute):
    stored = compute(as_clip(frames_of(0)))
    assert group([stored] * 3, {})["lpips_alex_diversity"] == (0, 3)


def test_no_value_for_one_clip_or_other_numbers_of_frames():
    clip = np.ones((4, 6), np.float16)
    absent = {FEATURES: None}
    assert group([{FEATURES: clip}, absent], {}) == {}
    assert group([{FEATURES: clip}, {FEATURES: clip[:3]}], {}) == {}
    assert set(group([{FEATURES: clip}, absent, {FEATURES: clip}], {})) == {"lpips_alex_diversity"}


def test_changed_pictures_are_further_apart_than_dimmed_ones(compute):
    clip = moving_texture(3, 4, 128, 192)
    others = {"dimmed": (clip * 0.9).astype(np.uint8), "other": moving_texture(3, 4, 128, 192, 1)}
    found = {}
    for name, other in others.items():
        stored = [compute(as_clip(frames)) for frames in (clip, other)]
        found[name] = group(stored, {})["lpips_alex_diversity"].value
    assert 0 < 5 * found["dimmed"] < found["other"]


def test_frames_are_seen_one_by_one_whatever_their_company(embed):
    frames = frames_of(2)
    np.testing.assert_allclose(embed(frames)[[3, 1]], embed(frames[[3, 1]]), atol=1e-5)


def test_large_frames_are_squeezed_by_means_over_areas():
    small = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    large = small.repeat(3, 1).repeat(5, 2)
    np.testing.assert_array_equal(lpips_alex.squeezed(large), small)


def assets_with(folder: Path, name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / name / file
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("DFDBENCH_ASSETS", str(folder))
    forget_hashes(monkeypatch, name)
    return path


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, monkeypatch):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    file = assets_with(tmp_path, "lpips_alexnet", "weights/alexnet.ckpt", monkeypatch)
    file.write_bytes(pickle.dumps({"AlexNet_0": Malicious()}))
    with pytest.raises(UserError, match=r"alexnet\.ckpt: .*assets get lpips_alexnet"):
        load_backbone()
    assert not (tmp_path / "ran").exists()


def test_backbone_of_another_shape_is_refused(tmp_path, monkeypatch):
    file = assets_with(tmp_path, "lpips_alexnet", "weights/alexnet.ckpt", monkeypatch)
    layer = {"kernel": np.zeros((3, 3, 3, 64), np.float32), "bias": np.zeros(64, np.float32)}
    file.write_bytes(pickle.dumps({"AlexNet_0": {f"Conv_{i}": layer for i in range(5)}}))
    with pytest.raises(UserError, match=r"alexnet\.ckpt: .*assets get lpips_alexnet") as caught:
        load_backbone()
    assert "Conv_0 has another shape" in str(caught.value.__cause__)


@pytest.mark.parametrize("fault", ["negative", "other shape", "pickle"])
def test_other_heads_are_refused(tmp_path, monkeypatch, fault):
    needs("lpips_heads")
    heads = packaged_heads()
    file = assets_with(tmp_path, "lpips_heads", "weights/v0.1/alex.pth", monkeypatch)
    if fault == "negative":
        heads["lin0.model.1.weight"] -= 1
    elif fault == "other shape":
        heads["lin0.model.1.weight"] = torch.zeros(1, 3, 1, 1)
    torch.save({"lin0": print} if fault == "pickle" else heads, file)
    with pytest.raises(UserError, match=r"alex\.pth: .*assets get lpips_heads"):
        load_heads()
