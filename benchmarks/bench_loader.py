"""Samples a second that the streaming loader gives, against what training on one H100 consumes.

    python benchmarks/bench_loader.py [--samples 96] [--folder DIR] [--out FILE]

Writes a set of random latents in the shapes of Wan2.1-1.3B at 81×480×832 (16×21×60×104 and 512×4096
of which about 100 tokens are a prompt's own; shards of 16, bfloat16) and takes whole passes in
shuffled order, as training does, with nothing to do in between. Every sample is checked for numbers
that are not finite, padded, and converted to float32 on the CPU; on a GPU that conversion is the
GPU's. Cold: every shard is dropped from the page cache before the pass (posix_fadvise). Warm: read
before.

Needed: a DMD2 iteration's floating-point operations a sample at MFU of the H100's dense bfloat16
peak; a sample is consumed once an iteration.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dfdbench.distill.data.format import INDEX, Sample, SetIndex, write_index, write_shard
from dfdbench.distill.data.shards import LatentSet
from dfdbench.utils.files import write_json

LATENTS, TEXT, TOKENS, SHARD = (16, 21, 60, 104), (512, 4096), (60, 140), 16
WIDTH, HIDDEN, LAYERS = 1536, 8960, 30  # of the transformer's config.json
PEAK, MFU, TIMES = 989e12, 0.4, 5.0  # H100 SXM data sheet, bf16 dense; aim: TIMES the needed rate


def needed() -> dict[str, float]:
    """Operations and samples a second of DMD2; forward passes as methods/dmd2.py makes them."""
    tokens = LATENTS[1] * (LATENTS[2] // 2) * (LATENTS[3] // 2)
    # Weights that each video token meets: self-attention 4 d², cross-attention's q and out 2 d²,
    # feed-forward 2 d h. Cross-attention's k and v meet the text tokens only.
    weights = LAYERS * (6 * WIDTH**2 + 2 * WIDTH * HIDDEN)
    attention = LAYERS * 4 * WIDTH * (tokens**2 + tokens * TEXT[0])
    text = LAYERS * 2 * TEXT[0] * 2 * WIDTH**2
    forward = 2 * weights * tokens + attention + text
    # In forward passes; backward costs two. Without recomputing activations, so that the rate is
    # the highest. Student: its own 3, fake score 1, teacher with and without prompt 2. Fake score:
    # student 1, its own 3. One student iteration in five.
    passes = (6 + 4 * 4) / 5
    return {
        "tokens": tokens,
        "weights met by a video token": weights,
        "TFLOP a forward pass": round(forward / 1e12, 1),
        "forward passes an iteration, mean of 5": passes,
        "TFLOP a sample and iteration": round(passes * forward / 1e12, 1),
        "samples a second": round(MFU * PEAK / (passes * forward), 4),
        "samples a second, fake score's iterations only": round(MFU * PEAK / (4 * forward), 4),
    }


def write(folder: Path, count: int) -> None:
    """A set of random samples, and everything on the disk."""
    generator, shards = torch.Generator().manual_seed(0), []
    for number, start in enumerate(range(0, count, SHARD)):
        samples = []
        for i in range(start, min(start + SHARD, count)):
            length = int(torch.randint(*TOKENS, (), generator=generator))
            embeds = torch.zeros(TEXT, dtype=torch.bfloat16)
            embeds[:length] = torch.randn(length, TEXT[1], generator=generator)
            latents = torch.randn(LATENTS, generator=generator)
            samples.append(Sample(f"{i:05d}", latents, embeds, {"prompt": "random"}))
        shards.append(write_shard(folder / f"shard-{number:05d}.tar", samples))
    index = SetIndex(
        model="random",
        vae_sha256="",
        text_encoder_sha256="",
        frames=81,
        height=480,
        width=832,
        fps=16.0,
        latents=list(LATENTS),
        prompt_embeds=list(TEXT),
        negative_prompt="",
        samples=count,
        shards=shards,
        format=1,
    )
    write_index(folder / INDEX, index)


def drop_cache(folder: Path) -> None:
    """Let the kernel forget the shards' pages, which write_shard has synced."""
    for path in folder.glob("*.tar"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def rate(folder: Path, batch: int, cold: bool) -> dict[str, float]:
    """A whole pass, from opening the set on; what came off the disk shows that cold is cold."""
    if cold:
        drop_cache(folder)
    blocks = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
    start, cpu = time.perf_counter(), time.process_time()
    stream = LatentSet(folder, seed=0, period=batch)
    for position in range(0, len(stream) - batch + 1, batch):
        stream.batch(position, batch)
    taken = len(stream) - len(stream) % batch
    seconds = time.perf_counter() - start
    blocks = resource.getrusage(resource.RUSAGE_SELF).ru_inblock - blocks
    return {
        "samples a second": round(taken / seconds, 2),
        "CPU seconds a sample": round((time.process_time() - cpu) / taken, 4),
        "MB read from the disk": round(blocks * 512 / 1e6, 1),
    }


def measure(folder: Path, samples: int, batches: list[int], repeats: int) -> dict[str, Any]:
    """All figures."""
    write(folder, samples)
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    rates = {}
    for batch in batches:
        for name, cold in (("cold", True), ("warm", False)):
            rates[f"{name}, batch {batch}"] = [rate(folder, batch, cold) for _ in range(repeats)]
    need = needed()
    lowest = min(row["samples a second"] for rows in rates.values() for row in rows)
    highest = max(need["samples a second"], need["samples a second, fake score's iterations only"])
    return {
        "latents": LATENTS,
        "text": [*TEXT],
        "own tokens of a prompt": f"{TOKENS[0]} to {TOKENS[1] - 1}",
        "samples": samples,
        "MB a sample": round(size / samples / 1e6, 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}",
        "load before": round(os.getloadavg()[0], 2),
        "torch threads": torch.get_num_threads(),
        "passes": rates,
        "needed for one H100": {"peak TFLOP/s": PEAK / 1e12, "MFU": MFU, **need},
        "slowest / needed": round(lowest / highest, 1),
        "aim": TIMES,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else temporary")
    parser.add_argument("--out", type=Path, default=Path("results/loader/bench.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        batches = [int(text) for text in given.batches.split(",")]
        result = measure(Path(name), given.samples, batches, given.repeats)
    write_json(given.out, result)
    print(json.dumps(result, indent=2))
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
