import json

import pytest
import torch
from safetensors.torch import save_file

from dfdbench.utils.errors import UserError
from dfdbench.utils.folders import atomic_folder, sweep
from dfdbench.utils.run import Run, weights_sha256


def test_a_created_run_reopens_with_provenance(tmp_path):
    run = Run.create(tmp_path / "r", {"arm": "dfd", "method": "dfd", "training_seed": 3})
    run.update(student_updates=7)
    again = Run.open(tmp_path / "r")
    assert again.arm == "dfd" and again.training_seed == 3 and not again.finished
    assert again.info["student_updates"] == 7
    assert torch.__version__.startswith(again.info["versions"]["torch"])
    assert len(again.info["code"]["sha256"]) == 64


def test_teacher_and_real_arms_have_no_training_seed(tmp_path):
    assert Run.create(tmp_path, {"arm": "real", "method": "real"}).training_seed is None


def test_a_run_folder_is_not_overwritten_or_guessed(tmp_path):
    with pytest.raises(UserError, match=r"no run\.json"):
        Run.open(tmp_path)
    Run.create(tmp_path, {"arm": "a", "method": "a"})
    with pytest.raises(UserError, match="already holds a run"):
        Run.create(tmp_path, {"arm": "a", "method": "a"})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        Run.open(tmp_path)


def test_metrics_lines_filter_by_kind(tmp_path):
    run = Run.create(tmp_path, {"arm": "a", "method": "a"})
    assert list(run.metrics()) == []
    lines = [{"kind": "update", "update": 1}, {"kind": "probe", "update": 1}]
    run.metrics_file.write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert list(run.metrics("probe")) == lines[1:]


def test_weights_hash_changes_with_any_weight_or_shard(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "m-1.safetensors")
    one = weights_sha256(tmp_path)
    save_file({"b": torch.zeros(2)}, tmp_path / "m-2.safetensors")
    two = weights_sha256(tmp_path)
    save_file({"b": torch.ones(2)}, tmp_path / "m-2.safetensors")
    assert len({one, two, weights_sha256(tmp_path)}) == 3


def test_an_interrupted_folder_write_leaves_the_old_one(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "x").write_text("half")
        raise RuntimeError
    assert (target / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    (tmp_path / ".folder.killed").mkdir()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
