"""One dimension of the official package vbench, run by the interpreter that it is installed in.

Started by bridge.py as `PYTHON official_worker.py JOB ANSWER`. JOB is a JSON file {"dimension",
"entries", "device"}, where entries are those of VBench's full_info.json with `video_list`; ANSWER
becomes {"score", "videos": [{"path", "value"}, ...]}. `--probe` prints {"python", "vbench"} and
imports no package. Nothing of dfdbench is imported; Python 3.8 and the libraries of 2023 suffice.
It fetches nothing: connections to other machines and wget, curl and git clone are refused. It ends
when its standard input does, that is, with the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))


def refuse_network(event: str, arguments: tuple) -> None:
    """An audit hook that raises where something would be downloaded."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        if not host.startswith("127.") and host not in ("localhost", "::1"):
            # a kind of OSError, as without a network: libraries then take what they have cached
            raise ConnectionRefusedError(f"{host}: nothing is downloaded unasked")
    if event == "subprocess.Popen":
        command = arguments[1]
        words = command.split() if isinstance(command, str) else [os.fspath(w) for w in command]
        program = os.path.basename(words[0]) if words else ""
        if program in ("wget", "curl") or (program == "git" and "clone" in words):
            raise RuntimeError(f"nothing is downloaded unasked: {' '.join(words)}")


def end_with_parent() -> None:
    """Wait for the end of standard input, in a thread, then end the process at once."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def probe() -> dict:
    """Versions of Python and of the package, null where it is not installed."""
    try:
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:
        return {"python": list(sys.version_info[:2]), "vbench": None}
    try:
        found = version("vbench")
    except PackageNotFoundError:
        found = None
    return {"python": list(sys.version_info[:2]), "vbench": found}


def evaluate(job: dict, listing: str) -> dict:
    """What the package's function for the dimension finds; listing: the file of the entries."""
    from importlib import import_module

    import torch
    from vbench.utils import init_submodules

    dimension = job["dimension"]
    modules = init_submodules([dimension], local=True)[dimension]
    compute = getattr(import_module("vbench." + dimension), "compute_" + dimension)
    try:
        with torch.no_grad():
            # A device, not its name: motion_smoothness would scale clips down for "cuda".
            score, videos = compute(listing, torch.device(job["device"]), modules)[:2]
    except ZeroDivisionError:
        if dimension != "color":
            raise
        # Its one division that may fail is by the clips in which the object was seen with a colour.
        score, videos = None, []
    return {
        "score": None if score is None else float(score),
        "videos": [
            {"path": video["video_path"], "value": float(video["video_results"])}
            for video in videos
        ],
    }


def main() -> None:
    """See the head of the file."""
    if sys.argv[1:] == ["--probe"]:
        print(json.dumps(probe()))
        return
    job_file, answer_file = sys.argv[1:]
    # Python puts this folder first, and its clip.py and dreamsim.py would hide other packages.
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != HERE]
    end_with_parent()
    sys.addaudithook(refuse_network)
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    listing = job_file + ".entries.json"
    with open(listing, "w", encoding="utf-8") as file:
        json.dump(job["entries"], file)
    answer = evaluate(job, listing)
    with open(answer_file + ".part", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.replace(answer_file + ".part", answer_file)


if __name__ == "__main__":
    main()
