"""What the commands share: the option --json, and printing for people or programs.

Used by cli.py and leaderboard/cli.py.
"""

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable output.")]


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text` for people."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)
