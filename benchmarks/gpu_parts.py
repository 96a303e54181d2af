"""What `make gpu-bench` measures: a function for each part, which gives plain values for JSON.

Used by gpu_suite.py, which runs each in a process of its own, and by its tests, on a CPU and with
tiny networks. Weights are random and nothing is downloaded; the toy's are those it is shipped with.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from gpu_toy import HALF, dtype_name, toy_prediction, toy_resume
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dfdbench.distill import checkpoint, parallel
from dfdbench.distill.bench.device import peak_tflops
from dfdbench.distill.bench.train import RandomClips, bench_train
from dfdbench.distill.loop import Trainer, build_networks
from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import Group
from dfdbench.distill.plan import setup_for
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.sections import Recipe
from dfdbench.models.blocks import KERNELS, check_attention
from dfdbench.models.family import ModelFamily
from dfdbench.models.random_init import random_init_family
from dfdbench.models.sampling import decode_clips
from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
from dfdbench.utils.device import peak_memory, reset_peak, spread, times
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

LONGEST_MATH = 8192  # tokens; beyond, the matrices of attention without a fused kernel fill a GPU


class Sizes(NamedTuple):
    """Models, by name or folder, and shapes of every part.

    heads: (B H L D) of attention. clip: frames, height, width; small: of a clip for two blocks.
    batch: clips at a time and rounds of a step. decodes: clips that the autoencoder is given.
    """

    wan: str = "wan2.1-t2v-1.3b"
    cosmos: str = "cosmos-predict2.5-2b"
    toy: str = "toy-t2v"
    heads: tuple[int, int, int, int] = (1, 12, 32_760, 128)
    clip: tuple[int, int, int] = (81, 480, 832)
    small: tuple[int, int, int] = (17, 240, 416)
    batch: tuple[int, int] = (2, 2)
    decodes: tuple[int, ...] = (1, 2, 4)
    steps: int = 1
    updates: int = 6  # of the toy's runs


def tiny(folder: Path) -> Sizes:
    """Sizes at which a CPU does every part in seconds; writes random checkpoints to `folder`."""
    wan = str(write_checkpoint(folder / "t2v", TINY, seed=0))
    cosmos = str(write_checkpoint_i2v(folder / "i2v", TINY_I2V, seed=0))
    clip = (9, 32, 32)
    return Sizes(wan, cosmos, wan, (1, 2, 256, 16), clip, clip, (2, 2), (1, 2), 1, 3)


def attention(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """TFLOP/s of each kernel of attention, forward and backward, and the one PyTorch chooses."""
    dtype = HALF if device.type == "cuda" else torch.float32
    q, k, v = (torch.randn(sizes.heads, device=device, dtype=dtype) for _ in range(3))
    batch, heads, tokens, width = sizes.heads
    work = 4 * batch * heads * tokens**2 * width  # two matrix products
    choice = SDPBackend(torch._fused_sdp_choice(q, k, v)).name.lower()
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()

    def timed(kernel: SDPBackend | None) -> dict[str, Any]:
        with nullcontext() if kernel is None else sdpa_kernel(kernel):
            out = F.scaled_dot_product_attention(q, k, v)
            grad = torch.randn_like(out)
            forward = times(lambda _: F.scaled_dot_product_attention(q, k, v), device, 3, 10)
            backward = times(
                lambda _: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True),
                device,
                3,
                10,
            )
        seconds = {"forward": spread(forward), "backward": spread(backward)}
        rates = {
            f"{name}_tflops_a_second": n * work / seconds[name]["median_seconds"] / 1e12
            for name, n in (("forward", 1), ("backward", 2))
        }
        return rates | seconds

    kernels: dict[str, Any] = {"auto": timed(None)}
    for name, kernel in KERNELS.items():  # fa3 is the last: it takes the place of flash
        if name == "math" and tokens > LONGEST_MATH:
            kernels[name] = {"reason": f"its matrices are {tokens} x {tokens} for each head"}
            continue
        try:
            check_attention(name, device, dtype, width)  # type: ignore[arg-type]
            kernels[name] = timed(kernel)
        except UserError as error:
            kernels[name] = {"reason": str(error)}
    return {
        "shape": list(sizes.heads),
        "dtype": dtype_name(dtype),
        "choice": choice,
        "kernels": kernels,
        "peak_tflops": peak_tflops(device),
    }


def _recipe(name: str, model: str, sizes: Sizes, clips: int, rounds: int) -> Recipe:
    frames, height, width = sizes.clip
    return load_recipe(
        name,
        [
            f"model={model}", f"data.frames={frames}", f"data.height={height}",
            f"data.width={width}", f"optim.batch={clips * rounds}", f"optim.accumulate={rounds}",
            "gan.weight=0.0",
        ],
    )  # fmt: skip


def wan_step(sizes: Sizes, device: torch.device, compiled: bool = False) -> dict[str, Any]:
    """Steps of DMD2 without a GAN on Wan, by the training's own code: times, MFU, memory."""
    recipe = _recipe("wan2.1-t2v-1.3b/dmd2", sizes.wan, sizes, *sizes.batch)
    return bench_train(recipe, device, sizes.steps, 1, compiled)


def wan_step_compiled(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The same with compiled blocks (optim.compile)."""
    return wan_step(sizes, device, compiled=True)


def cosmos_step(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Steps of DFD on Cosmos, one clip in each of two rounds."""
    recipe = _recipe("cosmos-predict2.5-2b/dfd", sizes.cosmos, sizes, 1, 2)
    return bench_train(recipe, device, sizes.steps, 1, False)


@contextmanager
def _network(sizes: Sizes, device: torch.device, layers: int) -> Iterator[tuple[ModelFamily, Any]]:
    """Wan with a few blocks and random weights, and a function that gives a clip's batch."""
    torch.manual_seed(0)
    with random_init_family(sizes.wan, HALF, device, layers) as family:

        def batch(clip: tuple[int, int, int]) -> Any:
            torch.manual_seed(1)
            given = family.conditioning_frames
            return Shape(family.latent_shape(*clip), family.text_shape, given).batch(1, device)

        yield family, batch


def block_profile(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """What the time of one block goes into, forward and backward, by torch.profiler."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    gpu = device.type == "cuda"
    with _network(sizes, device, 1) as (family, batch):
        module, clip = family.new_module(), batch(sizes.clip)
        block, given = family.blocks(module)[0], dict[str, Any]()
        note = lambda _block, inputs, named: given.update(inputs=inputs, named=named)  # noqa: E731
        handle = block.register_forward_pre_hook(note, with_kwargs=True)
        precision = torch.autocast(device.type, HALF, enabled=gpu)
        with torch.no_grad(), precision:
            family.predict(module, clip.latents, torch.full((1,), 0.5, device=device),
                           clip.conditioning)  # fmt: skip
        handle.remove()

        def run(_: int) -> None:
            with precision:
                out = block(*given["inputs"], **given["named"])
            out.float().sum().backward()

        seconds = times(run, device, 2, 5)
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        with profile(activities=kinds) as profiled:
            run(0)
            if gpu:
                torch.cuda.synchronize(device)
    key = f"self_{'device' if gpu else 'cpu'}_time_total"
    averages = profiled.key_averages()
    table = averages.table(sort_by=key, row_limit=25, max_name_column_width=60)
    if gpu:  # else the time of a kernel is that of the operation that started it as well
        averages = [row for row in averages if row.device_type == DeviceType.CUDA]
    rows = sorted(averages, key=lambda row: getattr(row, key), reverse=True)[:25]
    return {
        "tokens": int(given["inputs"][0].shape[1]),
        "block": spread(seconds),
        "rows": [
            {"name": row.key, "calls": row.count, "microseconds": getattr(row, key)} for row in rows
        ],
        "table": table,
    }


def nccl(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Networks with weights of mixed dtypes, cut by FSDP2 in a group of one process, and whole."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(f"{folder}/store", 1)
        dist.init_process_group(f"cpu:gloo,cuda:{backend}" if backend == "nccl" else backend,
                                store=store, rank=0, world_size=1)  # fmt: skip
        try:
            with _network(sizes, device, 2) as (family, batch):
                rows["teacher"] = _cut(family, family.teacher, batch(sizes.small), None, device)
                module = family.new_module()
                half = HALF if device.type == "cuda" else None
                rows["trained"] = _cut(family, module, batch(sizes.small), half, device)
        finally:
            dist.destroy_process_group()
    return {"backend": backend, **rows}


def _cut(
    family: ModelFamily, module: nn.Module, clip: Any, compute: torch.dtype | None,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """v̂ and the gradient's norm of a network before and after FSDP2 cuts it."""

    def look() -> tuple[Tensor, Tensor | None]:
        t = torch.full((1,), 0.5, device=device)
        with torch.autocast(device.type, compute, enabled=compute is not None):
            v = family.predict(module, clip.latents, t, clip.conditioning)
        if not v.requires_grad:
            return v, None
        v.square().mean().backward()
        weights = [p for p in module.parameters() if p.grad is not None]
        norm = parallel.local(torch.nn.utils.get_total_norm([p.grad for p in weights]))
        module.zero_grad(set_to_none=True)
        return v.detach(), norm.detach()

    dtypes = sorted({dtype_name(p.dtype) for p in module.parameters()})
    v, norm = look()
    parallel.shard(module, family.blocks(module), Group(device=device))
    cut_v, cut_norm = look()
    return {
        "dtypes": dtypes,
        "relative_difference": float((cut_v - v).norm() / v.norm()),
        "gradient_norms": None if norm is None else [float(norm), float(cut_norm)],
    }


def vae_decode(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Time and memory of decoding clips as `generate` does, one after the other."""
    rows = {}
    with _network(sizes, device, 1) as (family, _):
        shape = family.latent_shape(*sizes.clip)
        for count in sizes.decodes:
            latents = torch.randn(count, *shape, device=device)

            def decode(_: int, latents: Tensor = latents) -> None:
                for clip in decode_clips(family, latents):
                    clip.cpu()

            seconds = times(decode, device, int(count == sizes.decodes[0]), 1)
            reset_peak(device)
            decode(0)
            rows[str(count)] = {"seconds": seconds[0], "peak_memory": peak_memory(device)}
        return {"clip": list(sizes.clip), "clips": rows, "tiled": bool(family.vae.use_tiling)}


def save_restore(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """A checkpoint of the run of `wan_step`, written and read back: seconds, bytes, equality."""
    recipe = _recipe("wan2.1-t2v-1.3b/dmd2", sizes.wan, sizes, *sizes.batch)
    recipe, setup = setup_for(recipe)
    method, group = get_method(recipe.method), Group(device=device)
    dtype = HALF if device.type == "cuda" else torch.float32
    with (
        random_init_family(recipe.model, dtype, device) as family,
        tempfile.TemporaryDirectory() as name,
    ):
        clips = RandomClips(setup.shape, setup.micro, device)
        nets = build_networks(recipe, family, method, None, group, clips.negative(""))
        size = 2 * 3 * sum(4 * p.numel() for p in nets.student.parameters())
        if (free := shutil.disk_usage(name).free) < 1.05 * size:
            raise UserError(
                f"{name}: {free / 1e9:.0f} GB free, a checkpoint takes {size / 1e9:.0f}; set TMPDIR"
            )
        trainer = Trainer(recipe, method, nets, clips, Run(Path(name), {}), None, group)
        now = checkpoint.Position(1, 0.0)
        state = trainer.modules, trainer.optimisers
        saving = times(lambda _: checkpoint.save(Path(name), now, *state, 1, group), device, 0, 1)
        first = next(nets.student.parameters())
        kept = first.detach().clone()
        first.data.zero_()
        reading = times(lambda _: checkpoint.restore(Path(name), *state, device), device, 0, 1)
        files = [file for file in Path(name).rglob("*") if file.is_file()]
        return {
            "save_seconds": saving[0],
            "restore_seconds": reading[0],
            "bytes": sum(file.stat().st_size for file in files),
            "files": len(files),
            "equal": torch.equal(first, kept),
        }


Part = Callable[[Sizes, torch.device], dict[str, Any]]
RUN: dict[str, Part] = {
    "attention": attention,
    "toy_prediction": lambda sizes, device: toy_prediction(sizes.toy, device),
    "toy_resume": lambda sizes, device: toy_resume(sizes.toy, sizes.updates, device),
    "wan_step": wan_step,
    "block_profile": block_profile,
    "wan_step_compiled": wan_step_compiled,
    "nccl": nccl,
    "vae_decode": vae_decode,
    "cosmos_step": cosmos_step,
    "save_restore": save_restore,
}
