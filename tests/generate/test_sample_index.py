"""Generation by several processes, for thousands of clips, and the frame rate it reports."""

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.sections import Recipe
from dfdbench.generate import batches
from dfdbench.generate import clips as module
from dfdbench.generate.clips import generate
from dfdbench.generate.missing import complete
from dfdbench.generate.sample_index import SampleIndex
from dfdbench.generate.speed import Speed, rates
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.utils.device import local_device, now
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.manifest import collect
from dfdbench.utils.run import Run
from dfdbench.utils.shards import WHOLE, Shard

PROMPTS = (
    Prompt("ball-desert", "a ball moving over the desert", {"shape": "ball", "scene": "desert"}),
    Prompt("bar-snow", "a bar moving over snowy hills", {"shape": "bar", "scene": "snow"}),
)
SUITE = Suite("two", 1, "two prompts", PROMPTS, (1, 2, 3), ())


@pytest.fixture
def run(tmp_path, tiny_family, tiny_checkpoint) -> Run:
    """A finished run whose student is the untouched copy of the tiny teacher."""
    recipe = Recipe(method="dfd", model=str(tiny_checkpoint)).as_dict()
    recipe["student"].update(steps=2)
    made = Run.create(
        tmp_path / "run", {"arm": "dfd", "method": "dfd", "training_seed": 0, "recipe": recipe}
    )
    tiny_family.save_student(tiny_family.new_module(), made.student)
    return made


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parts_make_each_clip_once_and_join_into_the_suites_order(run, tiny_family, monkeypatch):
    decoded = []
    decode = type(tiny_family).decode_latents

    def noted(self, latents):
        decoded.append(len(latents))
        return decode(self, latents)

    monkeypatch.setattr(type(tiny_family), "decode_latents", noted)
    for index in (2, 1):
        listing = generate(run, SUITE, batch_size=2, family=tiny_family, shard=Shard(index, 2))
    found = [(row["prompt_id"], row["seed"]) for row in rows(listing)]
    assert found == [(p.id, seed) for p in PROMPTS for seed in (1, 2, 3)]
    assert sum(decoded) == 6 and len(collect(run.path, "two").samples) == 6
    before = listing.read_bytes()
    generate(run, SUITE, family=tiny_family)
    assert sum(decoded) == 6 and listing.read_bytes() == before
    assert not list(listing.parent.glob("samples.shard-*")), "joined"


def test_a_clip_is_made_again_when_the_picture_that_it_continues_is_another(
    run, tiny_family, tmp_path, monkeypatch
):
    picture = tmp_path / "first.png"
    picture.write_bytes(b"one")
    prompt = Prompt("ball-desert", "a ball moving over the desert", image=picture)
    suite = Suite("pictured", 1, "", (prompt, PROMPTS[1]), (1,), ())
    listing = generate(run, suite, family=tiny_family)
    before = rows(listing)
    assert [row.get("image_sha256") for row in before] == [sha256_file(picture), None]
    picture.write_bytes(b"another")

    class Stop(Exception):
        pass

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(module, "make_clips", lambda *_: (_ for _ in ()).throw(Stop))
        generate(run, suite, family=tiny_family)
    assert [row["prompt_id"] for row in rows(listing)] == ["bar-snow"], "no stale clip is kept"
    generate(run, suite, family=tiny_family)
    assert rows(listing)[0]["image_sha256"] == sha256_file(picture) != before[0]["image_sha256"]


def test_a_part_of_scoring_waits_until_all_clips_are_there(run, tiny_family, monkeypatch):
    monkeypatch.setattr(module, "open_family", lambda *_: tiny_family)
    generate(run, SUITE, seeds=[1], family=tiny_family)
    part = Shard(2, 3)
    with pytest.raises(UserError, match=r"lacks 4 clips of suite two.*generate .* --shard 2/3"):
        complete([run.path], SUITE, None, 16, "cpu", part)
    complete([run.path], SUITE, None, 16, "cpu")
    complete([run.path], SUITE, None, 16, "cpu", part)
    assert len(collect(run.path, "two").samples) == 6


def append_forever(folder: Path, index: int) -> None:
    listing = SampleIndex(folder, Shard(index, 4), {"a": 1})
    with listing.kept([], {}):
        for i in range(20):
            listing.append([{"path": f"{index}-{i}", "settings": {"a": 1}}])


def test_processes_that_join_at_the_same_time_lose_no_clip(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_forever, args=(tmp_path, i)) for i in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    listing = SampleIndex(tmp_path, WHOLE, {"a": 1})
    with listing.kept([], {}):
        pass
    assert len(rows(tmp_path / "samples.jsonl")) == 80


def clip(folder: Path, name: str, settings: dict) -> dict:
    (folder / name).write_bytes(name.encode())
    return {"path": name, "sha256": sha256_file(folder / name), "settings": settings}


def test_what_a_killed_process_noted_is_found_and_its_broken_line_is_not(tmp_path):
    listing = SampleIndex(tmp_path, Shard(1, 3), {"a": 1})
    listing.append([clip(tmp_path, "x", {"a": 1}), clip(tmp_path, "old", {"a": 2})])
    with open(listing.journal, "a") as file:
        file.write('{"path": "y", "sha')
    assert not (tmp_path / "samples.jsonl").exists()
    again = SampleIndex(tmp_path, Shard(2, 3), {"a": 1})
    assert again.intact({"x": {}, "y": {}, "old": {}}) == {"x"}
    assert again.intact({"y": {}}) == set(), "of its own part only"


def test_a_damaged_clip_is_left_out_until_it_is_made_again(tmp_path):
    listing = SampleIndex(tmp_path, WHOLE, {"a": 1})
    listing.append([clip(tmp_path, "x", {"a": 1}), clip(tmp_path, "y", {"a": 1})])
    (tmp_path / "x").write_bytes(b"half")
    again = SampleIndex(tmp_path, WHOLE, {"a": 1})
    assert again.intact({}) == {"y"}
    with again.kept(["x", "y"], {"y": {"image": "y.png"}}):
        pass
    assert [(r["path"], r.get("image")) for r in rows(again.path)] == [("y", "y.png")]
    with again.kept(["x", "y"], {}):
        again.append([clip(tmp_path, "x", {"a": 1})])
    assert [r["path"] for r in rows(again.path)] == ["x", "y"]


def test_thousands_of_known_clips_load_no_network_and_take_seconds(run, tiny_family, monkeypatch):
    prompts = tuple(Prompt(f"p{i}", f"a ball {i}", {}) for i in range(625))
    suite = Suite("many", 1, "many", prompts, tuple(range(8)), ())
    monkeypatch.setattr(module, "write_video", lambda path, frames, fps: fake(path))
    monkeypatch.setattr(module, "make_clips", lambda *_: [np.zeros((1, 2, 2, 3), np.uint8)] * 5000)

    def fake(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode() * 100)

    monkeypatch.setattr(Speed, "record", dict)
    monkeypatch.setattr(type(tiny_family), "encode_prompt", lambda *_: torch.zeros(1, 1, 1))
    monkeypatch.setattr("dfdbench.generate.arms.Conditions.fill", lambda *_: None)
    generate(run, suite, batch_size=5000, family=tiny_family)

    def refused(*_):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(type(tiny_family), "load_student", refused)
    start = time.process_time()
    listing = generate(run, suite, family=tiny_family)
    assert time.process_time() - start < 10  # about 1 s on an idle core
    assert len(rows(listing)) == 5000


def test_frames_a_second_leave_out_the_first_batch_and_count_the_autoencoder(
    run, tiny_family, monkeypatch
):
    speed = Speed()
    speed.add(2, 34, 100.0, 100.0)
    speed.add(2, 34, 2.0, 1.0)
    speed.add(1, 17, 1.0, 0.5)
    found = speed.record()
    assert found["fps"] == 51 / 3 and found["fps_with_vae"] == 51 / 4.5
    assert (found["clips"], found["timed_clips"]) == (5, 3)
    ticks = iter(range(1000))
    monkeypatch.setattr(batches, "now", lambda _: float(next(ticks)))
    listing = generate(run, SUITE, batch_size=2, family=tiny_family)
    kept = rates(listing.parent, WHOLE)
    assert kept["fps"] == 2 * 17 and kept["fps_with_vae"] == 17  # a second each
    assert kept["device"]["type"] == "cpu" and kept["batch"] == 2
    assert now(torch.device("cpu")) <= now(torch.device("cpu"))


def test_prompts_are_encoded_before_the_first_batch_and_the_encoder_is_let_go(
    run, tiny_family, monkeypatch
):
    seen = []
    encode, load = type(tiny_family).encode_prompt, type(tiny_family).load_student

    def encoded(self, prompts):
        seen.append(prompts[0])
        return encode(self, prompts)

    def loaded(self, folder):
        seen.append("student" if "text_encoder" not in vars(self) else "student too early")
        return load(self, folder)

    monkeypatch.setattr(type(tiny_family), "encode_prompt", encoded)
    monkeypatch.setattr(type(tiny_family), "load_student", loaded)
    generate(run, SUITE, batch_size=1, family=tiny_family)
    assert seen == [*sorted(prompt.text for prompt in PROMPTS), "student"]


def test_compile_is_of_each_block_and_only_on_request(run, tiny_family, monkeypatch):
    ran = []

    def compiled(function, mode=None):
        def wrapped(own, block, *rest, **named):
            ran.append(type(block).__name__)
            return function(own, block, *rest, **named)

        return wrapped

    monkeypatch.setattr(torch, "compile", compiled)
    generate(run, SUITE, seeds=[1], family=tiny_family)
    assert ran == []
    generate(run, SUITE, seeds=[2], family=tiny_family, compiled=True)
    count = tiny_family.block_count(tiny_family.teacher)
    assert set(ran) == {"WanTransformerBlock"} and ran and len(ran) % count == 0


def test_each_local_process_gets_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert local_device("auto", {"LOCAL_RANK": "5"}) == "cuda:1"
    assert local_device("cuda", {"SLURM_LOCALID": "2"}) == "cuda:2"
    assert local_device("cpu", {"LOCAL_RANK": "5"}) == "cpu"
    assert local_device("auto", {}) == "auto"


def test_the_command_takes_a_part(run):
    part = ["generate", str(run.path), "--seeds", "1", "--shard", "1/16", "--json"]
    done = CliRunner().invoke(app, part)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(rows(Path(found["samples"]))) == 1 and found["speed"]["fps"] > 0
    wrong = CliRunner().invoke(app, ["generate", str(run.path), "--shard", "3/2"])
    assert wrong.exit_code == 2 and "--shard 3/2" in wrong.output
