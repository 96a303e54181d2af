"""The loop of README: the clips of one prompt, the same seeds in every arm, on one clock.

    python benchmarks/seed_loop.py runs/study-toy-main --out results/toy/figures/seed-loop.webp

Takes scored runs, as `dfdbench report` does, and draws the report's seed grid once a frame. --arms
chooses rows (teacher dmd2 dmd2_control dfd), --prompt the caption. The end of the file's name
chooses the format, .webp or .gif.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dfdbench.report.collect import collect
from dfdbench.report.figures import grid_prompt, seed_grid
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path
from dfdbench.utils.video import read_video

ARMS = ("teacher", "dmd2", "dmd2_control", "dfd")
WIDTH = 880  # pixels of the picture
FORMATS = (".webp", ".gif")


def picture(figure: Figure) -> Image.Image:
    """A figure as a picture WIDTH pixels wide."""
    figure.set_dpi(WIDTH / figure.get_figwidth())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def write_loop(
    sources: list[Path], out: Path, arms: tuple[str, ...] = ARMS, prompt: str | None = None
) -> Path:
    """Write the loop; returns `out`.

    Raises:
        UserError: a source without scores, an arm or a prompt that is not there, another format.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"--out {out}: name a file that ends in {' or '.join(FORMATS)}")
    collected = collect(sources)
    absent = set(arms) - set(collected.clips["arm"])
    if absent:
        known = ", ".join(sorted(set(collected.clips["arm"])))
        raise UserError(f"--arms {' '.join(sorted(absent))}: not among the runs; known: {known}")
    clips = collected.clips[collected.clips["arm"].isin(arms)]
    chosen = grid_prompt(clips, prompt)
    collected = replace(collected, clips=clips)
    video = read_video(clips[clips["prompt_id"] == chosen]["path"].iloc[0])
    frames = []
    for index in range(len(video.frames)):
        grid = seed_grid(collected, chosen, index)
        assert grid is not None  # its clips were just found
        frames.append(picture(grid))
    with atomic_path(out) as temporary:
        frames[0].save(
            temporary, format=out.suffix[1:], save_all=True, append_images=frames[1:],
            duration=round(1000 / video.fps), loop=0, quality=80, method=6,
        )  # fmt: skip
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("seed-loop.webp"))
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--prompt")
    arguments = parser.parse_args()
    try:
        print(write_loop(arguments.runs, arguments.out, tuple(arguments.arms), arguments.prompt))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
