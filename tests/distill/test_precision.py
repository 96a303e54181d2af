"""Mixed precision as on CUDA, run here through the CPU's autocast."""

import torch

from dfdbench.distill.batch import Batch
from dfdbench.distill.methods import dmd2
from dfdbench.distill.nets import Networks
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import student_times
from dfdbench.models.registry import load_family

CPU = torch.device("cpu")


def make(family, autocast):
    g = torch.Generator().manual_seed(0)
    nets = Networks(
        family=family,
        student=family.new_module(),
        fake_score=family.new_module(),
        negative=Conditioning(torch.zeros(1, 16, 64)),
        cfg=3.0,
        times=student_times(4, 5.0),
        autocast=autocast,
    )
    with torch.no_grad():  # a fresh fake score is the teacher, and f − r would be guidance alone
        nets.fake_score.proj_out.bias += 0.5
    batch = Batch(
        torch.randn(4, *family.latent_shape(17, 64, 64), generator=g),
        Conditioning(torch.randn(4, 16, 64, generator=g)),
    )
    return nets, batch


def test_bfloat16_compute_keeps_float32_masters_and_close_gradients(tiny_checkpoint, tiny_family):
    recipe = load_recipe("toy/dmd2")
    found = {}
    half = load_family(tiny_checkpoint, torch.bfloat16)
    assert half.teacher.proj_out.weight.dtype == torch.bfloat16
    for name, family, autocast in (
        ("full", tiny_family, None),
        ("half", half, torch.bfloat16),
    ):
        nets, batch = make(family, autocast)
        report = dmd2.student_loss(batch, nets, recipe, Stream(0, 0, 0, CPU))
        report.loss.backward()
        grads = [p.grad for p in nets.student.parameters()]
        assert all(p.dtype == torch.float32 for p in nets.student.parameters())
        assert all(g.dtype == torch.float32 for g in grads)
        assert report.loss.dtype == torch.float32
        found[name] = torch.cat([g.flatten() for g in grads])
    cosine = torch.nn.functional.cosine_similarity(found["full"], found["half"], dim=0)
    assert cosine > 0.99
    assert not torch.equal(found["full"], found["half"])


def test_the_teacher_computes_as_it_is_held_and_trained_networks_by_autocast(tiny_checkpoint):
    family = load_family(tiny_checkpoint, torch.bfloat16)
    (on, batch), (off, _) = make(family, torch.bfloat16), make(family, None)
    t = torch.tensor([0.999, 0.7, 0.3, 0.1])
    given = batch.latents, t, batch.conditioning
    assert torch.equal(on.teacher_v(*given, 3.0), off.teacher_v(*given, 3.0))
    on.blocks = off.blocks = (1,)
    features = [nets.with_features(family.teacher, *given)[1][0] for nets in (on, off)]
    assert torch.equal(*features) and features[0].dtype == torch.bfloat16
    with torch.no_grad():
        assert not torch.equal(on.fake_score_v(*given), off.fake_score_v(*given))


def test_a_bfloat16_teacher_still_tells_neighbouring_times_apart(tiny_checkpoint):
    family = load_family(tiny_checkpoint, torch.bfloat16)
    x = torch.randn(1, *family.latent_shape(17, 64, 64), generator=torch.Generator().manual_seed(0))
    cond = Conditioning(torch.zeros(1, 16, 64))
    seen = []
    hook = family.teacher.condition_embedder.timesteps_proj.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].item())
    )
    for t in (0.999, 0.998):
        family.predict(family.teacher, x, torch.tensor([t]), cond)
    hook.remove()
    assert abs(seen[0] - 999) < 1e-3 and abs(seen[1] - 998) < 1e-3
