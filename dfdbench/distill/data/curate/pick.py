"""Stage `pick`: choose among the candidates, on a page in the browser or by a rule.

Either way the result is picks.csv, whose column `id` is all that `pack` reads; a person may write
one by hand. The page is served to this machine alone, and every click is on the disk at once.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from dfdbench.distill.data.curate.grid import FOLDER, even
from dfdbench.distill.data.curate.rows import Candidate, Member, Pick
from dfdbench.distill.data.curate.work import read_rows
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import write_text
from dfdbench.utils.folders import locked
from dfdbench.utils.reading import Outside, read_csv, validate
from dfdbench.utils.table import to_csv

NAME, FILE = "pick", "picks.csv"
HEAD = ("id", "cluster", "distance")
LARGEST_CLICK = 10_000  # bytes
TYPES = {".html": "text/html; charset=utf-8", ".jpg": "image/jpeg"}
RULES = ("nearest", "even", "all")


class Click(Outside):
    """What the page says when a box is clicked."""

    id: str = Field(max_length=1000)
    picked: bool


def pick_by_rule(folder: Path, rule: str, count: int = 0) -> int:
    """Write picks.csv by a rule over whole clusters; returns how many are picked.

    Args:
        rule: "nearest" (the `count` nearest to each centre), "even" (`count` at even percentiles
            of the distance), "all".

    Raises:
        UserError: no clusters, another rule, or picks are there that differ.
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    if rule != "all" and count < 1:
        raise UserError(f"--auto {rule}: say how many of each cluster, such as {rule}:4")
    clusters: dict[int, list[Member]] = {}
    for row in read_rows(folder, "cluster", Member):
        clusters.setdefault(row.cluster, []).append(row)
    chosen: list[Member] = []
    for _, own in sorted(clusters.items()):
        own.sort(key=lambda row: (row.distance, row.id))
        places = {
            "nearest": range(min(count, len(own))),
            "even": even(len(own), count),
            "all": range(len(own)),
        }[rule]
        chosen += [own[place] for place in places]
    with locked(folder, NAME):
        text = to_csv(HEAD, [[row.id, row.cluster, row.distance] for row in chosen])
        path = folder / FILE
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path}: other picks are there; delete or rename it first")
        write_text(path, text)
    return len(chosen)


def read_picks(folder: Path, known: Iterable[str]) -> list[str]:
    """The ids of picks.csv in their order.

    Raises:
        UserError: it is not there, a row has no id or one that is not `known`, or one is twice.
    """
    path, names = folder / FILE, set(known)
    if not path.is_file():
        raise UserError(f"{path}: not there; run dfdbench data curate pick first")
    found: dict[str, None] = {}
    for line, row in read_csv(path, Pick, "correct that line (column: id)"):
        if row.id not in names:
            raise UserError(f"{path}:{line}: no shot {row.id} to pick; correct that line")
        if row.id in found:
            raise UserError(f"{path}:{line}: {row.id} is there twice; remove one")
        found[row.id] = None
    return [*found]


class Picking(NamedTuple):
    """A page that is being served.

    url: its address. server: call serve_forever, and shutdown from another thread.
    """

    url: str
    server: ThreadingHTTPServer


def serve(folder: Path, port: int = 0) -> Picking:
    """Serve the pages of grid on this machine, and write picks.csv at every click.

    Args:
        port: 0 takes a free one.

    Raises:
        UserError: no grid, picks that are no candidates, or the port is taken.
    """
    found = read_rows(folder, "grid", Candidate)
    board = _Board(folder, found)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(folder / FOLDER, board))
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; give another, or 0") from None
    return Picking(f"http://127.0.0.1:{server.server_port}/index.html", server)


class _Board:
    """What is picked so far."""

    def __init__(self, folder: Path, found: Sequence[Candidate]) -> None:
        self.path, self.found, self.lock = folder / FILE, {c.id: c for c in found}, threading.Lock()
        given = read_picks(folder, self.found) if self.path.is_file() else []
        self.picks = dict.fromkeys(given)

    def click(self, click: Click) -> list[str]:
        """Note a click and write the file; the ids that are picked then, in the pages' order.

        Raises:
            KeyError: no such candidate.
        """
        with self.lock:
            self.found[click.id]
            if click.picked:
                self.picks[click.id] = None
            else:
                self.picks.pop(click.id, None)
            rows = [c for c in self.found.values() if c.id in self.picks]
            write_text(self.path, to_csv(HEAD, [[c.id, c.cluster, c.distance] for c in rows]))
            return [c.id for c in rows]

    def ids(self) -> list[str]:
        """What is picked, in the pages' order."""
        with self.lock:
            return [name for name in self.found if name in self.picks]


def _handler(pages: Path, board: _Board) -> type[BaseHTTPRequestHandler]:
    files = {f"/{file.name}": file for file in pages.iterdir() if file.suffix in TYPES}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if not self._is_own():
                return
            if path == "/picks":
                self._json({"picks": board.ids()})
            elif file := files.get("/index.html" if path == "/" else path):
                self._send(200, TYPES[file.suffix], file.read_bytes())
            else:
                self._send(404, "text/plain", b"no such page")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not self._is_own():
                return
            if self.path != "/picks" or not length.isdigit() or int(length) > LARGEST_CLICK:
                self._send(400, "text/plain", b"a click is a short JSON to /picks")
                return
            try:
                value = json.loads(self.rfile.read(int(length)))
                self._json({"picks": board.click(validate(Click, value, "click", "click again"))})
            except KeyError:
                self._send(404, "text/plain", b"no such candidate")
            except (ValueError, UserError) as error:
                self._send(400, "text/plain", str(error).encode())
            except OSError as error:
                self._send(507, "text/plain", str(error).encode())

        def _is_own(self) -> bool:
            """Whether it comes from our page: other pages in the same browser may not click."""
            port = self.connection.getsockname()[1]
            hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
            origin = self.headers.get("Origin")
            own = self.headers.get("Host") in hosts and (
                origin is None or origin.removeprefix("http://") in hosts
            )
            if not own:
                self._send(403, "text/plain", b"only from this page on this machine")
            return own

        def _json(self, value: Any) -> None:
            self._send(200, "application/json", json.dumps(value).encode())

        def _send(self, code: int, kind: str, data: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of each request."""

    return Handler
