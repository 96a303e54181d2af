"""Caption servers that speak OpenAI's chat API over HTTP (vLLM, SGLang, llama.cpp, hosted ones).

Asks are spread over several servers, each with a limit of asks at a time and a second. What passes
(too many requests, a server that is starting, down or slow) is tried again, later and on another
server; what will not pass (a wrong key, an unknown model) ends the work. Used by caption.py.
"""

import base64
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dfdbench.utils.errors import UserError

KEY = "DFDBENCH_CAPTION_KEY"  # environment variable of the servers' key
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before an ask is repeated; doubled each time
LARGEST_ANSWER = 2**22  # bytes


class Answer(NamedTuple):
    """What a model wrote, and whether it ended because there was no more room."""

    text: str
    cut: bool


class Passing(Exception):
    """A fault that may be gone later. wait: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class Server:
    """One server: its address and what is asked of it now."""

    url: str
    rate: float = 0  # asks a second; 0: any
    busy: int = 0
    free_at: float = 0  # time from which on it may be asked again
    lock: threading.Lock = field(default_factory=threading.Lock)

    def turn(self, now: float) -> float:
        """Take the next place in the rate limit; seconds to wait for it."""
        with self.lock:
            start = max(now, self.free_at)
            self.free_at = start + (1 / self.rate if self.rate else 0)
            return start - now

    def rest(self, until: float) -> None:
        """Ask nothing more before a time, as it wished."""
        with self.lock:
            self.free_at = max(self.free_at, until)


class Servers:
    """Servers that give the same model.

    Args:
        urls: addresses that end in /v1 or have it added. model: name; None: the one they list.
        rate: asks a second of each, 0 for no limit. timeout: seconds for one answer.
        retries: asks of one clip beyond the first that faults which pass may take.

    Raises:
        UserError: an address is no address.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str | None = None,
        rate: float = 0,
        timeout: float = 120,
        retries: int = 5,
    ) -> None:
        self.servers = [Server(_address(url), rate) for url in urls]
        self.timeout, self.retries = timeout, retries
        self._choosing, self._closed = threading.Lock(), threading.Event()
        self.model = model or self._only_model()

    def close(self) -> None:
        """Let asks that wait for their turn end now, with a UserError."""
        self._closed.set()

    def ask(self, text: str, pictures: Sequence[bytes], max_tokens: int, seed: int) -> Answer:
        """The model's answer to a text and JPEG pictures.

        Raises:
            UserError: no server answers, or one refuses for good.
        """
        parts: list[dict[str, Any]] = [
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(p).decode()}"},
            }
            for p in pictures
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
            "max_tokens": max_tokens,
            "temperature": 0.2,
            "seed": seed,
        }

        def read(reply: Any) -> Answer:
            choice = reply["choices"][0]
            content = choice["message"]["content"] or ""  # null: it thought, and wrote nothing
            if not isinstance(content, str):
                raise TypeError("content is no text")
            return Answer(content, choice.get("finish_reason") == "length")

        answer: Answer = self._patiently("/chat/completions", body, read)
        return answer

    def _only_model(self) -> str:
        def read(reply: Any) -> list[str]:
            return [str(item["id"]) for item in reply["data"]]

        names: list[str] = self._patiently("/models", None, read)
        if len(names) != 1:
            raise UserError(
                f"{self.servers[0].url}: has {len(names)} models ({', '.join(names[:5])}); name "
                "one with --model"
            )
        return names[0]

    def _patiently(self, path: str, body: Any, read: Callable[[Any], Any]) -> Any:
        """Ask until a server answers, in turns, `retries` times beyond the first."""
        tried: list[Server] = []
        for attempt in range(self.retries + 1):
            server = self._take(tried)
            try:
                self._pause(server.turn(time.monotonic()))
                return read_reply(_post(server.url + path, body, self.timeout), read)
            except Passing as fault:
                last, wait = f"{server.url}: {fault}", fault.wait
                if wait:
                    server.rest(time.monotonic() + wait)
            finally:
                with self._choosing:
                    server.busy -= 1
            tried.append(server)
            if attempt < self.retries and not (wait and len(self.servers) > 1):
                pause = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                self._pause(max(wait, pause * random.uniform(0.5, 1)))
        raise UserError(
            f"{last}; asked {self.retries + 1} times; start the server, then give the same command "
            "again: captions that were made are kept"
        )

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise UserError("caption: stopped; give the same command again to go on")

    def _take(self, tried: Sequence[Server]) -> Server:
        """The server that is least tried by this ask, resting least, and least busy."""
        with self._choosing:
            now = time.monotonic()

            def load(server: Server) -> tuple[int, float, int]:
                return tried.count(server), max(0.0, server.free_at - now), server.busy

            server = min(self.servers, key=load)
            server.busy += 1
            return server


def _address(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--server {url}: no address; write such as http://localhost:8000/v1")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def read_reply(data: bytes, read: Callable[[Any], Any]) -> Any:
    """What `read` takes from the JSON of a reply; one of another form is a fault that passes."""
    try:
        return read(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Passing(f"its answer has another form ({type(error).__name__}: {error})") from None


def _post(url: str, body: Any, timeout: float) -> bytes:
    """One ask over HTTP; a GET where there is no body."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return bytes(reply.read(LARGEST_ANSWER))
    except urllib.error.HTTPError as error:
        said = _said(error)
        if error.code in PASSING:
            raise Passing(f"HTTP {error.code}{said}", _retry_after(error)) from None
        remedy = {
            401: f"set {KEY} to its key",
            403: f"set {KEY} to a key that may do this",
            404: "check --server and --model",
            413: "pass fewer --frames or a smaller --side",
        }.get(error.code, "check --model, --frames and --max-tokens against what it takes")
        raise UserError(f"{url}: HTTP {error.code}{said}; {remedy}") from None
    except TimeoutError:
        raise Passing(f"no answer in {timeout:g} s") from None
    except urllib.error.URLError as error:
        raise Passing(f"cannot be reached ({error.reason})") from None
    except (http.client.HTTPException, ConnectionError, OSError) as error:
        raise Passing(f"broke off ({type(error).__name__}: {error})") from None


def _said(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(2000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        value = json.loads(text)
        text = value["error"]["message"] if "error" in value else value["message"]
    except (ValueError, LookupError, TypeError):
        pass
    return f" ({' '.join(str(text).split())[:200]})" if str(text).strip() else ""


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        return min(LONGEST_WAIT, max(0.0, float(error.headers.get("Retry-After", "0"))))
    except ValueError:  # a date
        return 0
