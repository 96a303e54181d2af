"""What every arm logs of DFD's validity condition, with paired and with unpaired clips."""

import pytest
import torch

from dfdbench.distill import diagnostics
from dfdbench.distill.data.clips import ClipsInMemory
from dfdbench.distill.loop import distill
from dfdbench.distill.methods import dfd, get_method
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import add_noise, score_from_v

CPU = torch.device("cpu")
LOGGED = ("probe_delta", "probe_delta2", "probe_distance2")


@pytest.mark.parametrize("policy", ["noised_real", "backward_simulation"])
@pytest.mark.parametrize("method", ["dmd2", "dfd", "regression"])
def test_the_discrepancy_is_that_of_the_batch_s_clips_and_g(tools, method, policy):
    """E‖Δ‖, E‖Δ‖² and ‖x − G‖² per element, from the teacher's scores at both points by hand."""
    recipe = tools.recipe(method, student={"input": policy})
    nets, batch, rng = tools.nets(), tools.batch(), Stream(0, 3, -1, CPU)
    generate = get_method(method).generate
    values, generated = diagnostics.discrepancy(generate, batch, nets, recipe, rng)
    with torch.no_grad():
        assert torch.equal(generated, generate(batch, nets, recipe, rng).x0)
        draw = rng.score_draw(generated, recipe.schedule)
        scores = []
        for clip in (batch.latents, generated):
            x_t = add_noise(clip, draw.eps, draw.t)
            v = nets.family.teacher(x_t, draw.t, batch.conditioning.prompt_embeds)
            scores.append(score_from_v(x_t, v, draw.t))
    square = ((scores[0] - scores[1]) ** 2).mean((1, 2, 3, 4))
    torch.testing.assert_close(values["probe_delta2"][1], square)
    torch.testing.assert_close(values["probe_delta"][1], square.sqrt())
    distance = ((batch.latents - generated) ** 2).mean((1, 2, 3, 4))
    torch.testing.assert_close(values["probe_distance2"][1], distance)
    for name in LOGGED:
        assert torch.equal(values[name][0], draw.t)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dmd2", "student.input=noised_real"),
        ("dfd", "student.input=backward_simulation"),
        ("regression", "student.input=noised_real"),
    ],
)
def test_every_arm_writes_all_three_by_noise_level(
    tiny_checkpoint, tmp_path, monkeypatch, name, change
):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    values = [f"model={tiny_checkpoint}", "data.count=8", "optim.batch=2", "log.every=1",
              "schedule.student_updates=1", "schedule.student_update_freq=2", "log.probe_every=1",
              "log.decode_every=0", "init.recipe=''", change]  # fmt: skip
    run = distill(load_recipe(f"toy/{name}", values), tmp_path / "run", device="cpu")
    (bins,) = run.metrics("bins")
    for key in (*LOGGED, "distance2"):
        assert len(bins[key]) == diagnostics.BINS and sum(bins[f"{key}_count"]) == 2
        assert any(value and value > 0 for value in bins[key])


def test_unpaired_clips_share_their_caption_with_g(tools, monkeypatch):
    """Every clip holds its caption's number, and so does every row that the teacher looks at."""
    captions = torch.arange(40) % 5
    latents = captions.view(-1, 1, 1, 1, 1).float().expand(40, *tools.shape).contiguous()
    embedded = Conditioning(torch.arange(5.0).view(-1, 1, 1))
    clips = ClipsInMemory(latents, captions, embedded, 0, CPU)
    recipe = tools.recipe("dfd", dfd={"p": 1.0}, student={"input": "backward_simulation"},
                          schedule={"t_low": 1e-6, "t_high": 2e-6})  # fmt: skip
    for iteration in range(4):
        nets, looks = tools.nets(cfg=1.0), {}
        predict = nets.family.predict

        def noting(module, x_t, t, conditioning, predict=predict, looks=looks):
            looks[module] = (x_t, conditioning.prompt_embeds.flatten())
            return predict(module, x_t, t, conditioning)

        monkeypatch.setattr(nets.family, "predict", noting)
        batch = clips.batch(iteration * 8, 8)
        dfd.student_loss(batch, nets, recipe, Stream(0, iteration, 0, CPU))
        seen, text = looks[nets.family.teacher]
        assert torch.equal(seen.mean((1, 2, 3, 4)).round(), text), "x has its row's caption"
        assert not torch.equal(looks[nets.student][0], batch.latents), "made from noise"
        for network in (nets.student, nets.fake_score):
            assert torch.equal(looks[network][1], text), "and G was made for the same"
