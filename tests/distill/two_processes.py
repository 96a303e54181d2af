"""Runs a test's function in two processes that are started as torchrun would."""

import multiprocessing
import os
import socket
from types import SimpleNamespace

import torch

LIMIT_SECONDS = 150


def _process(rank, port, log, work, arguments):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
    file = os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    work(rank, *arguments)


def on_two(folder, work, *arguments):
    """Run `work(rank, …)` in two processes; their exit codes and what they printed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dfdbench.distill.loop", "dfdbench.models.wan", __name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"log-{rank}.txt" for rank in range(2)]
    processes = [
        context.Process(target=_process, args=(rank, port, logs[rank], work, arguments))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    texts = [log.read_text() for log in logs]
    codes = [process.exitcode for process in processes]
    return SimpleNamespace(codes=codes, logs=texts, text="".join(texts))
