"""`dfdbench data curate`: the chain by its commands, up to latents; bad calls in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import needs
from curation import by_pictures, bytes_of, caption_server, mean_colours, write_footage
from typer.testing import CliRunner

from dfdbench.cli import curate
from dfdbench.cli.app import app
from dfdbench.distill.data.curate.features import Embedder
from dfdbench.distill.data.format import read_index
from dfdbench.toy.world import render, sample_attributes
from dfdbench.utils.video import to_uint8

LOOSE = ("--cuts", "none", "--min-side", "0", "--min-motion", "0", "--max-text", "1", "--near", "0")
STAGES = ("shots", "caption", "features", "cluster", "grid", "pick", "pack")


def call(*words, code=0):
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def colours(monkeypatch):
    monkeypatch.setattr(
        curate, "embedder", lambda name, device: Embedder("colours", "", mean_colours)
    )


def test_the_chain_ends_in_latents(tmp_path, colours, tiny_checkpoint, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    videos, folder = write_footage(tmp_path / "videos", count=5), tmp_path / "cut"
    said = call("curate", "shots", videos, "--out", folder, *LOOSE).stdout
    assert "5 shots kept of 5" in said
    assert f"next: dfdbench data curate caption {folder}" in said
    with caption_server() as server:
        said = call("curate", "caption", folder, "--server", server.url, "--side", 32).stdout
    assert "5 shots captioned of 5" in said
    assert "5 shots with features of 5" in call("curate", "features", folder).stdout
    assert "5 shots in 2 clusters" in call("curate", "cluster", folder, "--clusters", 2).stdout
    assert "index.html" in call("curate", "grid", folder, "--count", 2).stdout
    assert "shots in" in call("curate", "pick", folder, "--auto", "nearest:2").stdout
    value = json.loads(call("curate", "pack", folder, "--shard-size", 2, "--json").stdout)
    assert value["finished"]
    assert value["left_out"] == []
    tars = sorted((folder / "packed").glob("*.tar"))
    out = tmp_path / "latents"
    call("encode", *tars, "--model", tiny_checkpoint, "--out", out)
    assert read_index(out).samples == value["samples"] >= 3


def test_left_out_shots_are_counted_by_their_reason(tmp_path):
    videos = write_footage(tmp_path / "videos", count=3)
    (videos / "broken.mp4").write_bytes(b"")
    words = ("curate", "shots", videos, "--out", tmp_path / "cut", *LOOSE, "--min-side", 100)
    said = call(*words).stdout
    assert "left out: 3 smaller" in said
    assert "left out: 1 videos that cannot be read" in said
    assert "0 shots kept of 3" in said
    value = json.loads(call(*words, "--json").stdout)
    assert (value["kept"], value["left_out"], value["unreadable"]) == (0, {"smaller": 3}, 1)


def test_a_part_says_that_others_are_to_come(tmp_path):
    videos = write_footage(tmp_path / "videos", count=3)
    words = ("curate", "shots", videos, "--out", tmp_path / "cut", *LOOSE, "--shard")
    assert "2 videos done; other parts are to come" in call(*words, "1/2").stdout
    assert "3 shots kept of 3" in call(*words, "2/2").stdout


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help_with_an_example(stage):
    said = " ".join(call("curate", stage, "--help").stdout.split())
    assert f"Example: dfdbench data curate {stage}" in said


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("shots", "gone", "--out", "cut"), "gone: no videos"),
        (("shots", "gone", "--out", "cut", "--min-seconds", "inf"), "no finite number"),
        (("shots", "v", "--out", "cut", "--cuts", "adaptiv"), "did you mean adaptive"),
        (("caption", "cut", "--server", "nowhere", "--model", "m"), "--server nowhere: no address"),
        (("caption", "cut"), "Missing option '--server'"),
        (("features", "cut", "--backend", "clip"), "known: clip_vit_l14, "),
        (("features", "cut", "--policy", "even"), "unknown frame policy 'even'"),
        (("cluster", "cut"), "run dfdbench data curate features first"),
        (("cluster", "cut", "--backend", "kmeans"), "did you mean sklearn"),
        (("grid", "cut"), "run dfdbench data curate shots first"),
        (("pick", "cut", "--auto", "best:3"), "unknown rule 'best'"),
        (("pick", "cut", "--auto", "even:x"), "x is no whole number"),
        (("pick", "cut", "--no-browser"), "run dfdbench data curate grid first"),
        (("pack", "cut", "--shard", "3/2"), "--shard 3/2"),
    ],
)
def test_a_bad_call_is_one_line(words, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("curate", *words, code=2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert fault in lines[0]


def test_embedders_are_those_of_the_metrics():
    needs("effnet_lite2")
    network = curate.embedder("effnet_lite2", "cpu")
    frames = to_uint8(render(sample_attributes(1, 0))[0] * 2 - 1)[:2]
    assert network.embed(frames).shape == (2, 1280)
    assert len(network.weights) == 64


@pytest.mark.slow
def test_a_killed_captioning_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL in the middle of real asks, several times over."""
    videos, folder = write_footage(tmp_path / "videos", count=8), tmp_path / "cut"
    call("curate", "shots", videos, "--out", folder, *LOOSE)

    def slowly(ask):
        time.sleep(0.4)
        return by_pictures(ask)

    with caption_server(slowly) as server:
        words = [sys.executable, "-m", "dfdbench", "data", "curate", "caption", str(folder)]
        words += ["--server", server.url, "--at-once", "1", "--side", "32"]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        for _ in range(2):
            before = len(server.asks)
            process = subprocess.Popen(words, env=env)
            while len(server.asks) < before + 3 and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (folder / "caption.json").exists()
        subprocess.run(words, env=env, check=True)
        asked = len(server.asks)
        killed = bytes_of(folder)
        for path in Path(folder).glob("caption.*"):
            path.unlink()
        subprocess.run(words, env=env, check=True)
    assert bytes_of(folder) == killed
    assert asked < 8 + 2 * 4  # what was done was not asked for again
