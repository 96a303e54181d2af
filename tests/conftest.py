"""Fixtures for every test: a tiny random checkpoint in the layout of the real Wan."""

import os
from pathlib import Path

import pytest
import torch

from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint import TINY, write_checkpoint

# Tests expect a CPU's values, also on a machine with GPUs; torch has not looked for any yet.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums depend on the number of threads, which a study in this process may have changed."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that WanPipeline loads, with random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", TINY, seed=0)


@pytest.fixture(scope="session")
def tiny_family(tiny_checkpoint: Path) -> ModelFamily:
    """The family adapter of the tiny checkpoint; treat its teacher as read-only."""
    return load_family(tiny_checkpoint)
