"""All that a machine with a GPU should measure, part by part; `make gpu-bench` runs it.

    python benchmarks/gpu_suite.py [PART ...] [--again] [--out results/gpu] [--minutes 10]
    python benchmarks/gpu_suite.py --render

Each part runs in a process of its own, with a time limit, and leaves OUT/PART.json, or says in
OUT/PART.failed.json why it failed; what was measured before stays until it is measured again. It
may be cut off at any moment: the same command goes on with what is missing, and leaves alone what
this code measured on this GPU, whatever else was committed since. OUT/README.md shows what there is
and names what is missing. --tiny tries all of it in small, on any machine, in a folder of its own.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_readme import render

from dfdbench.utils.errors import as_user_error
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.run import code_sha256
from dfdbench.utils.stopping import end_with, interruptible

HERE = Path(__file__).parent
PROBE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
MEASURED, FAILED = ".json", ".failed.json"  # ends of the names of a part's files
PATIENCE = 30  # seconds for a part to clear up
TOLD = 3  # exit code of a part that failed and wrote so


class Part(NamedTuple):
    """What a part shows, and the seconds that it may take."""

    title: str
    seconds: int


PARTS = {
    "attention": Part("Versions, and attention at 1×12×32,760×128 by kernel", 120),
    "toy_prediction": Part("The toy's v̂ against float32 on the CPU", 120),
    "toy_resume": Part("The toy's DFD, killed and resumed", 180),
    "wan_step": Part("Wan, DMD2 steps of two rounds of two clips", 240),
    "block_profile": Part("A block of Wan, forward and backward", 120),
    "wan_step_compiled": Part("Wan, the same steps with compiled blocks", 300),
    "nccl": Part("FSDP2 in one process, weights of mixed dtypes", 120),
    "vae_decode": Part("Decoding clips of 81×480×832", 120),
    "cosmos_step": Part("Cosmos, DFD steps of two rounds of one clip", 180),
    "save_restore": Part("A checkpoint of the Wan run", 180),
}


def code() -> str:
    """Hash of the package's and this program's Python: the code that a measurement belongs to."""
    joint = hashlib.sha256(code_sha256().encode())
    for file in sorted(HERE.glob("gpu_*.py")):
        joint.update(file.read_bytes())
    return joint.hexdigest()[:16]


def gpu_name() -> str:
    """The GPU that torch finds, "" without one; asked in a process that gives it back."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip()


def load(out: Path, suffix: str = MEASURED) -> dict[str, dict[str, Any]]:
    """The parts' files that are there and whole: of what was measured, or of tries that FAILED."""
    records = {}
    keys = {"code", "gpu", "tiny", "result" if suffix == MEASURED else "failed"}
    for name in PARTS:
        with contextlib.suppress(OSError, ValueError):
            record = json.loads((out / f"{name}{suffix}").read_text(encoding="utf-8"))
            if isinstance(record, dict) and record.get("part") == name and keys <= record.keys():
                records[name] = record
    return records


def keep(out: Path, record: dict[str, Any]) -> None:
    """Write a part's file. A try that failed takes the place of no measurement; a measurement ends
    what was said of earlier tries."""
    failed = out / f"{record['part']}{FAILED}"
    if "result" not in record:
        write_json(failed, record)
        return
    failed.unlink(missing_ok=True)
    write_json(out / f"{record['part']}{MEASURED}", record)


def is_done(record: dict[str, Any] | None, what: dict[str, Any]) -> bool:
    """Whether a part's file holds what would be measured now: same code, GPU and sizes."""
    return record is not None and what.items() <= record.items()


def write_readme(out: Path) -> None:
    """OUT/README.md, from the files that are there."""
    titles = {name: part.title for name, part in PARTS.items()}
    write_text(out / "README.md", render(load(out), load(out, FAILED), titles))


def run_part(name: str, out: Path, what: dict[str, Any], seconds: float) -> bool:
    """Measure one part in a process of its own; whether it succeeded. Its end is this call's end.

    Args:
        what: code, GPU and sizes, for the part's file. seconds: of its time limit.
    """
    command = [sys.executable, __file__, name, "--out", str(out), "--parent", str(os.getpid())]
    command += ["--child", json.dumps(what)]
    with tempfile.TemporaryDirectory(prefix="dfdbench-gpu-") as scratch:
        environment = os.environ | {"TMPDIR": scratch}
        with subprocess.Popen(command, env=environment, start_new_session=True) as process:
            try:
                status = process.wait(seconds)
                if status in (0, TOLD):  # it wrote its file
                    return status == 0
                reason = f"its process ended with status {status}"
            except subprocess.TimeoutExpired:
                reason = f"stopped after {seconds:.0f} s, the time that it had"
            finally:
                _end(process)
    if process.returncode == 0:  # it was done while it was told to stop
        return True
    keep(out, {"part": name, **what, "failed": reason})
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and what it started, politely, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)


def measure(name: str, out: Path, what: dict[str, Any], parent: int) -> int:
    """In the part's own process: run it and write its file. 0, or TOLD where it failed.

    parent: the process that it ends with.
    """

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)  # temporary folders go

    signal.signal(signal.SIGTERM, stop)
    end_with(parent)
    start, record = time.monotonic(), {"part": name, **what}
    try:
        import torch
        from gpu_parts import RUN, Sizes, tiny

        from dfdbench.utils.device import describe

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.TemporaryDirectory() as folder:
            sizes = tiny(Path(folder)) if what["tiny"] else Sizes()
            record["result"] = RUN[name](sizes, device)
        about = describe(device)
        record |= {key: about[key] for key in ("device", "versions", "created")}
        record["commit"] = about["code"]["commit"]
    except Exception as error:
        traceback.print_exc()
        line = as_user_error(error) or f"{type(error).__name__}: {error}"
        record["failed"] = " ".join(str(line).split())[:300]
    record["seconds"] = round(time.monotonic() - start, 1)
    keep(out, record)
    return TOLD if "failed" in record else 0


def run(names: Sequence[str], out: Path, what: dict[str, Any], again: bool, minutes: float) -> int:
    """Measure the parts that are missing; 0 if all of `names` are there at the end, else 1."""
    deadline, lacking = time.monotonic() + 60 * minutes, list[str]()
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        title, most = PARTS[name]
        if not again and is_done(load(out).get(name), what):
            print(f"{name}: there already (--again measures it again)")
            continue
        left = deadline - time.monotonic()
        if left < 1:
            lacking.append(name)
            continue
        print(f"{name}: {title}", flush=True)
        # The parts' own limits are for a GPU; a CPU may be slow.
        if not run_part(name, out, what, left if what["tiny"] else min(most, left)):
            lacking.append(name)
        write_readme(out)
    write_readme(out)
    print(f"{out / 'README.md'}: {len(names) - len(lacking)} of {len(names)} parts")
    if lacking:
        print(f"missing: {', '.join(lacking)}; the same command tries them again", file=sys.stderr)
    return int(bool(lacking))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "gpu")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--render", action="store_true", help="only write README.md anew")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, on any machine")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := sorted({*given.parts} - {*PARTS}):
        parser.error(f"no part {unknown[0]}; parts: {', '.join(PARTS)}")
    if given.child:
        return measure(given.parts[0], given.out, given.child, given.parent)
    if given.render:
        write_readme(given.out)
        return 0
    gpu = gpu_name()
    if not gpu and not given.tiny:
        print(
            "torch finds no GPU here; run this where there is one (--tiny tries it on the CPU)",
            file=sys.stderr,
        )
        return 2
    if any(record["tiny"] != given.tiny for record in load(given.out).values()):
        sizes = "tiny networks" if not given.tiny else "networks in full size"
        print(f"{given.out} holds measurements of {sizes}; give another --out", file=sys.stderr)
        return 2
    what = {"code": code(), "gpu": gpu or "cpu", "tiny": given.tiny}
    try:
        with interruptible():
            return run(given.parts or [*PARTS], given.out, what, given.again, given.minutes)
    except KeyboardInterrupt:
        write_readme(given.out)
        return 130


if __name__ == "__main__":
    sys.exit(main())
