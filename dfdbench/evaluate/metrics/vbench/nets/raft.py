"""How far the fastest pixels move between two frames, by RAFT; used by the families
vbench_dynamic_degree and vbench_static_filter.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow" (2003.12039): 20
updates of torchvision's network with the authors' raft-things.pth. Against VBench's loop a frame's
features are computed once, not once a pair, and only the last flow is brought to full size.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision.models.optical_flow import RAFT, raft_large
from torchvision.models.optical_flow.raft import upsample_flow

from dfdbench.evaluate.metrics.joint import Joint
from dfdbench.evaluate.metrics.vbench.nets.correlation import Correlation, grid
from dfdbench.evaluate.metrics.vbench.nets.pairs import batches, fit_together, padded, pixels
from dfdbench.evaluate.metrics.vbench.nets.weights import RAFT_THINGS, frozen

UPDATES = 20
MULTIPLE = 8  # sides are padded to it
LEVELS, RADIUS = 4, 4  # of the correlation pyramid
LAST = torch.channels_last

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
    network = raft_large(weights=None, progress=False)
    with RAFT_THINGS.tensors() as state:
        network.load_state_dict({renamed(k): v for k, v in state.items() if ".norm3." not in k})
    frozen(network, device)
    for module in (network.context_encoder, network.update_block, network.mask_predictor):
        module.to(memory_format=LAST)  # CPU convolutions take 13 % less time; instance norms more
    return network


class _Gru:
    """A convolutional GRU of the network for one pair of frames.

    Every gate convolves (state, context, motion). The context is the same in all updates, so its
    part is computed once, and the gates z and r in one convolution: 0.39 of 2.68 billion products
    an update less.
    """

    def __init__(self, cell: Any, context: Tensor) -> None:
        """cell: torchvision's ConvGRU. context: (B 128 h w)."""
        gates, size = (cell.convz, cell.convr, cell.convq), context.shape[1]
        state, constant, motion = torch.cat([g.weight for g in gates]).split(size, 1)
        self.padding = cell.convz.padding
        bias = torch.cat([g.bias for g in gates])
        fixed = conv2d(context, constant.contiguous(memory_format=LAST), bias, 1, self.padding)
        self.fixed_zr, self.fixed_q = fixed.split((2 * size, size), 1)
        varying = torch.cat((state, motion), 1)
        self.zr, self.q = (
            w.contiguous(memory_format=LAST) for w in varying.split((2 * size, size))
        )

    def __call__(self, state: Tensor, motion: Tensor) -> Tensor:
        """The next state (B 128 h w)."""
        zr = conv2d(torch.cat((state, motion), 1), self.zr, None, 1, self.padding)
        z, r = zr.add_(self.fixed_zr).sigmoid_().chunk(2, 1)
        q = conv2d(torch.cat((r * state, motion), 1), self.q, None, 1, self.padding)
        return state.lerp(q.add_(self.fixed_q).tanh_(), z)


def flow(network: RAFT, before: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The displacement of each pixel in pixels, x and y, after 20 updates: (B 2 H W).

    Args:
        before: the earlier frames (B 3 H W) from −1 to 1, sides divisible by 8, at least 128.
        first: their features (B 256 H/8 W/8) by `network.feature_encoder`. second: those of the
            later frames.
    """
    correlation, block = Correlation(first, second, LEVELS, RADIUS), network.update_block
    encoded = network.context_encoder(before)
    state, context = encoded.tensor_split([block.hidden_state_size], 1)
    state, context = state.tanh(), context.relu()
    cells = [_Gru(c, context) for c in block.recurrent_block.children()]
    start = grid(first.shape[2], first.shape[3], first.device)
    moved = torch.zeros_like(start).repeat(len(before), 1, 1, 1)
    for _ in range(UPDATES):
        motion = block.motion_encoder(moved, correlation(start + moved))
        for cell in cells:
            state = cell(state, motion)
        moved = moved + block.flow_head(state)
    return upsample_flow(moved, network.mask_predictor(state))


class Magnitudes:
    """Mean length of the longest flow vectors between frames, by one network for all threads."""

    def __init__(self, network: RAFT, share: float, shared: bool = False) -> None:
        """Args:
        share: part of the pixels that counts, the fastest.
        shared: join the pairs of clips in several threads.
        """
        self.device = str(next(network.parameters()).device)
        self._share, self._network = share, network
        fit = lambda images, *_: fit_together(images.shape[2:], images.device)  # noqa: E731
        self._encode = Joint(network.feature_encoder, lambda images: 2 * fit(images), shared)
        self._longest = Joint(self._lengths, fit, shared)

    def __call__(self, frames: np.ndarray, pairs: Sequence[tuple[int, int]]) -> Iterator[float]:
        """For each pair of frames that length in pixels, in order.

        Only what is asked for is computed, a batch of pairs at once. As in VBench the padded border
        counts.

        Args:
            frames: uint8 (T H W 3), sides of at least 121.
            pairs: numbers of the earlier and the later frame.
        """
        height, width = frames.shape[1:3]
        encoded = dict[int, tuple[Tensor, Tensor]]()
        for batch in batches(pairs, height, width, self.device):
            wanted = dict.fromkeys(i for pair in batch for i in pair)
            encoded = {i: encoded[i] for i in wanted if i in encoded}
            with torch.inference_mode():
                if new := [i for i in wanted if i not in encoded]:
                    images = padded(pixels(frames[new], self.device), MULTIPLE) / 255 * 2 - 1
                    features = self._encode(images)
                    encoded |= {i: (images[k], features[k]) for k, i in enumerate(new)}
                before, first = (torch.stack([encoded[i][k] for i, _ in batch]) for k in (0, 1))
                second = torch.stack([encoded[j][1] for _, j in batch])
                values = self._longest(before, first, second).tolist()
            yield from values

    def _lengths(self, before: Tensor, first: Tensor, second: Tensor) -> Tensor:
        length = flow(self._network, before, first, second).norm(dim=1).flatten(1)
        longest = length.topk(int(self._share * length.shape[1]), sorted=False).values
        return longest.double().mean(1).cpu()
