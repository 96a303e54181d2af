"""The plan of the house: eight rooms, one way down, no circle, no loose module at the top.

Run alone it prints the counts: python tests/test_house.py [FOLDER WITH dfdbench/]
"""

import ast
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "report", "evaluate", "generate", "distill", "toy", "models", "utils")
LOOSE = {"__init__", "__main__"}  # what may lie beside the rooms
LONGEST_FILE, MOST_ARGUMENTS = 400, 11

Graph = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Module name without the package's -> its file; a package goes by its own name."""
    names = {}
    for path in sorted((root / "dfdbench").rglob("*.py")):
        parts = path.relative_to(root / "dfdbench").with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)] = path
    return names


def imported(node: ast.AST, package: list[str]) -> list[str]:
    """Full dotted names that an import statement names; of a relative one, seen from `package`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


@cache
def imports(root: Path) -> Graph:
    """Module -> the modules of the package that it imports anywhere, also inside functions."""
    names = modules(root)
    graph: Graph = {}
    for name, path in names.items():
        package = ["dfdbench", *path.relative_to(root / "dfdbench").parts[:-1]]
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in imported(node, package):
                inner = target.removeprefix("dfdbench.")
                if not target.startswith("dfdbench."):
                    continue
                module = inner if inner in names else inner.rpartition(".")[0]
                graph[name] |= {module} & (names.keys() - {name})
    return graph


def room(module: str) -> str:
    """The room of a module: its first name."""
    return module.partition(".")[0]


def arrows(root: Path) -> Graph:
    """Room -> the other rooms that it imports from."""
    graph: Graph = defaultdict(set)
    for module, targets in imports(root).items():
        graph[room(module)] |= {room(target) for target in targets} - {room(module)}
    return dict(graph)


def back_arrows(root: Path) -> list[str]:
    """Imports against the order of the rooms."""
    return [
        f"{module} -> {target}"
        for module, targets in imports(root).items()
        for target in sorted(targets)
        if {room(module), room(target)} <= set(ROOMS)
        and ROOMS.index(room(target)) < ROOMS.index(room(module))
    ]


def circle(graph: Graph) -> list[str]:
    """One circle of a graph, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def floors(graph: Graph) -> int:
    """Rooms on the longest way down."""

    @cache
    def height(name: str) -> int:
        return 1 + max((height(below) for below in graph.get(name, ())), default=0)

    return max(map(height, graph))


def longest_arguments(root: Path) -> tuple[int, str]:
    """The most parameters of a function, and whose they are; commands' options are no arguments."""
    longest = (0, "")
    for module, path in modules(root).items():
        if room(module) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                a = node.args
                count = len(a.posonlyargs + a.args)
                longest = max(longest, (count, f"{module}.{node.name}"))
    return longest


def lines(root: Path) -> dict[str, int]:
    """File -> its lines."""
    return {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in modules(root).items()
    }


def test_only_the_rooms_and_the_entries_lie_at_the_top() -> None:
    top = {p.stem for p in (ROOT / "dfdbench").glob("*.py")}
    rooms = {p.parent.name for p in (ROOT / "dfdbench").glob("*/__init__.py")}
    assert top == LOOSE
    assert rooms == set(ROOMS)


def test_imports_run_one_way_down() -> None:
    assert back_arrows(ROOT) == []


def test_no_circle_between_modules_even_inside_functions() -> None:
    assert circle(imports(ROOT)) == []


def test_no_file_is_longer_than_a_room_with_one_job() -> None:
    assert {name: n for name, n in lines(ROOT).items() if n > LONGEST_FILE} == {}


def test_no_argument_list_is_endless() -> None:
    count, whose = longest_arguments(ROOT)
    assert count <= MOST_ARGUMENTS, whose


def test_every_room_is_told_in_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [name for name in ROOMS if f"`{name}/`" not in text] == []


def test_random_numbers_are_forked_on_the_cpu_alone() -> None:
    """torch.random.fork_rng() would start every GPU and copy the state of each."""
    forks = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for path in [*(ROOT / "dfdbench").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fork_rng")
    ]
    assert forks and [name for name, given in forks if "devices" not in given] == []


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"utils/a.py": "from dfdbench.cli import b", "cli/b.py": ""}, "utils.a -> cli.b"),
        ({"models/a.py": "def f():\n    import dfdbench.toy.b", "toy/b.py": ""}, "models.a"),
        ({"models/a.py": "from ..toy import b", "toy/b.py": ""}, "models.a -> toy.b"),
    ],
)
def test_an_arrow_that_runs_back_is_seen(tmp_path: Path, files: dict, fault: str) -> None:
    for name, text in files.items():
        path = tmp_path / "dfdbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert fault in "\n".join(back_arrows(tmp_path))


def test_a_circle_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "dfdbench" / "utils"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from dfdbench.utils import b")
    (folder / "b.py").write_text("def f():\n    from dfdbench.utils.a import x")
    assert set(circle(imports(tmp_path))) == {"utils.a", "utils.b"}


def main(root: Path) -> None:
    """Print the counts of a checkout."""
    rooms, length = arrows(root), lines(root)
    names = [name for name in rooms if name not in LOOSE]
    among = {a: {b for b in rooms.get(a, ()) if b in names} for a in names}
    ring = circle(among)
    longest = max(length, key=lambda name: length[name])
    print(f"rooms         {len(names)}")
    print(f"floors        {'—, there is a circle' if ring else floors(among)}")
    print(f"arrows        {sum(map(len, among.values()))}")
    print(f"back-arrows   {len(back_arrows(root))}")
    print(f"circle        {' -> '.join(ring) or 'none'}")
    print(f"modules' circle {' -> '.join(circle(imports(root))) or 'none'}")
    print(f"package lines {sum(length.values())}")
    print(f"longest file  {length[longest]} ({longest})")
    print("longest argument list {} ({})".format(*longest_arguments(root)))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT)
