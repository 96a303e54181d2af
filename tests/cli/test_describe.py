"""`dfdbench data describe`: its files, its page, bad calls in one line."""

import json
import shutil

import pytest
from curation import mean_colours, write_footage
from latent_sets import random_samples, write_set
from typer.testing import CliRunner

from dfdbench.cli import curate
from dfdbench.cli.app import app
from dfdbench.distill.data.curate.features import Embedder

EVIL = "<script>alert(1)<script>"


def call(*words, code=0):
    result = CliRunner().invoke(app, ["data", "describe", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(
        curate, "embedder", lambda name, device: Embedder("colours", "", mean_colours)
    )


def test_a_set_against_another(tmp_path):
    """Five clips beside four: three are the same, one is of another seed."""
    own = write_footage(tmp_path / EVIL, count=5)
    other = write_footage(tmp_path / "other", count=1, seed=9)
    (other / "clip-0.mp4").rename(other / "new.mp4")
    for n in range(3):
        shutil.copy(own / f"clip-{n}.mp4", other)
    (own / f"{EVIL}.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    said = call(own, "--against", other, "--out", out).stdout
    value = json.loads((out / "describe.json").read_text())
    assert [s["clips"] for s in value["sets"]] == [5, 4]
    assert [s["left_out"] for s in value["sets"]] == [1, 0]
    assert value["against"]["shared"]["count"] == 3
    assert value["against"]["shared"]["n"] == 5
    coverage = value["against"]["coverage"]
    assert coverage["covered"] >= 3 / 5  # what is in both is covered
    assert (coverage["n"], coverage["other_n"]) == (5, 4)
    assert f"diversity: {value['sets'][0]['diversity']['value']:.4f}" in said
    assert "left out: " in said
    assert (out / "describe.txt").read_text() in said
    page = (out / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("<svg") == 1
    assert f"{coverage['covered']:.1%}" in page
    assert "not a readable video" in page


def test_a_second_call_does_nothing_again_and_writes_the_same(tmp_path, monkeypatch):
    videos, out = write_footage(tmp_path / "videos", count=2), tmp_path / "out"
    value = json.loads(call(videos, "--out", out, "--json").stdout)
    assert value == json.loads((out / "describe.json").read_text())
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def fails(frames):
        raise AssertionError

    monkeypatch.setattr(curate, "embedder", lambda *_: Embedder("colours", "", fails))
    call(videos, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_part_writes_no_page_yet(tmp_path):
    videos, out = write_footage(tmp_path / "videos", count=3), tmp_path / "out"
    assert "other parts are to come" in call(videos, "--out", out, "--shard", "1/2").stdout
    assert not (out / "index.html").exists()
    assert "3 clips" in call(videos, "--out", out, "--shard", "2/2").stdout
    assert (out / "index.html").is_file()


def test_without_a_network_there_is_no_diversity(tmp_path):
    videos = write_footage(tmp_path / "videos", count=4)
    words = (videos, "--against", videos, "--out", tmp_path / "out", "--backend", "none")
    said = call(*words).stdout
    assert "diversity: none, 0 clips have features" in said
    assert "coverage: none, 0 and 0 clips have features" in said
    assert "4 of 4 clips are like one of" in said


def test_latents_against_latents_and_against_videos(tmp_path):
    latents, embeds = random_samples(6)
    one = write_set(tmp_path / "one", latents, embeds, 3)
    two = write_set(tmp_path / "two", latents[:5], embeds[:5], 3)
    value = json.loads(call(one, "--against", two, "--out", tmp_path / "a", "--json").stdout)
    assert value["features"] == "latents"
    assert value["against"]["shared"] == {
        "count": 5, "n": 6, "first": [[f"shard-{n // 3:05d}.tar:{n:05d}"] * 2 for n in range(5)],
    }  # fmt: skip
    assert value["against"]["coverage"]["covered"] >= 5 / 6
    assert "latent_change" in (tmp_path / "a" / "index.html").read_text()
    videos = write_footage(tmp_path / "videos", count=2)
    said = call(one, "--against", videos, "--out", tmp_path / "b").stdout
    assert "coverage: none, one set is latents, the other videos" in said


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("gone", "--out", "out"), "gone: no videos"),
        (("v", "--out", "out", "--shard", "3/2"), "--shard 3/2"),
        (("v",), "Missing option '--out'"),
    ],
)
def test_a_bad_call_is_one_line(words, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = call(*words, code=2).stderr.strip().splitlines()
    assert len(lines) == 1
    assert fault in lines[0]
