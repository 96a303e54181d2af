"""Networks that are cut while they are read: equal to loaded ones, and never whole anywhere."""

import json
import re
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from two_processes import on_two

from dfdbench.distill import parallel, start
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.loading import load_part
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
from dfdbench.utils.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny_i2v(tmp_path_factory):
    return write_checkpoint_i2v(tmp_path_factory.mktemp("model") / "i2v", TINY_I2V, seed=0)


def split_into_files(source: Path, folder: Path, size: str) -> Path:
    """The checkpoint `source` with its denoiser in several files of about `size` and an index."""
    folder.mkdir()
    for part in source.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    family = load_family(source)
    load_part(family.network, source / "transformer", torch.float32).save_pretrained(
        folder / "transformer", max_shard_size=size
    )
    return folder


def compare_with_loaded(rank, models):
    with parallel.joined("cpu") as group:
        for model in models:
            for dtype in (torch.float32, torch.bfloat16):
                family = load_family(model, dtype)
                folder = family.path / "transformer"
                loaded = load_part(family.network, folder, dtype)
                cut = start.empty_network(family, folder, dtype)
                assert all(p.is_meta for p in cut.parameters())
                start.fill(family, cut, folder, group)
                parts = dict(cut.named_parameters())
                assert parts.keys() == dict(loaded.named_parameters()).keys()
                for name, parameter in loaded.named_parameters():
                    assert parts[name].dtype == parameter.dtype, name
                    assert torch.equal(parts[name].full_tensor(), parameter), name
                    assert parts[name].requires_grad
                buffers = dict(cut.named_buffers())
                assert buffers.keys() == dict(loaded.named_buffers()).keys()
                for name, buffer in loaded.named_buffers():
                    assert buffers[name].dtype == buffer.dtype, name
                    assert torch.equal(buffers[name], buffer), name


def test_cut_networks_are_the_loaded_ones_bit_for_bit(tiny_checkpoint, tiny_i2v, tmp_path):
    several = split_into_files(tiny_checkpoint, tmp_path / "several", "40KB")
    files = [*(several / "transformer").glob("*.safetensors")]
    index = [*(several / "transformer").glob("*.index.json")]
    assert len(files) > 2 and len(index) == 1
    done = on_two(tmp_path / "logs", compare_with_loaded, [tiny_checkpoint, several, tiny_i2v])
    assert done.codes == [0, 0], done.text


def velocity(family, module):
    """v̂ under the autocast of training, at a time that bfloat16 takes for 1."""
    shape = Shape(family.latent_shape(17, 64, 64), family.text_shape, family.conditioning_frames)
    torch.manual_seed(0)
    batch = shape.batch(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return family.predict(module, batch.latents, torch.tensor([0.999, 0.3]), batch.conditioning)


def run_cut_and_loaded(rank, models):
    with parallel.joined("cpu") as group:
        for model in models:
            family = load_family(model, torch.bfloat16)
            expected = [velocity(family, m) for m in (family.new_module(), family.teacher)]
            recipe = load_recipe("toy/dmd2", [f"model={model}", "optim.ema=0.5"])
            cut = start.trained_networks(recipe, family, None, group)
            ours = [(cut.student, 0), (cut.fake_score, 0), (cut.ema, 0), (family.teacher, 1)]
            for module, which in ours:
                assert torch.equal(velocity(family, module), expected[which])


def test_cut_networks_compute_as_loaded_ones_under_autocast(tiny_checkpoint, tiny_i2v, tmp_path):
    """Parts in float32, norms as given and by frame: not the weights alone."""
    done = on_two(tmp_path / "logs", run_cut_and_loaded, [tiny_checkpoint, tiny_i2v])
    assert done.codes == [0, 0], done.text


class Anonymous(threading.Thread):
    """Watches the bytes that this process holds beside mapped files, and keeps the most."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.most = self.now()
        self.end = threading.Event()

    @staticmethod
    def now() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])

    def run(self):
        while not self.end.wait(0.001):
            self.most = max(self.most, self.now())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.join()


def load_and_watch(rank, model):
    with parallel.joined("cpu") as group:
        family = load_family(model)
        folder = family.path / "transformer"
        whole = sum(
            p.nbytes for p in start.empty_network(family, folder, torch.float32).parameters()
        )
        warm = start.empty_network(family, folder, torch.float32)
        start.fill(family, warm, folder, group)  # imports and buffers of the libraries
        with Anonymous() as held:
            module = start.empty_network(family, folder, torch.float32)
            start.fill(family, module, folder, group)
        local = sum(p.to_local().nbytes for p in module.parameters())
        print(f"whole {whole} local {local} memory {held.most - held.before}")
        assert whole > 2e8 and local < 0.55 * whole
        assert local < held.most - held.before < 0.7 * whole


@pytest.fixture(scope="module")
def larger(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with random weights of 0.2 GB in five files."""
    folder = tmp_path_factory.mktemp("larger") / "model"
    (folder / "transformer").mkdir(parents=True)
    for part in tiny_checkpoint.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    config = json.loads((tiny_checkpoint / "transformer" / "config.json").read_text())
    config |= {
        "num_attention_heads": 8,
        "attention_head_dim": 64,
        "ffn_dim": 2048,
        "num_layers": 12,
    }
    torch.manual_seed(0)
    network = load_family(tiny_checkpoint).network.from_config(config)
    network.save_pretrained(folder / "transformer", max_shard_size="50MB")
    return folder


def test_no_process_ever_holds_a_whole_network(larger, tmp_path):
    assert len([*(larger / "transformer").glob("*.safetensors")]) > 3
    done = on_two(tmp_path, load_and_watch, larger)
    assert done.codes == [0, 0], done.text
    print(done.text)


def refuse(rank, folder, says):
    with parallel.joined("cpu") as group:
        family = load_family(folder)
        part = family.path / "transformer"
        try:
            start.fill(family, start.empty_network(family, part, torch.float32), part, group)
        except UserError as error:
            assert re.search(says, str(error)), error
        else:
            raise AssertionError("it was taken")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("proj_out.bias"), r"1 missing, such as proj_out\.bias"),
        (lambda w: w.update(other=torch.zeros(1)), "1 unexpected, such as other"),
        (lambda w: w.update({"proj_out.bias": torch.zeros(3)}), r"proj_out\.bias"),
        (lambda w: w["proj_out.bias"].fill_(float("nan")), r"proj_out\.bias holds NaN"),
        (lambda w: w.update({"proj_out.bias": torch.zeros(24, dtype=torch.int32)}), "is of I32"),
    ],
    ids=["missing", "spare", "shape", "nan", "whole numbers"],
)
def test_files_that_do_not_fit_are_refused_as_one_process_does(
    tiny_checkpoint, tmp_path, change, says
):
    folder = split_into_files(tiny_checkpoint, tmp_path / "model", "1GB")
    file = folder / "transformer" / WEIGHTS
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=says):
        _ = load_family(folder).teacher
    done = on_two(tmp_path / "logs", refuse, folder, says)
    assert done.codes == [0, 0], done.text
