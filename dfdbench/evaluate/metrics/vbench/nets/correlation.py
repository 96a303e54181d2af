"""All-pairs correlation of two feature maps and its values around given places.

Teed and Deng, "RAFT" (2003.12039), section 3.2. Used by raft.py and, twice a pair of frames, by
AMT-S in vbench/motion_smoothness.py. Correlation is linear in the later map, so coarser
levels come from pooled features: pooling the finest level, as both networks' own code does, reads
0.16 GB at 832 × 480, and a transposed copy of it for the other direction costs as much again.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel lies, x and y: (1 2 height width)."""
    y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


class Correlation:
    """⟨a, b⟩ / √C of a feature in one map with those in another, which is halved level by level."""

    def __init__(self, first: Tensor, second: Tensor, levels: int, radius: int) -> None:
        """Args:
        first, second: (B C h w) of one size, at least 2^levels a side.
        levels: of the pyramid. radius: of the window that is looked at, in pixels of each level.
        """
        rows = (first * first.shape[1] ** -0.5).flatten(2).transpose(1, 2)
        self.pyramid = list[Tensor]()
        for level in range(levels):
            second = avg_pool2d(second, 2) if level else second
            volume = rows @ second.flatten(2)
            self.pyramid.append(volume.view(-1, 1, *second.shape[-2:]))
        steps = torch.arange(-radius, radius + 1, device=first.device, dtype=torch.float32)
        # as in both networks: x runs down the window, y across
        self.window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)

    def __call__(self, places: Tensor) -> Tensor:
        """Values around the place of each pixel, linear between pixels, 0 outside.

        Args:
            places: x and y in pixels of the finest level (B 2 h w).

        Returns:
            (B levels·(2·radius + 1)² h w), channels last in memory.
        """
        batch, _, height, width = places.shape
        centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        windows = list[Tensor]()
        for level, volume in enumerate(self.pyramid):
            # pixels to −1 … 1: scaled before the windows are spread out, 80 times fewer numbers
            scale = 2 / (centres.new_tensor(volume.shape[:-3:-1]) - 1)
            spots = (centres * (scale / 2**level) - 1) + self.window * scale
            values = grid_sample(volume, spots, align_corners=True)
            windows.append(values.view(batch, height, width, -1))
        return torch.cat(windows, -1).permute(0, 3, 1, 2)
