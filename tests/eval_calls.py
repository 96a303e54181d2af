"""`dfdbench eval` in this process, as tests of bad input call it."""

from pathlib import Path
from typing import Any

from clips import random_clip
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.store import Store
from dfdbench.utils.video import write_video


def evaluate(*arguments: object, metrics: str = "colour") -> tuple[int, list[str]]:
    """Exit code and lines of one call, which ends without a traceback."""
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--metrics", metrics])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output and "own fault" not in result.output
    return result.exit_code, result.output.splitlines()


def refused(*arguments: object, metrics: str = "colour") -> str:
    """The one line with which a call is refused."""
    code, lines = evaluate(*arguments, metrics=metrics)
    errors = [line for line in lines if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1, lines
    return errors[0]


def left_out(lines: list[str]) -> list[str]:
    """The lines about what was not scored."""
    return [line.removeprefix("left out: ") for line in lines if line.startswith("left out: ")]


def notes(lines: list[str]) -> str:
    """What was said of the scores."""
    return "\n".join(line for line in lines if line.startswith("note: "))


def rows(out: Path) -> dict[str, tuple[Any, ...]]:
    """File name -> prompt id, prompt, seed and method of every scored clip."""
    with Store(out / "scores.sqlite") as store:
        samples = store.samples().to_dict("records")
    return {
        Path(row["path"]).name: (
            row["prompt_id"],
            row["prompt"],
            None if row["seed"] is None or row["seed"] != row["seed"] else int(row["seed"]),
            row["method"],
        )
        for row in samples
    }


def clip(path: Path, seed: int = 0) -> Path:
    """A small video; with the suffix of `path`, whatever that is."""
    made = path.with_name("made.mp4")
    write_video(made, random_clip(seed, 5), fps=8)
    made.rename(path)
    return path
