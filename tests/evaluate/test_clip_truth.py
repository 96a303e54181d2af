"""Scores are of the frames that a player shows, whatever else is asked for; damage is told."""

from pathlib import Path

import numpy as np
import pytest
from clips import random_clip
from ffmpeg_clips import CODECS, SOUND, X264, ffmpeg, make, shown
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate import engine
from dfdbench.evaluate.metrics import colour, flicker
from dfdbench.evaluate.schema import damage_key
from dfdbench.evaluate.store import Store
from dfdbench.utils.files import sha256_file
from dfdbench.utils.video import POLICIES, Clip, write_video

PLAIN = {"COLUMNS": "200", "NO_COLOR": "1"}


def values(store: Path) -> dict[str, float]:
    with Store(store / "scores.sqlite") as opened:
        table = opened.table()
    return dict(zip(table["metric"], table["value"], strict=True))


@pytest.mark.fault("A6a")
@pytest.mark.parametrize("name", ["intra-refresh.mp4", "open-gop.mp4", "mpeg4.avi", "mpeg2.mkv"])
def test_other_metrics_beside_it_change_no_score(tmp_path: Path, name: str) -> None:
    make(
        name,
        CODECS.get(name, CODECS["mpeg2.ts"]),
        tmp_path,
        "-f lavfi -i testsrc2=s=128x96:r=16:d=5",
    )
    frames = shown(tmp_path / name)
    expected: dict[str, object] = {}
    for family in (colour.FAMILY, flicker.FAMILY):
        indices = POLICIES[family.policy](len(frames))
        clip = Clip(frames[indices], 16.0, "ffmpeg", indices)
        expected |= family.load(engine.Setting())(clip)
    for asked in (["colour"], ["flicker"], ["colour", "flicker"]):
        engine.score([tmp_path], "clips", tmp_path / "-".join(asked), families=asked)
        for metric, value in values(tmp_path / "-".join(asked)).items():
            assert value == pytest.approx(expected[metric], abs=0.004), metric
        with Store(tmp_path / "-".join(asked) / "scores.sqlite") as store:
            assert [shape.frames for shape in store.shapes().values()] == [80]
    both = values(tmp_path / "colour-flicker")
    assert both == values(tmp_path / "colour") | values(tmp_path / "flicker")


@pytest.mark.fault("A6b")
def test_a_cut_clip_is_scored_without_what_it_hides(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    source = f"-f lavfi -i testsrc2=s=128x96:r=16:d=7.5 {SOUND} -c:a aac {X264} -g 12"
    ffmpeg(f"{source} whole.mp4", cwd=tmp_path)
    ffmpeg("-ss 1.3 -i whole.mp4 -t 3 -c copy clips/cut.mp4", cwd=tmp_path)
    assert engine.score([tmp_path / "clips"], "clips", tmp_path, families=["colour"]).scored == 1
    with Store(tmp_path / "scores.sqlite") as store:
        (shape,) = store.shapes().values()
    assert (shape.frames, shape.fps) == (50, 16)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder of two clips, one with random bytes in it."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(2):
        write_video(folder / f"a fox-{i}.mp4", random_clip(i, height=64, width=64), fps=8)
    path = folder / "a fox-1.mp4"
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 1200
    content[start : start + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(content)
    return folder


@pytest.mark.fault("A5")
def test_a_damaged_clip_is_left_out_or_marked(damaged: Path, tmp_path: Path) -> None:
    def score(**options: bool) -> engine.Summary:
        return engine.score([damaged], "clips", tmp_path, families=["colour"], **options)

    first = score()
    assert (first.scored, first.exit_code) == (1, 1)
    ((name, reason),) = first.failures
    assert name == "clips/a fox-1.mp4" and "damaged (" in reason and "\n" not in reason
    kept = score(allow_damaged=True)
    assert (kept.scored, kept.reused, kept.exit_code) == (1, 1, 0)
    (note,) = [note for note in kept.notes if "damaged" in note]
    assert note.startswith("clips/a fox-1.mp4: scored although damaged (")
    with Store(tmp_path / "scores.sqlite") as store:
        assert store.meta()[damage_key(sha256_file(damaged / "a fox-1.mp4"))]
        assert len(store.samples("clips")) == 2
    again = score(allow_damaged=True)
    assert (again.scored, again.reused) == (0, 2) and note in again.notes
    strict = score()
    assert strict.failures == first.failures, "its scores are there, but were not asked for"
    with Store(tmp_path / "scores.sqlite") as store:
        assert len(store.samples("clips")) == 1


@pytest.mark.fault("A5")
def test_the_command_leaves_damaged_clips_out_unless_told(damaged: Path, tmp_path: Path) -> None:
    line = ["eval", str(damaged), "--metrics", "colour", "--out", str(tmp_path / "out")]
    result = CliRunner(env=PLAIN).invoke(app, line)
    assert result.exit_code == 1 and "--allow-damaged" in result.output
    assert CliRunner(env=PLAIN).invoke(app, [*line, "--allow-damaged"]).exit_code == 0
