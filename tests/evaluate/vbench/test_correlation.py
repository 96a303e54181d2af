"""The parts of RAFT and AMT-S that are computed in another way than by their own code."""

import pytest
import torch
from torchvision.models.optical_flow.raft import ConvGRU, CorrBlock, make_coords_grid

from dfdbench.evaluate.metrics.vbench.motion_smoothness import both_ways
from dfdbench.evaluate.metrics.vbench.nets.correlation import Correlation, grid
from dfdbench.evaluate.metrics.vbench.nets.raft import _Gru


def maps(batch: int = 2, channels: int = 12, height: int = 17, width: int = 22):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, batch, channels, height, width, generator=generator)


def test_the_windows_are_those_of_torchvisions_block():
    first, second = maps()
    # beyond every border, between pixels, and different in x and y
    places = make_coords_grid(2, 17, 22) * 1.7 + torch.tensor([-6.3, -2.6])[:, None, None]
    block = CorrBlock(num_levels=4, radius=3)
    block.build_pyramid(first, second)
    found = Correlation(first, second, levels=4, radius=3)(places)
    torch.testing.assert_close(found, block.index_pyramid(places), atol=1e-5, rtol=0)


def test_places_start_at_each_pixel_itself():
    assert torch.equal(grid(17, 22, torch.device("cpu")), make_coords_grid(1, 17, 22))


def test_both_ways_look_from_the_first_frame_into_the_second_and_back():
    first, second = maps(batch=1)
    right, down = (
        grid(17, 22, first.device) + torch.tensor(d)[:, None, None] for d in ([3, 0], [0, 5])
    )
    forth, back = both_ways(first, second, radius=3, num_levels=4)(right, down)
    centre = 7 * 7 // 2
    expected = (first[..., :-3] * second[..., 3:]).sum(1) / 12**0.5
    torch.testing.assert_close(forth[:, centre, :, :-3], expected, atol=1e-5, rtol=0)
    expected = (second[:, :, :-5] * first[:, :, 5:]).sum(1) / 12**0.5
    torch.testing.assert_close(back[:, centre, :-5], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel, padding", [((1, 5), (0, 2)), ((5, 1), (2, 0))])
def test_the_split_cell_is_the_whole_one(kernel, padding):
    torch.manual_seed(0)
    cell = ConvGRU(input_size=16, hidden_size=8, kernel_size=kernel, padding=padding)
    state, context = torch.randn(2, 2, 8, 9, 11)
    with torch.inference_mode():
        split = _Gru(cell, context)
        for _ in range(3):
            motion = torch.randn(2, 8, 9, 11)
            expected = cell(state, torch.cat((context, motion), 1))
            state = split(state, motion)
            torch.testing.assert_close(state, expected, atol=1e-6, rtol=0)
