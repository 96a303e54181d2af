"""Footage and a caption server for the tests of `data curate`."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfdbench.toy import world
from dfdbench.utils.video import to_uint8, write_video

TEXT = "a small red ball drifts slowly over hills of snow while the camera pans left"
WORDS = TEXT.split()


def toy_frames(count: int, seed: int = 0) -> np.ndarray:
    """Rendered clips of the toy world, uint8 (N T H W 3), no two neighbours of one scene."""
    drawn = world.sample_attributes(count, seed)
    scenes = torch.arange(count) % len(world.SCENES)
    videos = world.render(replace(drawn, scene=scenes)) * 2 - 1
    return np.stack([to_uint8(video) for video in videos])


def write_footage(folder: Path, count: int = 6, films: int = 0, seed: int = 0) -> Path:
    """`count` toy clips in `folder`, and films of three clips one after another."""
    clips = toy_frames(count + 3 * films, seed)
    for i in range(count):
        write_video(folder / f"clip-{i}.mp4", clips[i], world.FPS)
    for i in range(films):
        film = np.concatenate([*clips[count + 3 * i : count + 3 * i + 3]])
        write_video(folder / f"film-{i}.mp4", film, world.FPS)
    return folder


def sentence(count: int, shift: int = 0) -> str:
    """A caption of `count` words."""
    words = [WORDS[(i + shift) % len(WORDS)] for i in range(count)]
    return f"{' '.join(words)}."


def three(long: int = 80, medium: int = 30, short: int = 8, shift: int = 0) -> str:
    """An answer as it should be, with captions of these lengths."""
    return "\n".join(
        f"{name}: {sentence(count, shift)}"
        for name, count in (("LONG", long), ("MEDIUM", medium), ("SHORT", short))
    )


class Ask:
    """What a server was asked.

    shot: a short hash of the pictures. attempt: asks of the same pictures before this one.
    """

    def __init__(self, body: dict[str, Any], attempt: int, headers: Any) -> None:
        content = body["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        self.body, self.attempt, self.headers, self.pictures = body, attempt, headers, urls
        self.shot = sha256("".join(urls).encode()).hexdigest()[:8]


class Reply:
    """What a server answers: a text, or an HTTP error, or raw bytes; after `seconds`.

    half: it hangs up in the middle.
    """

    def __init__(
        self,
        text: str = "",
        cut: bool = False,
        code: int = 200,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        seconds: float = 0,
        half: bool = False,
    ) -> None:
        reason = "length" if cut else "stop"
        body = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
        if code != 200:
            body = {"error": {"message": text}}
        self.data = json.dumps(body).encode() if raw is None else raw
        self.code, self.headers, self.seconds = code, headers or {}, seconds
        self.length = len(self.data)
        if half:
            self.data = self.data[: self.length // 2]


def by_pictures(ask: Ask) -> Reply:
    """Captions that only the pictures decide."""
    return Reply(three(shift=int(ask.shot, 16) % len(WORDS)))


class CaptionServer:
    """An OpenAI-compatible server of a few lines; `asks` is what came, with the time of each."""

    def __init__(
        self, answer: Callable[[Ask], Reply], models: tuple[str, ...] = ("toy-vl",)
    ) -> None:
        self.answer, self.models = answer, models
        self.asks: list[tuple[float, Ask]] = []
        self.seen: dict[str, int] = {}
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                names = {"object": "list", "data": [{"id": name} for name in owner.models]}
                self.reply(Reply(raw=json.dumps(names).encode()), self.path == "/v1/models")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner.lock:
                    ask = Ask(body, 0, self.headers)
                    ask.attempt = owner.seen.get(ask.shot, 0)
                    owner.seen[ask.shot] = ask.attempt + 1
                    owner.asks.append((time.monotonic(), ask))
                self.reply(owner.answer(ask), self.path == "/v1/chat/completions")

            def reply(self, reply: Reply, right: bool) -> None:
                time.sleep(reply.seconds)
                try:
                    self.send_response(reply.code if right else 404)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(reply.length))
                    self.end_headers()
                    self.wfile.write(reply.data)
                except OSError:  # who asked is gone
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def caption_server(
    answer: Callable[[Ask], Reply] = by_pictures, models: tuple[str, ...] = ("toy-vl",)
) -> Iterator[CaptionServer]:
    """A server that runs as long as the context."""
    server = CaptionServer(answer, models)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def mean_colours(frames: np.ndarray) -> np.ndarray:
    """An embedder without weights: colours of the nine parts of each frame, float32 (T, 27)."""
    height, width = frames.shape[1] // 3, frames.shape[2] // 3
    parts = [
        frames[:, i * height : (i + 1) * height, j * width : (j + 1) * width].mean((1, 2))
        for i in range(3)
        for j in range(3)
    ]
    return (np.concatenate(parts, axis=1) / 255 + 0.01).astype(np.float32)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a curation by its name, but for locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not re.match(r"\.lock|\..*\.part", path.name)
    }
