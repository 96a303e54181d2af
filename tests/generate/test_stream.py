"""Clips of causal students block after block: the same clips, any length, other prompts."""

import gc
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from self_forcing_files import finished_run, loud_checkpoint
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.generate import stream
from dfdbench.generate.clips import generate, reference_run
from dfdbench.generate.generation import generate as generate_clips
from dfdbench.generate.schedule import Schedule, Switch, read_schedule
from dfdbench.generate.speed import StreamSpeed
from dfdbench.generate.stream import Rollout, course_of, generate_stream
from dfdbench.generate.suites.base import Length, Prompt, Suite
from dfdbench.models.causal import Layout
from dfdbench.models.flow import student_times
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import LongNoise, sample_noise, stream_blocks
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

BALL, BOX = "a ball moving over the desert", "a box moving over snowy hills"
SUITE = Suite("two", 1, "two prompts", (Prompt("ball", BALL), Prompt("box", BOX)), (1,), ())
ONE = replace(SUITE, name="one", prompts=SUITE.prompts[:1])
FRAMES = 17  # of the toy's clips: 5 latent frames at 8 frames a second


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny Wan whose output is far from zero."""
    return loud_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def family(checkpoint):
    return load_family(checkpoint)


@pytest.fixture
def student_run(tmp_path, family, checkpoint):
    """A finished run of a causal student, or with block_frames=0 of a bidirectional one."""

    def make(name: str = "run", sampler: str = "sde", **layout: int) -> Run:
        return finished_run(tmp_path / name, family, checkpoint, sampler, **layout)

    return make


@pytest.fixture
def streamed(monkeypatch, family):
    """Makes a stream and gives the frames of each clip that came to its writer, by seed's file."""
    made: dict[str, list[np.ndarray]] = {}

    @contextmanager
    def collect(path: Path, fps: float):
        whole, real = made.setdefault(path.name, []), video_writer(path, fps)
        with real as write:
            yield lambda frames: (whole.append(frames), write(frames))

    video_writer = stream.video_writer
    monkeypatch.setattr(stream, "video_writer", collect)

    def make(run: Run, suite: Suite = ONE, **rollout) -> np.ndarray:
        made.clear()
        generate_stream(run, suite, Rollout(**rollout), family=family)
        return np.concatenate(made["1.mp4"])

    return make


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- The same clips


@pytest.mark.parametrize("sampler", ["ode", "sde"])
@pytest.mark.parametrize("layout", [{"block_frames": 2}, {"block_frames": 1, "window_frames": 3}])
def test_a_stream_of_the_trained_length_is_the_clip_to_the_byte(
    student_run, family, sampler, layout
):
    run = student_run("run", sampler, **layout)
    whole = generate(run, SUITE, batch_size=1, family=family)
    parts = generate_stream(run, SUITE, Rollout(frames=FRAMES), family=family)
    assert parts.parent.name == "two-17f" + ("-w3" if "window_frames" in layout else "")
    for name in ("ball/1.mp4", "box/1.mp4"):
        assert (whole.parent / name).read_bytes() == (parts.parent / name).read_bytes()
    kept = ("path", "prompt_id", "prompt", "seed", "sha256", "frames", "fps", "student_sha256")
    for a, b in zip(rows(whole), rows(parts), strict=True):
        assert {key: a[key] for key in kept} == {key: b[key] for key in kept}


def test_streams_side_by_side_are_those_one_after_the_other(student_run, family, monkeypatch):
    run, made = student_run(block_frames=1), {}

    @contextmanager
    def collect(path: Path, fps: float):  # frames before H.264, which makes rounding visible
        own = made[path.parent.name, path.name] = []
        with real(path, fps) as write:
            yield lambda frames: (own.append(frames.astype(int)), write(frames))

    def clips(batch: int | None) -> list[np.ndarray]:
        made.clear()
        rollout = Rollout(frames=33, window=3)
        samples = generate_stream(run, SUITE, rollout, [1, 2, 3], batch, family=family)
        speeds.append(json.loads((samples.parent / "speed.json").read_text()))
        shutil.rmtree(samples.parent)
        return [np.concatenate(made[key]) for key in sorted(made)]

    real, speeds = stream.video_writer, []
    monkeypatch.setattr(stream, "video_writer", collect)
    alone, together = clips(None), clips(4)
    assert [speed["batch"] for speed in speeds] == [1, 4]
    assert [speed["timed_clips"] for speed in speeds] == [5, 2]
    assert len(alone) == 6 and all(len(clip) == 33 for clip in alone)
    for own, other in zip(together, alone, strict=True):
        assert np.abs(own - other).max() <= 1 and (own != other).mean() < 1e-3
    apart = [np.abs(a - b).mean() for a, b in pairwise(alone)]
    assert min(apart) > 1, "clips of a batch have each their own noise and prompt"


def test_clips_of_a_suite_are_streamed_side_by_side_where_they_are_of_one_length(
    student_run, family, monkeypatch
):
    run, lengths = student_run(block_frames=1), []
    kept = stream.stream_blocks

    def counted(family, module, conditioning, noise, frames, *more):
        lengths.append((frames, len(noise(0, range(1)))))
        return kept(family, module, conditioning, noise, frames, *more)

    monkeypatch.setattr(stream, "stream_blocks", counted)
    short, long = (
        replace(prompt, length=Length(times=times))
        for prompt, times in zip(SUITE.prompts, (1, 2), strict=True)
    )
    suite = replace(SUITE, name="mixed", prompts=(short, long))
    generate_stream(run, suite, seeds=[1, 2, 3], family=family)
    assert [count for _, count in lengths] == [3, 3] and lengths[0][0] < lengths[1][0]


def test_a_longer_clip_begins_as_a_shorter_one_and_goes_on(student_run, streamed):
    run = student_run(block_frames=1)
    short = streamed(run, frames=FRAMES, window=3)
    long = streamed(run, frames=1 + 4 * 19, window=3)
    assert short.shape[0] == 17 and long.shape[0] == 77
    assert np.array_equal(long[:17], short)
    later = [long[i : i + 16] for i in (17, 33, 49)]
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in pairwise(later))


def test_noise_of_a_long_clip_is_that_of_clips_one_after_the_other():
    shape = (3, 5, 2, 2)
    noise = LongNoise("ball", 1, shape)
    for step in (0, 1):
        whole = torch.cat([noise(step, range(a, b)) for a, b in ((0, 4), (4, 6), (6, 13))], 2)
        again = LongNoise("ball", 1, shape)(step, range(13))
        assert torch.equal(whole, again) and whole.shape == (1, 3, 13, 2, 2)
        assert torch.equal(whole[0, :, :5], sample_noise("ball", 1, shape, step))
        parts = [whole[0, :, :5], whole[0, :, 5:10]]
        assert (parts[0] - parts[1]).abs().mean() > 0.5
    assert not torch.equal(noise(0, range(5, 10)), noise(1, range(5, 10)))
    assert not torch.equal(noise(0, range(5, 10)), LongNoise("box", 1, shape)(0, range(5, 10)))


def test_clips_that_are_there_are_not_made_again_and_each_length_has_its_folder(
    student_run, family
):
    run = student_run(block_frames=1)
    trained = generate(run, SUITE, family=family)
    first = generate_stream(run, SUITE, Rollout(25, 3), family=family)
    other = generate_stream(run, SUITE, Rollout(29, 3), family=family)
    assert {p.parent.name for p in (trained, first, other)} == {"two", "two-25f-w3", "two-29f-w3"}
    files = [path for p in (trained, first, other) for path in p.parent.rglob("*.mp4")]
    times = {path: path.stat().st_mtime_ns for path in files}
    (first.parent / "box/1.mp4").write_bytes(b"half a file")
    for rollout in (Rollout(25, 3), Rollout(29, 3)):
        generate_stream(run, SUITE, rollout, family=family)
    generate(run, SUITE, family=family)
    changed = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert len(times) == 6 and changed == [first.parent / "box/1.mp4"]
    assert rows(first)[0]["settings"]["frames"] == 25 and rows(first)[0]["frames"] == 25
    sunk = generate_stream(run, SUITE, Rollout(25, 3, sinks=1), family=family)
    assert sunk.parent.name == "two-25f-w3-s1" and rows(sunk)[0]["settings"]["sink_frames"] == 1
    assert rows(first)[0]["settings"]["sink_frames"] == 0


def test_a_window_and_sinks_that_are_asked_for_are_those_that_are_used(student_run, streamed):
    run = student_run(block_frames=1)
    seen = {
        (window, sinks): streamed(run, frames=41, window=window, sinks=sinks)
        for window, sinks in ((2, 0), (4, 0), (4, 1))
    }
    assert not np.array_equal(seen[2, 0], seen[4, 0])
    assert np.array_equal(seen[4, 0][:13], seen[4, 1][:13]), "four frames are all that there is"
    assert not np.array_equal(seen[4, 0], seen[4, 1])


# --- Memory


def held_bytes() -> int:
    """Of all tensors that Python can reach."""
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and not thing.is_meta:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_ten_times_the_length_holds_no_more_memory():
    family = load_family("toy-t2v")
    shape = family.latent_shape(17, 64, 64)
    text, decode = family.encode_prompt([BALL]), family.stream_decoder()

    def held(length: int, window: int) -> list[int]:
        """Bytes at the end of each length of a clip, made by a student of the shipped toy."""
        module = family.new_causal_module(Layout(1, window)).eval().requires_grad_(False)
        noise, times = LongNoise("ball", 1, shape), student_times(2, 5.0)
        total, found = shape[1] * length, []
        with torch.no_grad():
            blocks = stream_blocks(family, module, lambda _: text, noise, total, times, "sde")
            for number, latents in enumerate(blocks, start=1):
                if window:
                    assert torch.isfinite(decode(latents)).all()
                if number % shape[1] == 0:
                    found.append(held_bytes())
        return found

    once, *longer = held(10, window=3)
    assert len(longer) == 9 and set(longer) == {once}
    once, *longer = held(3, window=0)
    assert longer[1] > longer[0] > once + 10**5, "what is measured grows without a window"


# --- Prompts that change


def schedule(*switches: tuple[float, str]) -> Schedule:
    return Schedule(Path("prompts.txt"), tuple(Switch(*switch) for switch in switches))


def test_a_prompt_takes_over_at_the_next_block_and_finds_the_cache(student_run, streamed):
    run = student_run(block_frames=2, window_frames=4)
    ball = streamed(run, schedule=schedule((0, BALL)), frames=33)  # blocks 0-2, 3-4, 5-6, 7-8
    box = streamed(run, schedule=schedule((0, BOX)), frames=33)
    # Latent frame 5 begins with frame 17 of 8 a second, and frame 9 is in the block before it.
    for seconds in (10 / 8, 17 / 8):
        both = streamed(run, schedule=schedule((0, BALL), (seconds, BOX)), frames=33)
        same = [np.array_equal(a, b) for a, b in zip(both, ball, strict=True)]
        assert same[:17] == [True] * 17 and not any(same[17:])
        assert not any(np.array_equal(a, b) for a, b in zip(both[17:], box[17:], strict=True))
    changed = streamed(run, schedule=schedule((0, BALL), (18 / 8, BOX)), frames=33)
    assert np.array_equal(changed[:25], ball[:25]) and not np.array_equal(changed[25:], ball[25:])


def test_the_clip_of_a_schedule_names_its_prompts(student_run, family, tmp_path):
    file = tmp_path / "story.txt"
    file.write_text(f"# two acts\n\n0 | {BALL}\n1.1\t{BOX}\n")
    made = generate_stream(
        student_run(), read_schedule(file).suite(), Rollout(schedule=read_schedule(file)), [7],
        family=family,
    )  # fmt: skip
    (row,) = rows(made)
    assert made.parent.name == "story-17f" and row["path"] == "story/7.mp4"
    assert row["prompt"] == f"{BALL} | {BOX}"
    assert row["settings"]["schedule"] == [[0.0, BALL], [1.1, BOX]]


def test_a_schedule_reads_the_same_from_lines_and_json(tmp_path):
    (tmp_path / "a.txt").write_text(f"0|{BALL}\r\n 2.5 | a | b \n7\t {BOX}\n")
    entries = [(0, BALL), (2.5, "a | b"), (7, BOX)]
    content = [{"seconds": second, "prompt": prompt} for second, prompt in entries]
    (tmp_path / "a.json").write_text(json.dumps(content))
    for name in ("a.txt", "a.json"):
        assert list(read_schedule(tmp_path / name).switches) == entries


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "0 | a\n5 | b\n3 | c\n", r"a\.txt:3: 3 seconds after 5; bring the times"),
        ("a.txt", "0 | a\n0 | b\n", r"a\.txt:2: 0 seconds after 0; bring the times in order"),
        ("a.txt", "\n2 | a\n", r"a\.txt:2: begins at 2 seconds, not at 0; write"),
        ("a.txt", "0 | a\na cat\n", r"a\.txt:2: no time and prompt; write SECONDS"),
        ("a.txt", "-1 | a\n", r"a\.txt:1: no time and prompt; write SECONDS"),
        ("a.txt", "nan | a\n", r"a\.txt:1: no time and prompt; write SECONDS"),
        ("a.txt", "0 | \n", r"a\.txt:1: no time and prompt; write SECONDS"),
        ("a.txt", "0 | a\x07b\n", r"a\.txt:1: .*holds the character"),
        ("a.txt", "# nothing\n", r"a\.txt: names no prompt; write SECONDS"),
        ("a.json", "[]", r"a\.json: names no prompt; write SECONDS"),
        ("a.json", '{"0": "a"}', r"a\.json: .*; write SECONDS"),
        ("a.json", '[{"seconds": true, "prompt": "a"}]', r"a\.json: .*seconds.*; write SECONDS"),
        ("a.json", '[{"seconds": "x", "prompt": "a"}]', r"a\.json: .*seconds.*; write SECONDS"),
        ("a.json", '[{"seconds": 0, "prompt": " "}]', r"a\.json: entry 1: an empty prompt"),
        (
            "a.json",
            '[{"seconds": 0, "prompt": "a"}, {"seconds": 0, "prompt": "b"}]',
            r"a\.json: entry 2: 0 seconds after 0",
        ),
    ],
)
def test_a_schedule_that_cannot_be_used_is_one_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_schedule(tmp_path / name)
    assert "\n" not in str(caught.value)


# --- Speed


def test_latency_and_steady_rates_leave_out_what_is_not_steady():
    speed = StreamSpeed()
    speed.add(1, 9.0, [(9, 8.0, 1.0), (8, 8.0, 8.0)])  # the clip that compiles
    speed.add(1, 0.5, [(9, 0.4, 0.3), (8, 1.0, 0.5), (8, 1.0, 0.5)])
    speed.add(2, 0.7, [(9, 0.6, 0.3), (8, 2.0, 1.0)])
    found = speed.record()
    assert (found["clips"], found["timed_clips"], found["timed_frames"]) == (4, 3, 24)
    assert found["latency_seconds"] == pytest.approx(0.6)
    assert (found["fps"], found["fps_with_vae"]) == (24 / 4, 24 / 6)
    alone = StreamSpeed()
    alone.add(1, 0.5, [(17, 2.0, 0.5)])
    assert alone.record()["fps"] == 17 / 2 and alone.record()["latency_seconds"] == 0.5


def test_a_stream_leaves_its_speed_beside_its_clips(student_run, family, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(stream, "now", lambda device: float(next(clock)))
    run = student_run(block_frames=2)  # blocks of 3 and 2 latent frames
    made = generate_stream(run, ONE, Rollout(frames=FRAMES), family=family)
    found = json.loads((made.parent / "speed.json").read_text())
    # A tick each: start, sampled, then two for each latent frame: the first frame is the third.
    assert found["latency_seconds"] == 3
    assert found["timed_frames"] == 8, "the second block alone is steady"
    assert (found["sampling_seconds"], found["decoding_seconds"]) == (1, 2)
    assert found["peak"]["resident_bytes"] > 0 and found["frames"] == FRAMES
    assert found["clips"] == 1 and found["device"]["type"] == "cpu"


# --- What cannot be


@pytest.mark.parametrize(
    ("layout", "rollout", "words"),
    [
        ({"block_frames": 0}, {"frames": 25}, "--frames 25: .* no causal student.*block_frames"),
        ({"block_frames": 0}, {"window": 3, "sinks": 1}, "--window 3 --sinks 1: .* no causal"),
        ({"block_frames": 0}, {"schedule": schedule((0, "a"))}, "--prompt-schedule: .* no causal"),
        ({"block_frames": 3}, {"frames": 5}, "--frames 5: .*2 latent frames does not fill a block"),
        ({"block_frames": 1}, {"frames": 18}, "18 frames .* 1 \\+ a multiple of 4"),
        ({"block_frames": 1}, {"frames": 21}, "--frames 21: .*trained on 5 .*give --window, 5"),
        ({"block_frames": 3}, {"frames": 41, "window": 4}, "set window_frames to 5 or more"),
        ({"block_frames": 3}, {"frames": 41, "window": 5, "sinks": 3}, "to 6 or more"),
        ({"block_frames": 2}, {"sinks": 1}, "--sinks 1: .*set window_frames"),
        (
            {"block_frames": 2},
            {"schedule": schedule((0, "a"), (9, "b"))},
            r"prompts\.txt: the prompt at 9 seconds gets no block, .*raise --frames",
        ),
        (
            {"block_frames": 2},
            {"schedule": schedule((0, "a"), (0.1, "b"), (0.2, "c"))},
            r"the prompt at 0\.1 seconds gets no block",
        ),
    ],
)
def test_a_rollout_that_cannot_be_is_one_line(student_run, family, layout, rollout, words):
    with pytest.raises(UserError, match=words) as caught:
        course_of(student_run(**layout), family, ONE, Rollout(**rollout))
    assert "\n" not in str(caught.value)


def test_the_window_that_the_refusal_names_is_one_that_works(student_run, family):
    course = course_of(student_run(block_frames=1), family, ONE, Rollout(21, window=5))
    assert course.latents == {21: 6} and course.layout == Layout(1, 5)


def test_neither_teacher_nor_real_clips_are_streamed(tmp_path, checkpoint, family):
    for arm in ("teacher", "real"):
        run = reference_run(arm, tmp_path / arm, str(checkpoint))
        with pytest.raises(UserError, match="has no causal student"):
            generate_stream(run, ONE, Rollout(frames=25), family=family)


def test_a_clip_beyond_the_positions_is_refused_before_it_begins(student_run, family):
    run = student_run(block_frames=1)
    with pytest.raises(
        UserError, match=r"1025 latent frames.*reach 1024; lower --frames"
    ) as caught:
        generate_stream(run, ONE, Rollout(frames=4097, window=3), family=family)
    assert "\n" not in str(caught.value) and not list(run.videos.rglob("*.mp4"))


def test_a_student_of_other_blocks_than_its_recipe_says_is_refused(student_run, family):
    run = student_run(block_frames=2)
    file = run.student / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_frames": 1}))
    for make in (
        lambda: generate(run, ONE, family=family),
        lambda: generate_stream(run, ONE, Rollout(frames=17), family=family),
    ):
        with pytest.raises(UserError, match=r"block_frames=1.*recipe .*block_frames=2.*restore"):
            make()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"block_frames": 0},
            r"run/student: .*block_frames must be at least 1.*restore",
        ),
        (
            {"window_frames": 1},
            r"run/student: .*window_frames = 1 is too small.*restore",
        ),
        ({"sink_frames": 1}, r"run/student: sink_frames mean something only within a window"),
    ],
)
def test_a_student_of_blocks_that_none_can_have_is_named(student_run, family, change, words):
    run = student_run(block_frames=2)
    file = run.student / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=words) as caught:
        generate_stream(run, ONE, Rollout(frames=17), family=family)
    assert "\n" not in str(caught.value)


def test_options_that_a_stream_does_not_take_are_named(student_run, tmp_path):
    run, file = student_run(), tmp_path / "story.txt"
    file.write_text("0 | a\n")
    for options, words in (
        ({"schedule": file, "prompts": file}, "leave out --prompts"),
        ({"schedule": file, "images": tmp_path}, "leave out --images"),
        ({"schedule": file, "suite": "ar-30s"}, "leave --suite ar-30s out"),
        ({"schedule": tmp_path / "no.txt"}, r"no\.txt"),
    ):
        with pytest.raises(UserError, match=words):
            generate_clips(run, device="cpu", **options)
    (tmp_path / "toy-t2v.txt").write_text("0 | a\n")
    with pytest.raises(UserError, match="a suite is called toy-t2v; rename the file"):
        generate_clips(run, schedule=tmp_path / "toy-t2v.txt")


def test_weights_that_give_nan_leave_no_clip(student_run, family):
    run = student_run(block_frames=1)
    broken = family.vae.decoder.conv_out.weight
    kept = broken.clone()
    try:
        with torch.no_grad():
            broken.fill_(float("nan"))
        with pytest.raises(UserError, match=r"ball/1\.mp4 holds NaN"):
            generate_stream(run, ONE, Rollout(frames=17), family=family)
    finally:
        with torch.no_grad():
            broken.copy_(kept)
    assert not list(run.videos.rglob("*.mp4"))


def test_the_command_streams_and_says_how_fast(student_run, tmp_path):
    run, file = student_run(block_frames=1), tmp_path / "story.txt"
    file.write_text(f"0 | {BALL}\n2 | {BOX}\n")
    arguments = ["generate", str(run.path), "--prompt-schedule", str(file), "--seeds", "1"]
    done = CliRunner().invoke(app, [*arguments, "--frames", "25", "--window", "3"])
    assert done.exit_code == 0, done.output
    assert "frames/s" in done.output and "first frame after" in done.output
    bad = CliRunner().invoke(app, [*arguments, "--frames", "26"])
    errors = [line for line in bad.output.splitlines() if line.startswith("error: ")]
    assert bad.exit_code == 2 and len(errors) == 1 and "multiple of 4" in errors[0]
