"""Where the official vbench lies and how its code is run: in a process of its own, JSON in and out.

Looked for on the path and in $DFDBENCH_VBENCH_SITE, a folder of the packages in requirements.txt
without their dependencies: `make test-all` installs them into .venv-vbench and names its folder.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

TOLERANCE = 1e-4  # what parity means, per video and in the aggregate


def vbench_site(*also: str) -> str:
    """The folder that holds vbench and the packages `also`; skips the test where there is none."""
    folder = os.environ.get("DFDBENCH_VBENCH_SITE", "")
    modules = ("vbench", *also)
    # The folder comes first on the path of the official process, which needs the libraries of ours.
    hidden = [name for name in ("torch", "numpy") if folder and (Path(folder) / name).exists()]
    assert not hidden, f"{folder} holds {', '.join(hidden)}; install into it with --no-deps"
    if folder and all((Path(folder) / module).is_dir() for module in modules):
        return folder
    # A namespace without a file is this very folder of tests, not the package.
    specs = [find_spec(module) for module in modules]
    if all(spec and spec.origin for spec in specs):
        return ""
    pytest.skip(
        f"{', '.join(modules)} are not all installed; name their folder in DFDBENCH_VBENCH_SITE"
    )


def run_official(script: str, site: str, cache: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What a script beside this file prints for a job, with its checkpoints in `cache`."""
    path = [site, os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / script)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=os.environ
        | {"VBENCH_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(filter(None, path))},
        cwd=cache,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def record_parity(part: str, table: dict[str, Any]) -> None:
    """Write a table of differences to $DFDBENCH_PARITY/<part>.json, where that folder is named."""
    folder = os.environ.get("DFDBENCH_PARITY")
    if folder:
        (Path(folder) / f"{part}.json").write_text(json.dumps(table, indent=2) + "\n")
