"""How far the fastest pixels move between two frames, by RAFT; used by the families
vbench_dynamic_degree and vbench_static_filter.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow" (2003.12039): 20
updates of torchvision's network with the authors' raft-things.pth. Against VBench's loop a frame's
features are computed once, not once a pair, and only the last flow is brought to full size.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models.optical_flow import RAFT, raft_large
from torchvision.models.optical_flow.raft import CorrBlock, make_coords_grid, upsample_flow

from dfdbench.vbench.pairs import batches, padded, pixels
from dfdbench.vbench.weights import read_state, vbench_file, vbench_unusable

UPDATES = 20
MULTIPLE = 8  # sides are padded to it
LEVELS, RADIUS = 4, 4  # of the correlation pyramid
WHAT = "RAFT trained on FlyingChairs and FlyingThings3D"

# From the authors' names to torchvision's, one after the other. norm3 is downsample.1 again.
RENAMED = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"\.encoder\.conv\.", ".motion_encoder.conv.0."),
    (r"\.encoder\.convc(\d)\.", r".motion_encoder.convcorr\1.0."),
    (r"\.encoder\.convf(\d)\.", r".motion_encoder.convflow\1.0."),
    (r"\.gru\.conv(\w)(\d)\.", r".recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


def raft_file() -> Path:
    """The authors' checkpoint in VBench's cache.

    Raises:
        MissingWeights: it is not there.
    """
    return vbench_file("raft_model/models/raft-things.pth", what=WHAT)


def renamed(name: str) -> str:
    """torchvision's name of a tensor of the authors' checkpoint."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def load_raft(device: str) -> RAFT:
    """The network with the authors' weights, all of them, in evaluation mode.

    Raises:
        MissingWeights: the checkpoint is not here.
        UserError: it is another one.
    """
    file, network = raft_file(), raft_large(weights=None, progress=False)
    state = {renamed(k): v for k, v in read_state(file, WHAT).items() if ".norm3." not in k}
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise vbench_unusable(file, f"the checkpoint of {WHAT}") from error
    return network.eval().requires_grad_(False).to(device)


def flow(network: RAFT, before: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The displacement of each pixel in pixels, x and y, after 20 updates: (B 2 H W).

    Args:
        before: the earlier frames (B 3 H W) from −1 to 1, sides divisible by 8, at least 128.
        first: their features (B 256 H/8 W/8) by `network.feature_encoder`. second: those of the
            later frames.
    """
    # The network's own block keeps the pyramid of its last call, so threads cannot share it.
    correlation = CorrBlock(num_levels=LEVELS, radius=RADIUS)
    correlation.build_pyramid(first, second)
    size = network.update_block.hidden_state_size
    state, context = network.context_encoder(before).tensor_split([size], 1)
    state, context = state.tanh(), context.relu()
    start = make_coords_grid(len(before), *first.shape[-2:], device=str(before.device))
    coordinates = start
    for _ in range(UPDATES):
        found = correlation.index_pyramid(coordinates)
        state, change = network.update_block(state, context, found, coordinates - start)
        coordinates = coordinates + change
    return upsample_flow(coordinates - start, network.mask_predictor(state))


def magnitudes(
    network: RAFT, frames: np.ndarray, pairs: Sequence[tuple[int, int]], share: float
) -> Iterator[float]:
    """For each pair of frames the mean length of its longest flow vectors, in pixels, in order.

    Only what is asked for is computed, a batch of pairs at once. As in VBench the padded border
    counts.

    Args:
        frames: uint8 (T H W 3), sides of at least 121.
        pairs: numbers of the earlier and the later frame.
        share: part of the pixels that counts, the fastest.
    """
    device = str(next(network.parameters()).device)
    height, width = frames.shape[1:3]
    known = dict[int, tuple[Tensor, Tensor]]()
    for batch in batches(pairs, height, width, device):
        wanted = dict.fromkeys(i for pair in batch for i in pair)
        known = {i: known[i] for i in wanted if i in known}
        with torch.inference_mode():
            if new := [i for i in wanted if i not in known]:
                images = padded(pixels(frames[new], device), MULTIPLE) / 255 * 2 - 1
                features = network.feature_encoder(images)
                known |= {i: (images[k], features[k]) for k, i in enumerate(new)}
            before, first = (torch.stack([known[i][k] for i, _ in batch]) for k in (0, 1))
            second = torch.stack([known[j][1] for _, j in batch])
            length = flow(network, before, first, second).norm(dim=1).flatten(1)
            longest = length.topk(int(share * length.shape[1]), sorted=False).values
            values = longest.double().mean(1).tolist()
        yield from values
