"""A failed allocation anywhere: one line, exit code 2, and what to lower for the command given."""

from pathlib import Path

import pytest
import torch
from clips import random_clip
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.clip_scores import Models
from dfdbench.generate.clips import reference_run
from dfdbench.models.wan import Wan
from dfdbench.utils.video import write_video

REFUSED = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.60 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    MemoryError("Unable to allocate 9.00 GiB for an array"),
)
BLAME = ("write the clip", "download it again", "copy", "damaged", "please report")
TRAINING = ("--set", "data.count=4", "--set", "optim.batch=2", "--set", "init.recipe=''")


def fail(error: Exception):
    """A function of any arguments that raises `error`."""

    def failing(*args, **kwargs):
        raise error

    return failing


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clips(folder) -> str:
    """Two clips with captions."""
    for i in range(2):
        write_video(folder / "clips" / f"{i}.mp4", random_clip(i, height=64, width=64), 8)
        (folder / "clips" / f"{i}.txt").write_text("a ball")
    return "clips"


def told(words: list[str], *lower: str) -> str:
    """The one line of a command that fails; it names all of `lower`."""
    result = CliRunner().invoke(app, words)
    lines = result.stderr.splitlines()
    assert result.exit_code == 2 and result.stdout == "", result.output
    line = lines[-1]
    assert sum(text.startswith("error: ") for text in lines) == 1, result.output
    assert "out of memory (" in line and not [word for word in BLAME if word in line], line
    assert all(word in line for word in lower), line
    return line


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize("error", REFUSED, ids=lambda e: type(e).__name__)
def test_scoring_ends_and_names_workers_rather_than_blame_the_clip(monkeypatch, clips, error):
    monkeypatch.setattr(Models, "get", lambda self, family: fail(error))
    told(["eval", clips, "--metrics", "flicker", "--out", "scores"], "fewer --workers")


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize("error", REFUSED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("stage", ["encode_video", "encode_prompt"])
def test_encoding_ends_and_leaves_no_clip_out(monkeypatch, clips, tiny_checkpoint, error, stage):
    monkeypatch.setattr(Wan, stage, fail(error))
    told(["data", "encode", clips, "--model", str(tiny_checkpoint), "--out", "set"],
         "fewer --workers", "--height")  # fmt: skip
    assert not list(Path("set").glob("shard-*"))


@pytest.mark.fault("C.environment")
def test_generating_names_the_batch(monkeypatch, folder, tiny_checkpoint):
    monkeypatch.setattr(Wan, "encode_video", fail(REFUSED[0]))  # the real arm's, at its first batch
    told(["generate", "--arm", "real", "--model", str(tiny_checkpoint)], "smaller --batch")
    run = reference_run("real", folder / "run", str(tiny_checkpoint))
    told(["eval", str(run.path), "--seeds", "1"], "smaller --batch")


@pytest.mark.fault("C.environment")
def test_training_names_what_takes_fewer_clips_at_once(monkeypatch, tiny_checkpoint):
    monkeypatch.setattr("dfdbench.distill.loop.Trainer.train", fail(REFUSED[0]))
    words = ["distill", "--method", "dmd2", "--model", str(tiny_checkpoint), *TRAINING]
    told(words, "optim.accumulate", "checkpointing", "teacher.guidance_passes", "FSDP")


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_study_names_processes(monkeypatch, folder, tiny_checkpoint, processes):
    (folder / "s.toml").write_text(
        "set = ['data.count=4', 'optim.batch=2']\n[arms.dmd2]\nrecipe = 'toy/dmd2'\n"
    )
    words = ["study", "s.toml", "--model", str(tiny_checkpoint), "--processes", processes]
    if processes == "1":
        monkeypatch.setattr("dfdbench.distill.loop.distill", fail(REFUSED[1]))
        monkeypatch.setattr("dfdbench.generate.clips.generate", fail(REFUSED[2]))
    else:  # spawned processes know nothing of what is patched here
        monkeypatch.setattr("dfdbench.cli.jobs._run_in_worker", out_of_memory)
    told(words, "fewer --processes" if processes == "1" else "a worker's")


def out_of_memory(job):
    """In a process of a study."""
    from dfdbench.utils.errors import memory_remedy

    with memory_remedy("a worker's"):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize(
    ("words", "within", "lower"),
    [
        (["bench", "train", "--method", "dmd2", "--out", "o.json"],
         "dfdbench.distill.bench.train.times", ("--batch", "teacher.guidance_passes")),
        (["bench", "sample", "--out", "o.json"],
         "dfdbench.distill.bench.sample.times", ("--batch", "--no-vae")),
        (["bench", "stream", "--out", "o.json"],
         "dfdbench.distill.bench.stream.stream_blocks", ("--window", "--no-vae")),
        (["plan", "--method", "dmd2"], "dfdbench.distill.plan.setup_for", ("optim.batch",)),
        (["toy", "train"], "dfdbench.toy.train.finish_vae", ("fewer --processes",)),
        (["toy", "train", "--json", "--t2v", "toy-t2v"],
         "dfdbench.toy.train_i2v.encode_own_clips", ("fewer --processes",)),
        (["check", "update", "--quick", "--bands", "b.json"],
         "dfdbench.cli.check.golden_losses", ("close other programs",)),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_other_command_names_its_own(monkeypatch, tiny_checkpoint, words, within, lower):
    monkeypatch.setattr(within, fail(REFUSED[0]))
    if words[0] in ("bench", "plan"):
        words = [*words, "--model", str(tiny_checkpoint)]
    told(words, *lower)
