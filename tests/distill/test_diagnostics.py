import colorsys
import json

import pytest
import torch

from dfdbench.distill import diagnostics
from dfdbench.distill.inputs import Generated
from dfdbench.distill.nets import LossReport
from dfdbench.distill.parallel import Group
from dfdbench.distill.streams import Stream
from dfdbench.utils.files import trim_jsonl

CPU = torch.device("cpu")


def report(t, value):
    return LossReport(torch.zeros(()), {}, {"value": (torch.tensor(t), torch.tensor(value))})


def test_bins_average_each_value_in_its_bin_of_t(tmp_path):
    recorder = diagnostics.Recorder(tmp_path / "m.jsonl", 1.0, Group())  # shift 1: tenths
    recorder.add_bins(report([0.05, 0.07, 0.95], [1.0, 3.0, 5.0]))
    recorder.add_bins(report([0.55], [7.0]))
    assert recorder.flush(4) == []
    (line,) = map(json.loads, (tmp_path / "m.jsonl").read_text().splitlines())
    assert line["kind"] == "bins" and line["update"] == 4
    assert line["value"] == [2.0, None, None, None, None, 7.0, None, None, None, 5.0]
    assert line["value_count"] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    recorder.flush(5)
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 1, "nothing new, nothing written"


def test_bins_are_filled_equally_by_the_score_times(tmp_path):
    from dfdbench.models.flow import sample_t

    recorder = diagnostics.Recorder(tmp_path / "m.jsonl", 5.0, Group())
    t = sample_t(20000, torch.Generator().manual_seed(0), 5.0)
    counts = torch.bucketize(t, recorder.inner).bincount(minlength=10)
    assert counts.min() > 1800 and counts.max() < 2200


def test_values_that_are_not_finite_are_named_and_written_as_null(tmp_path):
    recorder = diagnostics.Recorder(tmp_path / "m.jsonl", 5.0, Group())
    recorder.add_line("update", 3, {"matching": torch.tensor(float("nan")), "other": 1.0})
    assert recorder.flush(3) == ["matching at update 3"]
    assert json.loads((tmp_path / "m.jsonl").read_text())["matching"] is None


def test_trim_drops_what_a_resumed_run_does_again_and_a_torn_line(tmp_path):
    path = tmp_path / "m.jsonl"
    lines = [json.dumps({"kind": "update", "update": i}) + "\n" for i in range(1, 5)]
    path.write_text("".join(lines) + '{"kind": "upd')
    trim_jsonl(path, "update", 2)
    assert path.read_text() == "".join(lines[:2])
    trim_jsonl(tmp_path / "none.jsonl", "update", 2)


def test_discrepancy_is_zero_for_a_student_that_reproduces_the_clip(tools):
    batch, nets = tools.batch(), tools.nets()
    copy = lambda batch, nets, recipe, rng: Generated(batch.latents, torch.ones(6))  # noqa: E731
    values, _ = diagnostics.discrepancy(copy, batch, nets, tools.recipe(), Stream(0, 0, 0, CPU))
    assert all((value == 0).all() for _, value in values.values())


def test_discrepancy_of_a_linear_teacher_is_its_slope_times_the_shift(tools):
    """v = a x + …, so Δ = −(1 + (1−t) a)(x_t − x̃_t)/t with x_t − x̃_t = (1−t)·shift, by hand."""
    batch, nets = tools.batch(), tools.nets()
    shifted = lambda batch, nets, recipe, rng: Generated(batch.latents - 2.0, None)  # noqa: E731
    values, _ = diagnostics.discrepancy(shifted, batch, nets, tools.recipe(), Stream(0, 0, 0, CPU))
    t, delta = values["probe_delta"]
    expected = (1 + (1 - t) * 0.4) * (1 - t) * 2.0 / t
    torch.testing.assert_close(delta, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(values["probe_delta2"][1], expected**2, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(values["probe_distance2"][1], torch.full((6,), 4.0))


def test_pixel_statistics_agree_with_colorsys_and_numbers_by_hand():
    rgb = torch.tensor([[0.9, 0.2, 0.4], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.1, 0.8, 0.3]])
    video = (rgb.T.reshape(1, 3, 1, 2, 2) * 2) - 1
    expected = sum(colorsys.rgb_to_hsv(*pixel)[1] for pixel in rgb.tolist()) / 4
    found = diagnostics.pixel_statistics(video)
    assert found["saturation"].item() == pytest.approx(expected, abs=1e-6)
    luma = rgb @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert found["contrast"].item() == pytest.approx(luma.std().item(), abs=1e-6)
