"""Figures of camera paths and their spread against closed forms."""

import numpy as np
import pytest
from scene_3d import motion, pose
from scipy.spatial.transform import Rotation

from dfdbench.evaluate.metrics.camera_geometry import (
    path_figures,
    relative_to_first,
    spread,
    trajectory,
)

# Any world coordinates: a rigid motion of the whole path.
ELSEWHERE = pose((3, -7, 2), yaw=110, pitch=25, roll=-40)


def line(end: tuple[float, float, float], frames: int = 5) -> np.ndarray:
    """Poses along a straight way from the origin to `end`, looking ahead."""
    return np.stack([pose(tuple(k * np.array(end))) for k in np.linspace(0, 1, frames)])


def test_straight_line() -> None:
    figures = path_figures(line((0, 3, 4)))
    assert figures == pytest.approx((5, 5, 1, 0, 0), abs=1e-9)


def test_full_circle_with_a_turning_camera() -> None:
    count, radius = 12, 2.0
    turns = np.arange(count + 1) * 360 / count
    poses = np.stack(
        [pose((radius * np.sin(a), 0, radius * np.cos(a)), yaw=np.degrees(a))
         for a in np.radians(turns)]
    )  # fmt: skip
    figures = path_figures(poses)
    assert figures.path_length == pytest.approx(2 * count * radius * np.sin(np.pi / count))
    assert figures.max_displacement == pytest.approx(2 * radius)
    assert figures.max_displacement_normalised == pytest.approx(1 / (count * np.sin(np.pi / count)))
    assert figures.total_rotation == pytest.approx(360)
    assert figures.max_rotation == pytest.approx(180)


def test_pure_rotation_has_no_path() -> None:
    poses = np.stack([pose((1, 2, 3), yaw=a) for a in (0, 20, 50, 10)])
    figures = path_figures(poses)
    assert figures.path_length == 0 and figures.max_displacement == 0
    assert np.isnan(figures.max_displacement_normalised)
    assert figures.total_rotation == pytest.approx(20 + 30 + 40)
    assert figures.max_rotation == pytest.approx(50)


def test_rotation_is_the_turn_between_frames_not_the_product_of_poses() -> None:
    first, turn = Rotation.from_euler("y", 90, degrees=True), Rotation.from_euler("x", 30, True)
    poses = np.stack([np.eye(4)] * 2)
    poses[0, :3, :3], poses[1, :3, :3] = first.as_matrix(), (turn * first).as_matrix()
    figures = path_figures(poses)
    assert figures.total_rotation == pytest.approx(30)
    assert figures.max_rotation == pytest.approx(30)


def test_figures_and_trajectory_do_not_depend_on_world_coordinates() -> None:
    poses = motion("orbit") @ motion("roll")
    assert path_figures(ELSEWHERE @ poses) == pytest.approx(path_figures(poses))
    np.testing.assert_allclose(trajectory(ELSEWHERE @ poses), trajectory(poses), atol=1e-12)
    np.testing.assert_allclose(relative_to_first(ELSEWHERE @ poses)[0], np.eye(4), atol=1e-12)


def test_trajectory_is_in_the_axes_of_the_first_camera() -> None:
    # Looking right (along world x), a move along world x goes ahead, along z of the camera.
    poses = np.stack([pose((5, 5, 5), yaw=90), pose((7, 5, 5), yaw=90)])
    np.testing.assert_allclose(trajectory(poses), [[0, 0, 0], [0, 0, 2]], atol=1e-12)


def test_played_backwards_a_way_ahead_goes_back() -> None:
    np.testing.assert_allclose(trajectory(line((0, 0, 2))[::-1])[-1], [0, 0, -2], atol=1e-12)


def test_normalised_trajectory_is_free_of_scale_and_ends_one_path_away() -> None:
    small, large = line((1, 0, 1)), line((10, 0, 10))
    np.testing.assert_allclose(trajectory(small, True), trajectory(large, True), atol=1e-12)
    assert np.linalg.norm(trajectory(small, True)[-1]) == pytest.approx(1)
    assert not trajectory(motion("pan"), normalised=True).any()


def test_equal_seeds_have_no_spread() -> None:
    assert spread([trajectory(motion("orbit"))] * 4) == pytest.approx((0, 0, 0), abs=1e-12)


def test_spread_of_two_straight_ways() -> None:
    ways = [trajectory(line((0, 0, 0))), trajectory(line((3, 4, 0)))]
    # Ends 5 apart: standard deviation 2.5; the distance grows evenly from 0 to 5.
    assert spread(ways) == pytest.approx((2.5, 5, 2.5))


def test_spread_of_three_ends_in_any_order() -> None:
    ways = [trajectory(line(end)) for end in ((0, 0, 0), (6, 0, 0), (0, 0, 8))]
    expected = np.hypot(np.std([0, 6, 0]), np.std([0, 0, 8])), (6 + 8 + 10) / 3, (6 + 8 + 10) / 6
    assert spread(ways) == pytest.approx(expected)
    assert spread(ways[::-1]) == pytest.approx(expected)


def test_clips_of_different_length_are_compared_at_their_own_ends_only() -> None:
    ways = [trajectory(line((0, 0, 2), frames=5)), trajectory(line((0, 0, -4), frames=9))]
    found = spread(ways)
    assert found.endpoint_distance == pytest.approx(6)
    assert found.endpoint_spread == pytest.approx(3)
    assert np.isnan(found.trajectory_distance)


def test_one_clip_has_no_spread() -> None:
    with pytest.raises(ValueError, match="need 2"):
        spread([trajectory(motion("dolly"))])
