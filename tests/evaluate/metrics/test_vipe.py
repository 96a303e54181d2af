"""ViPE's saved poses: matching of files and clips, validation, key, values."""

from pathlib import Path

import numpy as np
import pytest
from scene_3d import motion, pose

from dfdbench.evaluate.metrics import Setting
from dfdbench.evaluate.metrics.camera_geometry import path_figures
from dfdbench.evaluate.metrics.vipe import FAMILY, pose_file, read_poses
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.video import Clip

ELSEWHERE = pose((3, -7, 2), yaw=110, pitch=25, roll=-40)


def save(file: Path, poses: np.ndarray, inds: np.ndarray | None = None) -> Path:
    """A pose file in the layout that ViPE writes: float32 `data`, integer `inds`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    inds = np.arange(len(poses)) if inds is None else inds
    np.savez(file, data=poses.astype(np.float32), inds=inds)
    return file


def clip_at(path: str | Path | None, frames: int = 8) -> Clip:
    pixels = np.zeros((frames, 4, 4, 3), np.uint8)
    return Clip(pixels, 16.0, "none", np.arange(frames), Path(path) if path else None)


def values_of(folder: Path, path: str | Path | None) -> dict[str, float | np.ndarray]:
    return dict(FAMILY.load(Setting(poses=folder))(clip_at(path)))


def test_values_are_the_figures_of_the_saved_poses(tmp_path: Path) -> None:
    poses = ELSEWHERE @ motion("orbit")
    save(tmp_path / "pose" / "fox.npz", poses)
    values = values_of(tmp_path, "videos/fox.mp4")
    assert set(values) == {metric.name for metric in FAMILY.at("video")}
    np.testing.assert_allclose(values["vipe_poses"], poses, atol=1e-6)
    for name, value in path_figures(poses)._asdict().items():
        assert values[f"vipe_{name}"] == pytest.approx(value, rel=1e-4)


def test_poses_are_camera_to_world(tmp_path: Path) -> None:
    # The orbit turns while it moves: read the other way round, its end would lie elsewhere.
    ends = []
    for seed, name in enumerate(("orbit", "truck")):
        save(tmp_path / f"fox-{seed}.npz", motion(name))
        ends.append(motion(name)[-1, :3, 3])
    found = FAMILY.group([values_of(tmp_path, f"fox-{seed}.mp4") for seed in range(2)], {})
    distance = np.linalg.norm(ends[0] - ends[1])
    assert found["vipe_endpoint_distance"].value == pytest.approx(distance, rel=1e-5)
    assert found["vipe_endpoint_distance"].n == 2
    assert set(found) == {metric.name for metric in FAMILY.at("prompt")}


def test_a_clip_without_a_pose_file_has_no_values_and_counts_in_no_group(tmp_path: Path) -> None:
    save(tmp_path / "fox.npz", motion("dolly"))
    assert values_of(tmp_path, "videos/owl.mp4") == {}
    assert values_of(tmp_path, None) == {}
    assert FAMILY.group([values_of(tmp_path, "fox.mp4"), {}], {}) == {}


def test_the_longest_common_tail_of_the_paths_decides(tmp_path: Path) -> None:
    plain = save(tmp_path / "fox.npz", motion("dolly"))
    nested = save(tmp_path / "snow" / "pose" / "fox.npz", motion("dolly"))
    assert pose_file(tmp_path, Path("runs/a/snow/fox.mp4")) == nested
    assert pose_file(tmp_path, Path("runs/a/sand/fox.mp4")) == plain
    assert pose_file(tmp_path, Path("runs/a/sand/owl.mp4")) is None


def test_a_seed_needs_the_folder_of_its_prompt(tmp_path: Path) -> None:
    save(tmp_path / "3.npz", motion("dolly"))
    assert pose_file(tmp_path, Path("videos/ball-desert/3.mp4")) is None
    right = save(tmp_path / "ball-desert" / "3.npz", motion("truck"))
    assert pose_file(tmp_path, Path("videos/ball-desert/3.mp4")) == right
    assert pose_file(tmp_path, Path("videos/box-snow/3.mp4")) is None


def test_key_follows_names_and_bytes_of_all_files(tmp_path: Path) -> None:
    def key() -> str:
        return FAMILY.find(Setting(poses=tmp_path))

    file = save(tmp_path / "pose" / "fox.npz", motion("dolly"))
    first = key()
    assert len(first) == 64 and key() == first
    second = save(tmp_path / "pose" / "owl.npz", motion("dolly"))
    both = key()
    second.rename(second.with_name("hen.npz"))
    renamed = key()
    save(file, motion("truck"))
    assert len({first, both, renamed, key()}) == 4


def test_no_folder_is_missing_and_a_wrong_one_is_an_error(tmp_path: Path) -> None:
    for call in (FAMILY.find, FAMILY.load):
        with pytest.raises(MissingWeights, match="--poses FOLDER"):
            call(Setting())
        with pytest.raises(UserError, match="no such folder") as caught:
            call(Setting(poses=tmp_path / "none"))
        assert not isinstance(caught.value, MissingWeights)
    with pytest.raises(UserError, match=r"no \.npz file"):
        FAMILY.find(Setting(poses=tmp_path))


def broken(file: Path) -> None:
    file.write_bytes(b"no archive")


def pickled(file: Path) -> None:
    np.savez(file, data=np.array([{}], dtype=object), inds=np.arange(1))


def without_inds(file: Path) -> None:
    np.savez(file, data=motion("dolly"))


def of_another_shape(file: Path) -> None:
    save(file, motion("dolly")[:, :3])


def with_fewer_numbers(file: Path) -> None:
    save(file, motion("dolly"), np.arange(7))


def of_one_frame(file: Path) -> None:
    save(file, motion("dolly")[:1])


def transposed(file: Path) -> None:
    save(file, motion("dolly").swapaxes(1, 2))


def mirrored(file: Path) -> None:
    save(file, motion("dolly") * np.array([-1, 1, 1, 1]))


def with_nan(file: Path) -> None:
    poses = motion("dolly").copy()
    poses[3, 0, 3] = np.nan
    save(file, poses)


def of_a_longer_clip(file: Path) -> None:
    save(file, motion("dolly", frames=9))


def in_no_order(file: Path) -> None:
    save(file, motion("dolly"), np.arange(8)[::-1])


@pytest.mark.parametrize(
    ("write", "fault"),
    [
        (broken, "can be read"),
        (pickled, "can be read"),
        (without_inds, "can be read"),
        (of_another_shape, "shapes"),
        (with_fewer_numbers, "shapes"),
        (of_one_frame, "shapes"),
        (transposed, "rotation"),
        (mirrored, "rotation"),
        (with_nan, "rotation"),
        (of_a_longer_clip, "frame numbers"),
        (in_no_order, "frame numbers"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(write, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "fox.npz"
    write(file)
    with pytest.raises(UserError, match=fault) as caught:
        values_of(tmp_path, "fox.mp4")
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_fewer_poses_than_frames_are_taken_as_they_are(tmp_path: Path) -> None:
    poses = motion("truck")
    file = save(tmp_path / "fox.npz", poses[::2], np.arange(0, 8, 2))
    np.testing.assert_allclose(read_poses(file, frames=8), poses[::2], atol=1e-6)
