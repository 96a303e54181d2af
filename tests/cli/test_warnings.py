"""Warnings on the command line: a line each, without a place in the code."""

import subprocess
import sys

import torch

from dfdbench.models.registry import load_family

SHOWN = """
import warnings
from dfdbench import cli

def app(prog_name):
    warnings.warn("first thing")
    warnings.warn("second thing", UserWarning, stacklevel=2)

import dfdbench.cli.app as module
module.app = app
cli.main()
"""


def test_a_warning_is_one_line_without_file_and_source():
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["warning: first thing", "warning: second thing"]


def test_unknown_words_are_told_once_however_many_prompts_have_them(tiny_checkpoint, recwarn):
    family = load_family(tiny_checkpoint, torch.float32, torch.device("cpu"))
    family.encode_prompt(["a ball over the desert"])
    assert not recwarn.list
    family.encode_prompt(["a ball", "a zeppelin over the alps " + "x" * 300])
    family.encode_prompt(["another dirigible"])
    (told,) = recwarn.list
    assert "zeppelin" in str(told.message) and len(str(told.message)) < 300
