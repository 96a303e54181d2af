"""Stage `caption`: what is asked, how answers are read, and servers that fail in every way."""

import base64
import json
import threading
import time

import cv2
import numpy as np
import pytest
from curation import Reply, by_pictures, bytes_of, caption_server, sentence, three, write_footage

from dfdbench.distill.data.curate import servers as http
from dfdbench.distill.data.curate.caption import Asking, caption
from dfdbench.distill.data.curate.pack import pack
from dfdbench.distill.data.curate.rows import Captions
from dfdbench.distill.data.curate.servers import KEY, Server, Servers
from dfdbench.distill.data.curate.shots import Filters, shots
from dfdbench.distill.data.curate.wording import LENGTHS, MAX_TOKENS, PROMPT, Unusable, parse
from dfdbench.distill.data.curate.work import read_rows
from dfdbench.distill.data.encode import encode
from dfdbench.distill.data.format import members, read_member
from dfdbench.utils.errors import UserError

ASKING = Asking(frames=3, side=32, tries=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_footage(tmp_path_factory.mktemp("footage") / "videos", count=4)


@pytest.fixture
def folder(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    filters = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)
    shots([videos], tmp_path / "cut", filters)
    return tmp_path / "cut"


def captioned(folder, *servers, retries=3, timeout=5.0, rate=0.0, asking=ASKING, at_once=2):
    urls = [server.url for server in servers]
    caption(folder, Servers(urls, None, rate, timeout, retries), asking, at_once)
    return read_rows(folder, "caption", Captions)


# Answers


def test_the_room_holds_the_longest_captions():
    assert LENGTHS["long"].most == 450
    assert sum(length.most for length in LENGTHS.values()) * 1.5 < MAX_TOKENS
    assert MAX_TOKENS > 512
    for level, length in LENGTHS.items():
        assert f"{level.upper()}: {length.least} to {length.most} words" in PROMPT


def as_json(text):
    return json.dumps(dict(line.split(": ", 1) for line in text.splitlines()), indent=2)


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("LONG:", "**LONG:**").replace("SHORT:", "**Short caption**:"),
        lambda text: f"<think>LONG: or not?\nMEDIUM: no.\n</think>\n\n{text}",
        lambda text: text.replace(": ", ': "').replace(".\n", '."\n') + '"',
        lambda text: f"Here they are.\n\n### {text}",
        lambda text: text.replace("LONG: a small", "LONG:\na\nsmall"),
        lambda text: f"```\n{text}\n```",
        lambda text: f"```json\n{as_json(text)}\n```",
        lambda text: f"<think>JSON?</think>{as_json(text).lower()}",
    ],
)
def test_captions_are_read_out_of_what_models_put_around_them(dress):
    levels = parse(dress(three()))
    assert levels == {"long": sentence(80), "medium": sentence(30), "short": sentence(8)}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "labels are none"),
        ("<think>LONG: a red", "labels are none"),
        (as_json(three())[:-9], "labels are none"),
        (as_json(three()).replace("MEDIUM", "MIDDLE"), "labels are LONG, SHORT"),
        ('{"LONG": ["a"], "MEDIUM": "b", "SHORT": "c"}', "labels are none"),
        (three().replace("MEDIUM", "MIDDLE"), "labels are LONG, SHORT"),
        ("\n".join(reversed(three().split("\n"))), "labels are SHORT, MEDIUM, LONG"),
        (three() + "\nSHORT: again so", "labels are LONG, MEDIUM, SHORT, SHORT"),
        (three(long=20), "long: 20 words"),
        (three(long=600), "long: 600 words"),
        (three(medium=5), "medium: 5 words"),
        (three(short=60), "short: 60 words"),
        (three(long=60, medium=70), "captions of 60, 70 and 8 words do not shrink"),
        (three().replace(sentence(80), sentence(80)[:-1]), "long: does not end"),
        (three().replace("a small", "I'm sorry, I cannot see a small", 1), "long: a refusal"),
        (three().replace("red", "r\x00d", 1), "long: holds the character"),
    ],
)
def test_an_answer_that_is_not_three_captions_is_unusable(answer, reason):
    with pytest.raises(Unusable, match=reason):
        parse(answer)


# Asking


def test_each_shot_is_asked_for_once_with_its_frames(folder):
    with caption_server() as server:
        rows = captioned(folder, server)
    assert len(rows) == len(server.asks) == 4
    assert all(row.left_out is None and row.short for row in rows)
    body = server.asks[0][1].body
    assert (body["model"], body["max_tokens"], body["seed"]) == ("toy-vl", MAX_TOKENS, 0)
    assert body["messages"][0]["content"][-1] == {"type": "text", "text": PROMPT}
    pictures = server.asks[0][1].pictures
    assert len(pictures) == 3
    kind, _, data = pictures[0].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (32, 32, 3)


def test_order_and_failures_on_the_way_do_not_change_the_bytes(folder, videos, tmp_path):
    def rough(ask):
        if ask.attempt == 0:
            return Reply(code=503, text="loading")
        return by_pictures(ask)

    with caption_server() as server:
        captioned(folder, server)
    smooth = bytes_of(folder)
    for path in folder.glob("caption.*"):
        path.unlink()
    with caption_server(rough) as one, caption_server(rough) as two:
        captioned(folder, one, two, at_once=4)
        assert one.asks and two.asks
    assert bytes_of(folder) == smooth


def test_an_answer_that_was_cut_is_asked_for_again_with_twice_the_room(folder):
    def cut(ask):
        return by_pictures(ask) if ask.body["max_tokens"] > MAX_TOKENS else Reply(three(), True)

    with caption_server(cut) as server:
        rows = captioned(folder, server)
    assert all(row.long for row in rows)
    assert {a.body["max_tokens"] for _, a in server.asks} == {MAX_TOKENS, 2 * MAX_TOKENS}


def test_the_room_is_doubled_once_for_a_model_that_never_ends(folder):
    """A model that thought to its end writes null; more room still would be the server's limit."""
    raw = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    with caption_server(lambda ask: Reply(raw=raw.encode())) as server:
        rows = captioned(folder, server)
    reason = f"no captions in 3 answers: cut off after {2 * MAX_TOKENS} tokens"
    assert {row.left_out for row in rows} == {reason}
    asked = [ask.body["max_tokens"] for _, ask in server.asks]
    assert sorted(asked) == [MAX_TOKENS] * 4 + [2 * MAX_TOKENS] * 8


def test_a_caption_of_450_words_is_kept_whole_up_to_the_latents(folder, tmp_path, tiny_checkpoint):
    """Each text is; the text encoder reads as many tokens as it can, and the call says so."""
    with caption_server(lambda ask: Reply(three(450, 120, 30))) as server:
        rows = captioned(folder, server)
    assert {len(row.long.split()) for row in rows} == {450}
    (folder / "picks.csv").write_text("id\n" + "".join(f"{row.id}\n" for row in rows))
    pack(folder)
    tar = folder / "packed" / "shard-00000.tar"
    with pytest.warns(UserWarning, match="cut there: .* prompts, the longest of 4.. tokens"):
        encode([tar], str(tiny_checkpoint), tmp_path / "set", device="cpu", caption_levels=True)
    tar = tmp_path / "set" / "shard-00000.tar"
    for files in members(tar).values():
        facts = json.loads(read_member(tar, files["json"]))
        assert facts["prompt"] == facts["captions"]["long"] == sentence(450)


def test_an_answer_of_the_wrong_form_is_asked_for_again_with_another_seed(folder):
    def late(ask):
        return by_pictures(ask) if ask.body["seed"] == 2 else Reply("A nice video!")

    with caption_server(late) as server:
        rows = captioned(folder, server)
    assert all(row.long for row in rows)
    assert len(server.asks) == 12


def test_a_shot_that_is_never_captioned_is_left_out_with_the_reason(folder):
    first: list[str] = []

    def one_never(ask):
        first.append(ask.shot)
        return Reply("LONG: no") if ask.shot == first[0] else by_pictures(ask)

    with caption_server(one_never) as server:
        rows = captioned(folder, server)
    faults = [row.left_out for row in rows if row.left_out]
    assert faults == ["no captions in 3 answers: labels are LONG, not LONG, MEDIUM, SHORT"]
    assert sum(row.long is not None for row in rows) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Reply(code=429, text="slow down"),
        Reply(code=500, text="oops"),
        Reply(raw=b"<html>gateway</html>"),
        Reply(raw=b'{"choices": []}'),
        Reply(raw=b'{"choices": [{"message": {"content": null}}]}'),
        Reply(raw=b'{"choices": [{"message": {"content": ["a"]}}]}'),
        Reply(three(), half=True),
        Reply(code=503, text="later", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Reply(three(), seconds=1.0),
    ],
)
def test_what_passes_is_tried_again(folder, fault):
    with caption_server(lambda ask: by_pictures(ask) if ask.attempt else fault) as server:
        rows = captioned(folder, server, timeout=0.5)
    assert all(row.long for row in rows)
    assert len(server.asks) == 8


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(401, f"set {KEY}"), (404, "check --server and --model"), (400, "--max-tokens")],
)
def test_what_does_not_pass_ends_the_work_at_once(folder, code, remedy):
    with (
        caption_server(lambda ask: Reply("no\nsuch", code=code)) as server,
        pytest.raises(UserError, match=rf"HTTP {code} \(no such\); .*{remedy}"),
    ):
        captioned(folder, server, at_once=1)
    assert len(server.asks) <= 2  # one may have begun beside it


def test_a_server_that_never_answers_is_told_and_what_was_made_is_kept(folder):
    made: list[str] = []

    def dies(ask):
        if ask.shot in made or len(made) < 2:
            made.append(ask.shot)
            return by_pictures(ask)
        return Reply(code=500, text="gone")

    with (
        caption_server(dies) as server,
        pytest.raises(UserError, match=r"HTTP 500 \(gone\); asked 4 times.*are kept"),
    ):
        captioned(folder, server, at_once=1)
    with caption_server() as server:
        rows = captioned(folder, server)
        assert len(server.asks) == 2
    assert all(row.long for row in rows)


def test_asks_that_run_beside_a_failing_one_are_kept(folder):
    gate = threading.Event()

    def one_fails(ask):
        with lock:
            number[0] += 1
            mine = number[0]
        if mine == 1:
            gate.wait(5)  # the others are answered first
            return Reply("no", code=400)
        if mine == 4:
            gate.set()
        return by_pictures(ask)

    lock, number = threading.Lock(), [0]
    with caption_server(one_fails) as server, pytest.raises(UserError, match="HTTP 400"):
        captioned(folder, server, at_once=4)
    with caption_server() as server:
        captioned(folder, server)
        assert len(server.asks) == 1


def test_no_server_at_an_address(folder):
    with caption_server() as server:
        pass
    with pytest.raises(UserError, match=r"cannot be reached .*asked 4 times"):
        captioned(folder, server)
    with pytest.raises(UserError, match="--server localhost:1: no address"):
        Servers(["localhost:1"], "m")


def test_a_second_server_takes_over_from_one_that_is_down(folder):
    with caption_server() as dead:
        pass
    with caption_server() as alive:
        servers = Servers([dead.url, alive.url], "toy-vl", retries=1, timeout=5)
        caption(folder, servers, ASKING, 2)
    assert all(row.long for row in read_rows(folder, "caption", Captions))


def test_a_rate_is_kept_for_each_server(folder):
    with caption_server() as one, caption_server() as two:
        captioned(folder, one, two, rate=4.0, at_once=8)
    for server in (one, two):
        times = [when for when, _ in server.asks]
        assert len(times) == 2
        assert times[1] - times[0] > 0.2


def test_turns_and_rests():
    server = Server("u", rate=2.0)
    assert [server.turn(10.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    server.rest(20.0)
    assert server.turn(12.0) == 8.0
    assert [Server("u").turn(5.0) for _ in range(2)] == [0.0, 0.0]


def test_a_server_is_left_alone_as_long_as_it_asks(folder):
    def busy(ask):
        if ask.attempt == 0:
            return Reply("busy", code=429, headers={"Retry-After": "0.4"})
        return by_pictures(ask)

    with caption_server(busy) as server:
        captioned(folder, server, at_once=1)
    by_shot: dict[str, list[float]] = {}
    for when, ask in server.asks:
        by_shot.setdefault(ask.shot, []).append(when)
    assert all(second - first >= 0.4 for first, second in by_shot.values())


def test_the_key_goes_with_every_ask_and_into_no_file(folder, monkeypatch):
    monkeypatch.setenv(KEY, "sesame-7")
    with caption_server() as server:
        captioned(folder, server)
    assert {ask.headers["Authorization"] for _, ask in server.asks} == {"Bearer sesame-7"}
    assert not any(b"sesame-7" in data for data in bytes_of(folder).values())


def test_several_models_need_a_name():
    with (
        caption_server(models=("a", "b")) as server,
        pytest.raises(UserError, match=r"has 2 models \(a, b\); name one with --model"),
    ):
        Servers([server.url])
    with caption_server(models=("a", "b")) as server:
        assert Servers([f"{server.url}/v1/"], "b").model == "b"


def test_another_model_does_not_go_on_with_anothers_captions(folder):
    with caption_server() as server:
        captioned(folder, server)
    with (
        caption_server(models=("other",)) as server,
        pytest.raises(UserError, match=r'another model \("toy-vl", now "other"\)'),
    ):
        captioned(folder, server)


def test_a_stop_does_not_wait_for_rests():
    servers = Servers(["http://localhost:9"], "m", rate=0.001)
    servers.servers[0].turn(time.monotonic())
    threading.Timer(0.1, servers.close).start()
    start = time.monotonic()
    with pytest.raises(UserError, match="stopped"):
        servers.ask("", [], 1, 0)
    assert time.monotonic() - start < 5


def test_rows_hold_captions_and_nothing_of_the_way_there(folder):
    with caption_server() as server:
        captioned(folder, server)
    rows = [json.loads(line) for line in (folder / "caption.jsonl").read_text().splitlines()]
    assert all([*row] == ["id", "long", "medium", "short"] for row in rows)
