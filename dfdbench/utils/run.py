"""The run folder: run.json with provenance, and the names of everything beside it.

Written by training (and by generation, for the teacher and real arms); read by every later step.

    run.json          recipe, fairness record, versions, hashes, parent run, cost
    metrics.jsonl     training curve and diagnostics
    checkpoints/      resume points; gone when the run is finished
    student/          complete diffusers folder      critic/   the fake score
    heads/            the discriminator's heads, with a GAN
    videos/<suite>/   generated clips                scores.sqlite
"""

import datetime
import hashlib
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Strict

import dfdbench
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file, write_json
from dfdbench.utils.reading import Open, parse_json, read_growing, read_text, validate

RUN_FILE = "run.json"
FORMAT: Literal[1] = 1
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


class RunInfo(Open):
    """What every reader of run.json relies on; the rest is kept as it is."""

    arm: str
    method: str
    format: Literal[1] = FORMAT
    training_seed: Annotated[int, Strict()] | None = None
    status: str | None = None
    model: str | None = None
    recipe: dict[str, Any] | None = None
    parent: dict[str, Any] | None = None
    cfg: float | None = None


class MetricsLine(Open):
    """What every line of metrics.jsonl has."""

    kind: str


class Run:
    """An opened run folder; `info` is run.json as a dict."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run folder.

        Raises:
            UserError: `path` has no run.json, or one that this version cannot read.
        """
        path = Path(path)
        file = path / RUN_FILE
        if not file.is_file():
            raise UserError(
                f"{path} is not a run folder (no {RUN_FILE}); make one: dfdbench distill"
            )
        remedy = f"restore {RUN_FILE} from a copy, or read it with the version that wrote it"
        info = parse_json(read_text(file, "JSON"), file, remedy)
        validate(RunInfo, info, file, remedy)
        return cls(path, info)

    @classmethod
    def create(cls, path: str | Path, info: dict[str, Any]) -> "Run":
        """Make a run folder and write run.json: `info` plus versions and the date.

        Args:
            info: has at least "arm" and "method"; without "training_seed" nothing was trained.

        Raises:
            UserError: the folder already holds a run.
        """
        path = Path(path)
        if (path / RUN_FILE).exists():
            raise UserError(f"{path} already holds a run; pass --resume or another --out")
        run = cls(path, {"format": FORMAT, "training_seed": None, **info, **provenance()})
        run.update()
        return run

    def update(self, **values: Any) -> None:
        """Change fields of run.json, atomically."""
        self.info.update(values)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / RUN_FILE, self.info)

    @property
    def arm(self) -> str:
        """Name in tables: "dmd2", "dmd2_control", "dp_dmd", "dfd", "teacher", "real", …"""
        return str(self.info["arm"])

    @property
    def training_seed(self) -> int | None:
        """Seed of the training run; None for the teacher and real arms."""
        seed = self.info.get("training_seed")
        return None if seed is None else int(seed)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: student/ and critic/ are whole."""
        return self.info.get("status") == "finished"

    @property
    def student(self) -> Path:
        """The student's diffusers folder."""
        return self.path / "student"

    @property
    def fake_score(self) -> Path:
        """The fake score's folder."""
        return self.path / "critic"

    @property
    def heads(self) -> Path:
        """The folder of the discriminator's heads; there in a finished run with a GAN."""
        return self.path / "heads"

    @property
    def checkpoints(self) -> Path:
        """Where resume points lie."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """The training curve, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def videos(self) -> Path:
        """Where clips of each suite lie."""
        return self.path / "videos"

    def metrics(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Lines of metrics.jsonl of a kind: "update" (losses), "bins" (over t), "probe"."""
        if self.metrics_file.is_file():
            for line in read_growing(self.metrics_file, MetricsLine, "correct that line"):
                if kind in (None, line["kind"]):
                    yield line


def weights_sha256(folder: str | Path) -> str:
    """One hash for all safetensors files of a network's folder, by name and content."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no safetensors weights; give a diffusers folder")
    if len(files) == 1:
        return sha256_file(files[0])
    joint = hashlib.sha256()
    for file in files:
        joint.update(f"{file.name} {sha256_file(file)}\n".encode())
    return joint.hexdigest()


def provenance() -> dict[str, Any]:
    """Versions, code hash and date of this moment."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "dfdbench": dfdbench.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "code": {"sha256": code_sha256(), "commit": _commit()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


@cache
def code_sha256() -> str:
    """Hash of the package's Python files, which a version number alone does not pin."""
    root = Path(dfdbench.__file__).parent
    joint = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        joint.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return joint.hexdigest()


@cache
def _commit() -> str | None:
    """The checkout's commit, None outside a git checkout."""
    root = Path(dfdbench.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
