"""Rows of several threads in one pass: order, sizes, faults."""

import pytest
import torch
from joint_passes import all_at_once

from dfdbench.evaluate.metrics.joint import Joint


class Network:
    """Gives (a + 10 b, b) of rows; notes the rows of each pass; fails on a negative a."""

    def __init__(self):
        self.rows = []

    def __call__(self, a, b):
        self.rows.append(len(a))
        if (a < 0).any():
            raise ValueError(f"negative {a.min():g}")
        return torch.stack((a + 10 * b, b), 1)


def rows(start, count):
    a = torch.arange(start, start + count).float()
    return a, a + 0.5


def expected(start, count):
    a, b = rows(start, count)
    return torch.stack((a + 10 * b, b), 1)


def test_rows_of_all_threads_share_passes_and_come_back_in_order(monkeypatch):
    network = Network()
    joint = Joint(network, lambda a, b: 4, shared=True)
    asked = [(0, 3), (100, 6), (200, 1), (300, 2)]
    futures, widths = all_at_once(monkeypatch, lambda ask: joint(*rows(*ask)), asked)
    for ask, future in zip(asked, futures, strict=True):
        assert torch.equal(future.result(), expected(*ask))
    assert network.rows == [4, 4, 4] and max(widths) > 1
    assert joint._waiting == []


def test_what_is_at_fault_fails_alone_in_its_own_thread(monkeypatch):
    network = Network()
    joint = Joint(network, lambda a, b: 9, shared=True)
    asked = [(0, 2), (-7, 2), (200, 2), (-3, 1), (400, 2)]
    futures, _ = all_at_once(monkeypatch, lambda ask: joint(*rows(*ask)), asked)
    for ask, future in zip(asked, futures, strict=True):
        if ask[0] < 0:
            with pytest.raises(ValueError, match=f"negative {ask[0]}"):
                future.result()
        else:
            assert torch.equal(future.result(), expected(*ask))
    assert torch.equal(joint(*rows(5, 20)), expected(5, 20)), "it goes on, in as many passes"
    assert network.rows[-3:] == [9, 9, 2] and joint._waiting == []


def test_a_call_that_failed_has_none_of_its_other_rows_computed(monkeypatch):
    network = Network()
    joint = Joint(network, lambda a, b: 2, shared=True)
    futures, _ = all_at_once(monkeypatch, lambda ask: joint(*rows(*ask)), [(-50, 40), (0, 2)])
    with pytest.raises(ValueError, match="negative -50"):
        futures[0].result()
    assert torch.equal(futures[1].result(), expected(0, 2))
    assert len(network.rows) <= 4 and joint._waiting == []


def test_rows_of_another_size_are_another_pass_with_a_size_of_its_own(monkeypatch):
    shapes = []

    def network(x):
        shapes.append(tuple(x.shape))
        return x.flatten(1).sum(1)

    joint = Joint(network, lambda x: 12 // x.shape[1], shared=True)
    clips = [torch.ones(3, 2), torch.ones(3, 6), torch.ones(3, 2), torch.ones(1, 6)]
    futures, _ = all_at_once(monkeypatch, joint, clips)
    for clip, future in zip(clips, futures, strict=True):
        assert torch.equal(future.result(), clip.sum(1))
    assert sorted(shapes) == [(2, 6), (2, 6), (6, 2)]


def test_threads_that_do_not_share_compute_their_own_by_the_size():
    network = Network()
    found = Joint(network, lambda a, b: 3, shared=False)(*rows(0, 7))
    assert torch.equal(found, expected(0, 7)) and network.rows == [3, 3, 1]
    with pytest.raises(ValueError, match="negative"):
        Joint(network, lambda a, b: 3, shared=False)(*rows(-1, 1))


def test_no_gradients_are_kept():
    weight = torch.nn.Parameter(torch.ones(1))
    for shared in (True, False):
        assert not Joint(lambda x: x * weight, lambda x: 2, shared)(torch.ones(3)).requires_grad
