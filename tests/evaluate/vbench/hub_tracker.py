"""A stand-in for CoTracker's repository in torch hub's cache: it follows the brightest spot.

The grid of points moves as one, by the way of the brightest pixel, and apart by the change of the
mean brightness: pans, tilts and zooms can be made with it. One weight scales the way.
"""

from pathlib import Path

import torch

HUBCONF = """
import torch

class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

class Tracker(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Inner()

    def forward(self, video, grid_size):
        frames, height, width = video.shape[1], *video.shape[-2:]
        places = video[0].mean(1).flatten(1).argmax(1)
        spot = torch.stack((places % width, places // width), -1).float()
        way = (spot - spot[0]) * self.model.scale
        y = torch.linspace(0.4, height - 1.4, grid_size)
        x = torch.linspace(0.4, width - 1.4, grid_size)
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2)
        centre = torch.tensor([width, height]) / 2
        growth = (video[0].mean((1, 2, 3)) / video[0, 0].mean() - 1)[:, None, None]
        tracks = grid + way[:, None] + (grid - centre) * growth
        return tracks[None], torch.ones(1, frames, grid_size**2)

def cotracker2(*, pretrained=True, **kwargs):
    tracker = Tracker()
    if pretrained:
        state = torch.load(CHECKPOINT)
        tracker.model.load_state_dict(state)
    return tracker
"""


def write_hub(torch_home: Path, scale: float = 1.0) -> Path:
    """The repository and its checkpoint below $TORCH_HOME; returns the repository."""
    checkpoint = torch_home / "hub" / "checkpoints" / "cotracker2.pth"
    repository = torch_home / "hub" / "facebookresearch_co-tracker_main"
    checkpoint.parent.mkdir(parents=True)
    repository.mkdir()
    torch.save({"scale": torch.tensor([scale])}, checkpoint)
    text = HUBCONF.replace("CHECKPOINT", repr(str(checkpoint)))
    (repository / "hubconf.py").write_text(text, encoding="utf-8")
    return repository
