"""The toy on a GPU: its prediction against a CPU's, and a run that is killed and resumed.

Parts of `make gpu-bench`, used by gpu_parts.py.
"""

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dfdbench.distill import checkpoint
from dfdbench.distill.batch import make_batch
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.registry import load_family
from dfdbench.toy.world import captions
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

HALF = torch.bfloat16
TOLERANCE = 2e-2  # of v̂ in bfloat16, against float32 on a CPU


def dtype_name(dtype: torch.dtype) -> str:
    """Such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


class _Inputs(TorchFunctionMode):
    """Notes the dtypes of queries and keys that attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[str]] = {"q": set(), "k": set()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            for place, (short, name) in enumerate((("q", "query"), ("k", "key"))):
                given = args[place] if len(args) > place else kwargs[name]
                self.seen[short].add(dtype_name(given.dtype))
        return func(*args, **kwargs)


def toy_prediction(model: str, device: torch.device) -> dict[str, Any]:
    """The toy's v̂ in bfloat16 on the device against float32 on the CPU: ‖Δ‖ / ‖v̂‖.

    Of the teacher as the pipeline runs it, and of a network in training, under autocast.
    """
    cpu, there = load_family(model), load_family(model, HALF, device)
    d, prompts = cpu.defaults, [caption.text for caption in captions()[:4]]
    generator = torch.Generator().manual_seed(0)
    shape = cpu.latent_shape(d.frames, d.height, d.width)
    x = torch.randn(len(prompts), *shape, generator=generator)
    t = torch.linspace(0.2, 0.999, len(prompts))
    with torch.no_grad():
        batch = make_batch(x, cpu.encode_prompt(prompts), cpu.conditioning_frames)
        expected = cpu.predict(cpu.teacher, x, t, batch.conditioning)
        conditioning = batch.conditioning.map(lambda value: value.to(device))
        rows = {}
        for name, module in (("teacher", there.teacher), ("trained", there.new_module())):
            embedded = set[str]()
            for path, part in module.named_modules():
                if path.endswith((".time_embedder.linear_2", ".t_embedder.linear_2")):
                    note = lambda _module, _given, out, to=embedded: to.add(dtype_name(out.dtype))  # noqa: E731
                    part.register_forward_hook(note)
            precision = torch.autocast(device.type, HALF, enabled=name == "trained")
            with _Inputs() as inputs, precision:
                v = there.predict(module, x.to(device), t.to(device), conditioning)
            off = v.cpu() - expected
            rows[name] = {
                "relative_difference": float(off.norm() / expected.norm()),
                "largest_difference": float(off.abs().max()),
                "dtypes": {key: sorted(found) for key, found in inputs.seen.items()}
                | {"time_embedding": sorted(embedded)},
            }
    worst = max(row["relative_difference"] for row in rows.values())
    return {"model": Path(model).name, **rows, "limit": TOLERANCE, "within": worst <= TOLERANCE}


def toy_resume(model: str, updates: int, device: torch.device) -> dict[str, Any]:
    """A run of DFD that is killed and resumed, against one that is not; else why they differ."""
    changes = [
        f"model={model}", "init.recipe=''", "data.count=16", "optim.batch=4",
        "schedule.student_update_freq=2", f"schedule.student_updates={updates}",
        "log.every=1", "log.probe_every=0", "log.decode_every=0", "checkpoint.every_updates=1",
        "student.steps=2",
    ]  # fmt: skip
    recipe = load_recipe("toy/dfd", changes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed_after = _kill(folder / "killed", changes, device)
        resumed = distill(recipe, folder / "killed", resume=True, device=device.type)
        whole = distill(recipe, folder / "whole", device=device.type)
        difference = _largest_difference(whole, resumed)
        found: dict[str, Any] = {
            "updates": updates,
            "killed_after_updates": killed_after,
            "bit_equal": difference == 0,
            "largest_difference": difference,
            "reason": None,
        }
        if difference == 0:
            return found
        torch.use_deterministic_algorithms(True, warn_only=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = distill(recipe, folder / "again", device=device.type)
        torch.use_deterministic_algorithms(False)
        apart = _largest_difference(whole, again)
    said = {str(w.message).split(".")[0] for w in caught if "determin" in str(w.message)}
    found["reason"] = (
        f"two runs that nothing stopped differ by {apart:.3g} too: {'; '.join(sorted(said))}"
        if apart
        else "resuming changes the run: two that nothing stopped are equal"
    )
    return found


def _kill(out: Path, changes: list[str], device: torch.device) -> int:
    """Train in a process that is killed after its first checkpoint; updates of the last one."""
    settings = [argument for change in changes for argument in ("--set", change)]
    command = [sys.executable, "-m", "dfdbench", "distill", "--recipe", "toy/dfd"]
    command += ["--out", str(out), "--device", device.type, *settings]
    # Sums depend on the number of threads: as many as the run that goes on has.
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    ) as process:
        try:
            while process.poll() is None and not checkpoint.complete(out / "checkpoints"):
                time.sleep(0.005)
        finally:
            process.kill()
        said = process.stdout.read() if process.stdout else b""
    kept = checkpoint.complete(out / "checkpoints")
    if not kept:
        raise UserError(f"the run that was to be killed left no checkpoint: {said.decode()[-300:]}")
    return int(kept[-1].name.removeprefix(checkpoint.PREFIX))


def _largest_difference(one: Run, other: Run) -> float:
    """Between the weights of two runs' students."""
    a, b = (
        {k: v for file in run.student.rglob("transformer/*.safetensors")
         for k, v in load_file(file).items()} for run in (one, other)
    )  # fmt: skip
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a.keys() | b)
