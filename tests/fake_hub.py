"""A small hub on this machine for tests of downloads: one repository, a few files in memory."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class Hub:
    """Files of a repository.

    gated: answer 403, as before its licence is accepted. stall: a file that stops half way, until
    `go_on` is set; `stalled` says that it has. sent: names of the files that were asked for.
    """

    def __init__(self, repository: str, files: Mapping[str, bytes]) -> None:
        self.repository, self.files, self.sent = repository, dict(files), list[str]()
        self.gated, self.stall = False, ""
        self.stalled, self.go_on = threading.Event(), threading.Event()

    def tag(self, name: str) -> str:
        """What names a file's blob: sha256 if it is large, as safetensors are, else git's hash."""
        kind = "sha256" if name.endswith(".safetensors") else "sha1"
        return hashlib.new(kind, self.files[name]).hexdigest()

    def entry(self, name: str) -> dict[str, object]:
        """One file in the listing of the repository."""
        size = len(self.files[name])
        row: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": "0" * 40}
        if len(self.tag(name)) == 64:
            return row | {"lfs": {"oid": self.tag(name), "size": size, "pointerSize": 100}}
        return row | {"oid": self.tag(name)}


class Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks for a snapshot of the server's `hub`."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.gated:
            self.answer(b"{}", {"X-Error-Code": "GatedRepo"}, status=403)
        elif path == f"/api/models/{hub.repository}/revision/main":
            self.answer(json.dumps({"id": hub.repository, "sha": COMMIT, "siblings": []}).encode())
        elif path == f"/api/models/{hub.repository}/tree/{COMMIT}":
            self.answer(json.dumps([hub.entry(name) for name in hub.files]).encode())
        else:
            name = path.removeprefix(f"/{hub.repository}/resolve/{COMMIT}/")
            head = {"ETag": f'"{hub.tag(name)}"', "X-Repo-Commit": COMMIT}
            hub.sent += [name] if self.command == "GET" else []
            self.answer(hub.files[name], head, stall=name == hub.stall)

    def answer(
        self, body: bytes, head: Mapping[str, str] | None = None, status: int = 200,
        stall: bool = False,
    ) -> None:  # fmt: skip
        self.send_response(status)
        for key, value in (dict(head or {}) | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        half = len(body) // 2 if stall else len(body)
        self.wfile.write(body[:half])
        if stall:
            self.hub.stalled.set()
            self.hub.go_on.wait(60)


@contextmanager
def serve(hub: Hub, cache: Path) -> Iterator[dict[str, str]]:
    """Run the hub; yields the environment of a process that uses it, with a cache of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ours = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "NO_PROXY": "127.0.0.1",
    }
    inherited = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    try:
        yield inherited | ours
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
