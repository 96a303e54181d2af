import torch

from dfdbench.distill.sections import Schedule
from dfdbench.distill.streams import Stream

CPU = torch.device("cpu")


def test_draws_depend_on_seed_iteration_round_and_name():
    like = torch.zeros(2, 8)
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b")]
    draws = [Stream(s, i, r, CPU).normal(name, like) for s, i, r, name in keys]
    assert len({float(d.sum()) for d in draws}) == len(keys)
    assert torch.equal(draws[0], Stream(0, 0, 0, CPU).normal("a", like))


def test_one_draw_disturbs_no_other():
    like = torch.zeros(2, 8)
    plain, busy = Stream(0, 3, 0, CPU), Stream(0, 3, 0, CPU)
    busy.bernoulli("real_clip", 0.5)
    busy.integers("other", 4, 2)
    assert torch.equal(plain.normal("eps", like), busy.normal("eps", like))


def test_coin_is_one_for_the_whole_update_and_fair_over_updates():
    coins = [[Stream(0, i, r, CPU).bernoulli("c", 0.3) for r in range(3)] for i in range(2000)]
    assert all(len(set(rounds)) == 1 for rounds in coins)
    assert abs(sum(rounds[0] for rounds in coins) / 2000 - 0.3) < 0.03
    assert not any(Stream(0, i, 0, CPU).bernoulli("c", 0.0) for i in range(200))
    assert all(Stream(0, i, 0, CPU).bernoulli("c", 1.0) for i in range(200))


def test_score_draw_gives_each_sample_its_own_time_within_the_clamp():
    draw = Stream(0, 0, 0, CPU).score_draw(torch.zeros(500, 2), Schedule(t_low=0.1, t_high=0.9))
    assert len(draw.t.unique()) > 200 and draw.t.min() >= 0.1 and draw.t.max() <= 0.9
    assert draw.eps.shape == (500, 2)
