"""Each stage killed with SIGKILL at random moments and given again: the bytes of an unbroken run.

The chain is run as commands, in processes of their own, with an embedder that needs no weights.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from curation import bytes_of, caption_server, write_footage

STAGES = ("shots", "caption", "features", "cluster", "grid", "pick", "pack", "describe", "encode")
KILLS = 3
LOOSE = "--cuts none --min-seconds 0 --max-seconds 1.2 --min-side 0 --min-motion 0 --max-text 1"
WORKER = """
import sys
from curation import mean_colours
from dfdbench.cli import curate, main
from dfdbench.distill.data.curate.features import Embedder
curate.embedder = lambda name, device: Embedder("colours", "", mean_colours)
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server():
    with caption_server() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the videos; curations lie beside them, for their paths are relative."""
    folder = tmp_path_factory.mktemp("kills")
    write_footage(folder / "videos", count=5)
    return folder


def words_of(stage, place, folder, server, model):
    tars = folder / "cut" / "packed"
    words = {
        "shots": f"curate shots {place / 'videos'} --out {folder / 'cut'} --near 0 {LOOSE}",
        "caption": f"curate caption {folder / 'cut'} --server {server.url} --side 32 --at-once 1",
        "features": f"curate features {folder / 'cut'} --policy middle8",
        "cluster": f"curate cluster {folder / 'cut'} --clusters 3 --backend sklearn",
        "grid": f"curate grid {folder / 'cut'} --count 3",
        "pick": f"curate pick {folder / 'cut'} --auto all",
        "pack": f"curate pack {folder / 'cut'} --shard-size 2",
        "describe": f"describe {place / 'videos'} --against {tars} --out {folder / 'described'}",
        "encode": f"encode {tars} --model {model} --frames 5 --out {folder / 'latents'} "
        "--shard-size 2 --device cpu --resume",
    }[stage].split()
    if stage in ("describe", "encode"):
        at = words.index(str(tars))
        words[at : at + 1] = map(str, sorted(tars.glob("*.tar")))
        if stage == "describe":  # one --against a tar
            words = [w for t in words for w in (["--against", t] if t.endswith(".tar") else [t])]
            words.remove("--against")
    return words


def begin(words, place):
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([*paths, *sys.path]),
        "DFDBENCH_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, "data", *words], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(words, place):
    process = begin(words, place)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said[-2000:]


@pytest.fixture(scope="module")
def whole(place, server, tiny_checkpoint):
    """Stage -> its words, its seconds, and all files after it; the folder before it is kept."""
    pytest.importorskip("sklearn")
    folder, done = place / "run", {}
    for stage in STAGES:
        if folder.exists():
            shutil.copytree(folder, place / f"before-{stage}")
        words = words_of(stage, place, folder, server, tiny_checkpoint)
        start = time.monotonic()
        run(words, place)
        done[stage] = words, time.monotonic() - start, bytes_of(folder)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_random_moments_ends_with_the_bytes_of_one_that_was_not(
    stage, whole, place
):
    words, seconds, wanted = whole[stage]
    folder, dice = place / "run", random.Random(stage)
    shutil.rmtree(folder)
    if (place / f"before-{stage}").exists():
        shutil.copytree(place / f"before-{stage}", folder)
    for _ in range(KILLS):
        process = begin(words, place)
        time.sleep(dice.uniform(0.4, 1.0) * seconds)  # the first part is imports
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
        assert "Traceback" not in said
    run(words, place)
    assert bytes_of(folder) == wanted
