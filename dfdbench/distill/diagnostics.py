"""What training logs: losses, bins over the noise level, and probes of the discrepancy.

Used by the loop. Values stay on the device until a flush, so that no step waits for a number.
Probes cost passes of their own and therefore run only now and then (`log` section of the recipe).
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import Generator
from dfdbench.distill.losses import per_sample
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.parallel import Group
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, cfg_combine, score_from_v, shift_time
from dfdbench.models.sampling import decode_clips, predictor
from dfdbench.utils.files import disk_faults
from dfdbench.utils.video import LUMA

BINS = 10


class Recorder:
    """Collects tensors of each student update and writes them as lines of metrics.jsonl.

    Of several processes the first writes; their values are put together at a flush and not before.
    """

    def __init__(self, path: Path, shift: float, group: Group) -> None:
        self.path, self.group = path, group
        # Bins that the shifted-uniform score times fill equally.
        edges = shift_time(torch.linspace(0, 1, BINS + 1, dtype=torch.float64), shift)
        self.edges = [round(edge, 6) for edge in edges.tolist()]
        self.inner = edges[1:-1].float().to(group.device)
        self.lines: list[dict[str, Any]] = []
        self._reset_bins()

    def _reset_bins(self) -> None:
        self.sums: dict[str, Tensor] = defaultdict(lambda: self.inner.new_zeros(2, BINS))

    def add_bins(self, report: LossReport, ours: bool = True) -> None:
        """Add a report's per-sample values to their bins of t; not `ours`: another process does."""
        for name, (t, value) in report.bins.items():
            row = torch.bucketize(t.detach().float(), self.inner)
            pair = torch.stack([value.float(), torch.ones_like(value, dtype=torch.float32)])
            sums = self.sums[name]
            if ours:
                sums.index_add_(1, row, pair)

    def add_line(self, kind: str, update: int, values: dict[str, Any]) -> None:
        """Keep a line whose values may be tensors."""
        self.lines.append({"kind": kind, "update": update, **values})

    def flush(self, update: int) -> list[str]:
        """Append everything kept to the file; returns the names of values that are not finite.

        With several processes all of them call it, and all get the same answer.
        """
        if self.group.size > 1:
            self._gather()
        if self.sums:
            self.add_line("bins", update, {"t_edges": self.edges} | self._bin_values())
            self._reset_bins()
        tensors = [v.reshape(-1) for line in self.lines for v in line.values() if _is_tensor(v)]
        flat = iter(torch.cat([t.float() for t in tensors]).tolist() if tensors else [])
        broken, rows = [], []
        for line in self.lines:
            plain: dict[str, Any] = {}
            for name, value in line.items():
                if _is_tensor(value):
                    numbers = [_number(next(flat)) for _ in range(value.numel())]
                    if None in numbers and line["kind"] == "update":
                        broken.append(f"{name} at update {line['update']}")
                    value = numbers if value.ndim else numbers[0]
                plain[name] = value
            rows.append(json.dumps(plain, allow_nan=False) + "\n")
        self.lines = []
        if rows and self.group.is_main:
            with disk_faults(self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(rows))
        return broken

    def _gather(self) -> None:
        """Average the updates' values over processes and add up the bins."""
        logged = [
            (line, name)
            for line in self.lines
            if line["kind"] == "update"
            for name, value in line.items()
            if _is_tensor(value)
        ]
        if logged:
            values = torch.stack([line[name].float() for line, name in logged])
            for (line, name), value in zip(logged, self.group.mean(values), strict=True):
                line[name] = value
        if self.sums:
            total = self.group.total(torch.stack([*self.sums.values()]))
            self.sums |= dict(zip(self.sums, total, strict=True))

    def _bin_values(self) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for name, (total, count) in self.sums.items():
            values[name], values[f"{name}_count"] = total / count, count  # empty bins become null
        return values


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


@torch.no_grad()
def discrepancy(
    generate: Generator, batch: Batch, nets: Networks, recipe: Recipe, rng: Stream
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Teacher score discrepancy Δ = s_T(x_t) − s_T(x̃_t) with shared t and ε (DFD 2606.18478).

    Args:
        generate: the method's way to make G.

    Returns:
        Per-sample values with their t: root and mean square per element of Δ without guidance and
        with it, and ‖x − G‖² per element; and G (B C T H W).
    """
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    points = [add_noise(x, draw.eps, draw.t) for x in (batch.latents, generated.x0)]
    with nets.precision():
        free, guided = [], []
        for x_t in points:
            family, teacher = nets.family, nets.family.teacher
            v = predictor(family, teacher, batch.conditioning)(x_t, draw.t)
            free.append(score_from_v(x_t, v, draw.t))
            if nets.cfg != 1:
                negative = nets.negative.repeat(len(x_t)).given(batch.conditioning.image_latents)
                v = cfg_combine(v, predictor(family, teacher, negative)(x_t, draw.t), nets.cfg)
            guided.append(score_from_v(x_t, v, draw.t))
    values = {"distance2": per_sample(nets.free(batch.latents - generated.x0) ** 2)}
    for name, (real, fake) in (("delta", free), ("delta_guided", guided)):
        square = per_sample(nets.free(real - fake) ** 2)
        values |= {name: square.sqrt(), f"{name}2": square}
    return {f"probe_{name}": (draw.t, value) for name, value in values.items()}, generated.x0


def pixel_statistics(video: Tensor) -> dict[str, Tensor]:
    """Mean HSV saturation and RMS contrast (std of Rec. 709 luma within a frame), both in [0, 1].

    Args:
        video: (B 3 T H W) in [−1, 1].
    """
    rgb = (video.float() + 1) / 2
    high, low = rgb.amax(1), rgb.amin(1)
    saturation = torch.where(high > 0, (high - low) / high.clamp(min=1e-6), 0.0)
    luma = torch.einsum("bcthw,c->bthw", rgb, torch.from_numpy(LUMA).to(rgb))
    return {"saturation": saturation.mean(), "contrast": luma.flatten(2).std(2).mean()}


@torch.no_grad()
def decoded_look(nets: Networks, generated: Tensor, real: Tensor, count: int) -> dict[str, Tensor]:
    """Saturation and contrast of a few decoded G beside those of the real clips they pair with."""
    latents = torch.cat([generated[:count], real[:count]])
    video = torch.stack([*decode_clips(nets.family, latents)])
    parts = zip(("generated", "real"), video.chunk(2), strict=True)
    return {
        f"{name}_{side}": value
        for side, clips in parts
        for name, value in pixel_statistics(clips).items()
    }
