"""BRISQUE against the package whose weights it uses, and its fits against known distributions."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from clips import as_clip, moving_texture, needs, released_videos
from scipy import stats

from dfdbench.evaluate.metrics import Setting
from dfdbench.evaluate.metrics.brisque import fit, load, load_regression, mscn, numbers_of
from dfdbench.utils.assets import locate
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video


@pytest.fixture(scope="module")
def compute():
    needs("brisque")
    return load(Setting())


@pytest.fixture(scope="module")
def package_score():
    """The package's own score of a frame."""
    package = pytest.importorskip("brisque", exc_type=ImportError)
    reference = package.BRISQUE(url=False)
    scale = reference.scale_features
    # It makes arrays of one number of some features, which numpy 2 does not take for numbers.
    reference.scale_features = lambda features: scale([np.asarray(f).item() for f in features])
    return reference.score


def noisy(frames: np.ndarray, levels: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def score_of(compute, frame: np.ndarray) -> float:
    return compute(as_clip(frame[None]))["brisque"]


@pytest.mark.parametrize(("height", "width"), [(64, 80), (75, 101)])
def test_equals_the_package_on_textures(compute, package_score, height, width):
    for frame in noisy(moving_texture(2, 5, height, width), 2):
        assert score_of(compute, frame) == pytest.approx(package_score(frame), abs=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert score_of(compute, noise) == pytest.approx(package_score(noise), abs=1e-6)


def test_equals_the_package_on_a_released_clip(compute, package_score):
    """Without flat areas, where the package goes by the signs of rounding errors, exactly."""
    frame = read_video(released_videos() / "t2v" / "anim_fox_dmd.mp4").frames[40]
    dithered = noisy(frame, 1)
    assert score_of(compute, dithered) == pytest.approx(package_score(dithered), abs=1e-6)
    assert score_of(compute, frame) == pytest.approx(package_score(frame), abs=0.05)


def test_noise_and_blocks_are_worse_than_the_frame(compute):
    frame = read_video(released_videos() / "t2v" / "anim_fox_dfd.mp4").frames[40]
    blocks = frame[::8, ::8].repeat(8, 0).repeat(8, 1)
    clean = score_of(compute, frame)
    assert clean + 10 < score_of(compute, noisy(frame, 40))
    assert clean + 10 < score_of(compute, blocks)


def test_clip_is_the_mean_over_frames(compute):
    frames = noisy(moving_texture(3, 5, 64, 80), 3)
    alone = [score_of(compute, frame) for frame in frames]
    assert compute(as_clip(frames))["brisque"] == pytest.approx(np.mean(alone), abs=1e-9)
    assert np.ptp(alone) > 0.1


def test_frames_without_texture_have_no_score(compute):
    flat = np.stack([np.full((64, 80, 3), level, np.uint8) for level in (0, 128, 255)])
    assert compute(as_clip(flat)) == {}
    frame = noisy(moving_texture(1, 0, 64, 80), 3)
    with_flat = compute(as_clip(np.concatenate([flat, frame])))
    assert with_flat == compute(as_clip(frame))


def test_fit_finds_gauss_and_laplace():
    rng = np.random.default_rng(0)
    for draw, shape in ((rng.normal, 2.0), (rng.laplace, 1.0)):
        values = draw(0, 0.5, 200_000)
        found, mean, left, right = fit(values)
        assert found == pytest.approx(shape, rel=0.02)
        assert mean == pytest.approx(0, abs=0.01)
        assert (left, right) == pytest.approx((values.var(), values.var()), rel=0.02)


def test_fit_tells_left_from_right():
    """Two half-normals of spread 1 and 2, each side with its share of the density's mass."""
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [-stats.halfnorm(0, 1).rvs(100_000, rng), stats.halfnorm(0, 2).rvs(200_000, rng)]
    )
    shape, mean, left, right = fit(values)
    assert shape == pytest.approx(2, rel=0.02)
    assert (left, right) == pytest.approx((1, 4), rel=0.02)
    assert mean == pytest.approx(
        np.sqrt(2 / np.pi), rel=0.02
    )  # (σ_r − σ_l) Γ(2/α) / √(Γ(1/α) Γ(3/α))


def test_transposed_frame_swaps_horizontal_with_vertical_numbers():
    frame = noisy(moving_texture(1, 0, 64, 80)[0], 3)
    a, b = numbers_of(frame), numbers_of(frame.transpose(1, 0, 2))
    np.testing.assert_allclose(a[2:6], b[6:10], rtol=1e-6)
    np.testing.assert_allclose(a[[0, 1, *range(10, 20)]], b[[0, 1, *range(10, 20)]], rtol=1e-6)
    assert np.abs(a[2:6] - a[6:10]).max() > 1e-3


def test_mscn_does_not_depend_on_brightness_inside_the_frame():
    grey = np.random.default_rng(0).uniform(0.2, 0.5, (32, 40))
    inside = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(mscn(grey)[inside], mscn(grey + 0.3)[inside], atol=1e-9)


def test_threads_change_nothing(compute):
    clips = [as_clip(noisy(moving_texture(3, 5, 64 + 8 * i, 80), 3)) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(compute, clips)) == [compute(clip) for clip in clips]


def copied_weights(folder: Path) -> Path:
    needs("brisque")
    shutil.copytree(locate("brisque") / "models", folder / "models")
    return folder


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    file = copied_weights(tmp_path) / "models" / "normalize.pickle"
    file.write_bytes(pickle.dumps({"min_": Malicious(), "max_": []}))
    with pytest.raises(UserError, match=r"normalize\.pickle: .*assets get brisque"):
        load_regression(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "old, new", [("nr_class 2", "nr_class"), (" 36:", " 37:"), ("rbf", "linear")]
)
def test_another_model_is_refused(tmp_path, old, new):
    file = copied_weights(tmp_path) / "models" / "svm.txt"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"svm\.txt: .*assets get brisque"):
        load_regression(tmp_path)


def test_ranges_of_another_number_are_refused(tmp_path):
    file = copied_weights(tmp_path) / "models" / "normalize.pickle"
    file.write_bytes(pickle.dumps({"min_": [0.0] * 35, "max_": [1.0] * 35}))
    with pytest.raises(UserError, match=r"normalize\.pickle"):
        load_regression(tmp_path)
