import torch

from dfdbench.distill.sections import Schedule
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import sample_t

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


def test_coins_of_a_round_are_its_own_and_fair():
    drawn = torch.stack(
        [Stream(0, i, r, CPU).bernoullis("c", 0.3, 8) for i in range(300) for r in range(2)]
    )
    assert drawn.dtype == torch.bool and abs(drawn.float().mean() - 0.3) < 0.02
    one, two = drawn[::2], drawn[1::2]
    assert 0.05 < (one & two).float().mean() < 0.13, "rounds and clips are independent"
    again = Stream(0, 5, 1, CPU).bernoullis("c", 0.3, 8)
    assert torch.equal(drawn[11], again), "whichever process does the round"
    assert not Stream(0, 0, 0, CPU).bernoullis("c", 0.0, 500).any()
    assert Stream(0, 0, 0, CPU).bernoullis("c", 1.0, 500).all()


def test_one_time_is_one_for_all_samples_and_rounds_of_an_iteration():
    schedule, like = Schedule(one_time=True, t_low=0.05, t_high=0.95), torch.zeros(4, 2)
    draws = [
        [Stream(0, i, r, CPU).score_draw(like, schedule) for r in range(3)] for i in range(400)
    ]
    for rounds in draws:
        assert len({t for draw in rounds for t in draw.t.tolist()}) == 1
        assert not torch.equal(rounds[0].eps, rounds[1].eps), "noise stays each round's own"
    times = torch.tensor([rounds[0].t[0] for rounds in draws])
    assert len(times.unique()) > 300 and times.min() >= 0.05 and times.max() <= 0.95
    usual = sample_t(20000, torch.Generator().manual_seed(0), schedule.shift, 0.05, 0.95)
    assert abs(times.mean() - usual.mean()) < 4 * usual.std() / 20, "of the same distribution"


def test_without_one_time_draws_are_what_they_were():
    like = torch.zeros(3, 2)
    plain = Stream(7, 3, 1, CPU).score_draw(like, Schedule())
    old = sample_t(3, Stream(7, 3, 1, CPU).generator("score_t"), 5.0, 0.001, 0.999)
    assert torch.equal(plain.t, old)
    assert torch.equal(plain.eps, Stream(7, 3, 1, CPU).normal("score_eps", like))
