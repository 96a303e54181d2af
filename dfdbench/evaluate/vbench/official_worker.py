"""One dimension of the official package vbench, run by the interpreter that it is installed in.

Started by official.py as `PYTHON official_worker.py DIMENSION DEVICE LISTING FOLDER`. LISTING holds
entries of VBench's full_info.json with `video_list`; the package writes its results to
FOLDER/DIMENSION_eval_results.json. Nothing of dfdbench is imported; Python 3.8 suffices.
"""

import os
import sys
import threading


def end_with_parent() -> None:
    """End the process when standard input ends, that is, with the one that started it."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """See the head of the file."""
    del sys.path[0]  # this folder, whose files could hide other packages
    threading.Thread(target=end_with_parent, daemon=True).start()
    import torch
    from vbench import VBench

    dimension, device, listing, folder = sys.argv[1:]
    # A device, not its name: motion_smoothness would scale clips down for "cuda".
    bench = VBench(torch.device(device), "", folder)
    bench.build_full_info_json = lambda *args, **kwargs: listing  # the clips are chosen already
    with torch.no_grad():
        bench.evaluate("", dimension, dimension_list=[dimension], local=True)


if __name__ == "__main__":
    main()
