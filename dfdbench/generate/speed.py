"""Frames of video a second: measured while clips are made, left in speed.json beside them.

Written by clips.py, shown by `dfdbench generate`.
"""

import statistics
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat

from dfdbench.utils.reading import Open, read_json
from dfdbench.utils.shards import WHOLE, Shard


class Speed:
    """Seconds of sampling and decoding, batch by batch; each ends when the device is done."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, float, float]] = []

    def add(self, clips: int, frames: int, sampling: float, decoding: float) -> None:
        """Count a batch of `clips` with `frames` frames in all."""
        self.batches.append((clips, frames, sampling, decoding))

    def record(self) -> dict[str, Any]:
        """Frames of video a second, without and with the autoencoder.

        The first batch, which compiles and allocates, counts only where it is the only one.
        """
        counted = self.batches[1:] or self.batches
        clips, frames, sampling, decoding = (sum(column) for column in zip(*counted, strict=True))
        return {
            "clips": sum(row[0] for row in self.batches),
            "timed_clips": clips,
            "timed_frames": frames,
            "sampling_seconds": sampling,
            "decoding_seconds": decoding,
            "fps": frames / sampling,
            "fps_with_vae": frames / (sampling + decoding),
        }


class StreamSpeed:
    """Seconds of clips that are sampled and decoded block after block; encoding is not counted."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float, list[tuple[int, float, float]]]] = []

    def add(self, clips: int, latency: float, blocks: list[tuple[int, float, float]]) -> None:
        """Count a batch of `clips` that are streamed side by side.

        Args:
            latency: seconds from the start of sampling to the first decoded frame of all.
            blocks: frames of each block in all, seconds of sampling and of decoding it.
        """
        self.batches.append((clips, latency, blocks))

    def record(self) -> dict[str, Any]:
        """Latency (median), and frames of video a second in steady state.

        The first batch, which compiles and allocates, counts only where it is the only one, and of
        each the first block only where it has no other.
        """
        counted = self.batches[1:] or self.batches
        steady = [block for *_, blocks in counted for block in blocks[1:] or blocks]
        frames, sampling, decoding = (sum(column) for column in zip(*steady, strict=True))
        return {
            "clips": sum(row[0] for row in self.batches),
            "timed_clips": sum(row[0] for row in counted),
            "timed_frames": frames,
            "latency_seconds": statistics.median(latency for _, latency, _ in counted),
            "sampling_seconds": sampling,
            "decoding_seconds": decoding,
            "fps": frames / sampling,
            "fps_with_vae": frames / (sampling + decoding),
        }


class Rates(Open):
    """What is shown of speed.json."""

    fps: PositiveFloat
    fps_with_vae: PositiveFloat
    latency_seconds: PositiveFloat | None = None


def speed_file(folder: Path, shard: Shard) -> Path:
    """Where the last call (of this part) that made clips left its frame rate."""
    plain = folder / "speed.json"
    return plain if shard == WHOLE else shard.store(plain)


def rates(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """What `speed_file` holds, if it is there."""
    path = speed_file(folder, shard)
    if not path.is_file():
        return None
    return read_json(path, Rates, "delete it and generate again").model_dump()
