import json

import pytest
import torch
from safetensors.torch import save_file

from dfdbench.utils.errors import UserError
from dfdbench.utils.folders import atomic_folder
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
    with pytest.raises(UserError, match="not JSON"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"{", b"null", b"[]", b"{}", '{"arm": "a", "method": "a"}'.encode("utf-16"),
     b'{"arm": "a", "method": "a", "format": 99}', b'{"arm": 1, "method": "a"}'],
)  # fmt: skip
def test_a_run_file_that_cannot_be_read_is_one_line_that_does_no_harm(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        Run.open(tmp_path)
    says = str(caught.value)
    assert says.startswith(f"{tmp_path / 'run.json'}: ") and "\n" not in says
    assert "delete" not in says
    assert (tmp_path / "run.json").read_bytes() == content


def test_fields_that_others_add_to_a_run_file_are_kept(tmp_path):
    (tmp_path / "run.json").write_text('{"arm": "a", "method": "a", "mine": {"x": 1}}')
    run = Run.open(tmp_path)
    run.update(status="finished")
    assert Run.open(tmp_path).info["mine"] == {"x": 1} and Run.open(tmp_path).finished


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    run = Run.create(tmp_path, {"arm": "a", "method": "a"})
    run.metrics_file.write_text('{"kind": "update", "update": 1}\n{"kind": "upd')
    assert [line["update"] for line in run.metrics()] == [1]
    run.metrics_file.write_text('{"kind": "update"}\n{"update": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: lacks 'kind'"):
        list(run.metrics())


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
