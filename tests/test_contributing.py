"""CONTRIBUTING.md: its examples run the whole chain from a package outside dfdbench."""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dfdbench
from dfdbench.distill import methods
from dfdbench.distill.recipe import load_recipe
from dfdbench.evaluate.metrics import registry as metrics
from dfdbench.models import registry as models
from dfdbench.utils.manifest import collect

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```(?:python|toml)\n# (ours/\S+)\n(.*?)```", TEXT, flags=re.S))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package `ours`, and registries that forget it."""
    for name, text in EXAMPLES.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "site" / "ours" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(methods, "_registered", {})
    monkeypatch.setattr(models, "FAMILIES", dict(models.FAMILIES))
    families = dict(metrics.FAMILIES)
    yield tmp_path / "site" / "ours"
    metrics.FAMILIES.clear()
    metrics.FAMILIES.update(families)
    metrics.get_family.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "ours"]:
        del sys.modules[name]


def test_there_is_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == {
        "ours/imitation.py", "ours/imitation.toml", "ours/video.py", "ours/brightness.py",
    }  # fmt: skip


def test_method_family_and_metric_of_another_package_run_the_whole_chain(
    ours: Path, tmp_path: Path
) -> None:
    old_digest = load_recipe("toy/dfd").digest()
    methods.register("imitation", importlib.import_module("ours.imitation"))
    models.register("OursPipeline", "ours.video:Ours")
    metrics.register("brightness", "ours.brightness")
    assert load_recipe("toy/dfd").digest() == old_digest

    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(models.resolve_folder("toy-t2v"), checkpoint)
    index = checkpoint / "model_index.json"
    index.write_text(index.read_text().replace("WanPipeline", "OursPipeline"))

    run = dfdbench.distill(
        recipe=ours / "imitation.toml", model=str(checkpoint), out=tmp_path / "runs" / "ours"
    )
    assert run.finished and run.info["method"] == "imitation"
    assert "OursPipeline" in (run.student / "model_index.json").read_text()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a ball moving over the desert\na bar moving over the snow\n")
    dfdbench.generate(run, prompts=prompts, seeds=[1, 2])
    assert len(collect(run.path, "prompts").samples) == 4
    summary = dfdbench.evaluate(run.path, prompts=prompts, seeds=[1, 2], metrics=["brightness"])
    assert summary.scored == 4 and not summary.skipped
    page = dfdbench.report([run.path], tmp_path / "report")
    values = json.loads((page.parent / "summary.json").read_text())["imitation"]
    assert 0 < values["brightness"]["mean"] < 1 and "brightness_std" in values
