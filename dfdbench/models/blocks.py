"""How the transformer blocks of a network run: attention kernel, recomputation, compilation.

Used by training (recipe keys optim.attention, optim.checkpointing, optim.compile) and by the
samplers' --compile. Hooks of a block, FSDP's among them, stay outside of all three.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from dfdbench.utils.errors import UserError

Attention = Literal["auto", "flash", "cudnn", "efficient", "math", "fa3"]
Checkpointing = Literal["none", "full", "save_attention"]
# Modes with CUDA graphs are left out: a block runs several times before its backward pass, and a
# graph would overwrite what the earlier runs gave.
Compile = Literal[False, True, "default", "max-autotune-no-cudagraphs"]

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "fa3": SDPBackend.FLASH_ATTENTION,  # once `activate` has put it in the place of flash
}
VARIANTS = 64  # compiled forms of a block: networks, with and without gradients, batch sizes
_aten = torch.ops.aten
ATTENTION_OPS = {
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def run_blocks(
    blocks: Iterable[nn.Module],
    attention: Attention = "auto",
    checkpointing: Checkpointing = "none",
    compiled: Compile = False,
) -> None:
    """Change how these blocks run from now on, in place; what they compute stays.

    Args:
        attention: kernel of scaled_dot_product_attention; "auto" leaves it to PyTorch.
        checkpointing: what a pass with gradients keeps of a block: all, its input alone ("full"),
            or its input and the outputs of self-attention, the dearest to compute again
            ("save_attention", PyTorch's selective activation checkpointing).
        compiled: torch.compile, with recomputation inside; equal blocks share their code.
    """
    if (attention, checkpointing, compiled) == ("auto", "none", False):
        for block in blocks:
            block.__dict__.pop("forward", None)  # as its class has it
        return
    run: Any = _run
    if compiled:
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, VARIANTS)
        run = torch.compile(_run, mode=None if compiled is True else compiled)
    for block in blocks:
        # The block is an argument, so that a copy of the network runs its own blocks here.
        own = type(block).forward
        block.forward = partial(run, own, block, KERNELS.get(attention), checkpointing)


def _run(
    own: Callable[..., Any],
    block: nn.Module,
    kernel: SDPBackend | None,
    checkpointing: Checkpointing,
    *inputs: Any,
    **named: Any,
) -> Any:
    if checkpointing == "none" or not torch.is_grad_enabled():
        return _forward(own, block, kernel, *inputs, **named)
    options: dict[str, Any] = {"use_reentrant": False}
    if checkpointing == "save_attention":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep)
    return checkpoint(_forward, own, block, kernel, *inputs, **options, **named)


def _forward(
    own: Callable[..., Any],
    block: nn.Module,
    kernel: SDPBackend | None,
    *inputs: Any,
    **named: Any,
) -> Any:
    with sdpa_kernel(kernel) if kernel is not None else nullcontext():
        return own(block, *inputs, **named)


def _keep(context: Any, op: Any, *inputs: Any, **named: Any) -> CheckpointPolicy:
    """Outputs of self-attention, where queries find themselves and what a cache holds among the
    keys; with the few keys of a prompt attention costs little."""
    if op in ATTENTION_OPS and inputs[0].shape[-2] <= inputs[1].shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def check_attention(
    attention: Attention, device: torch.device, dtype: torch.dtype, head_dim: int
) -> None:
    """Try the kernel, forward and backward, on heads of `head_dim` channels.

    Raises:
        UserError: it does not run here; names those that do.
    """
    if (fault := _fault(attention, device, dtype, head_dim)) is None:
        return
    others = [name for name in get_args(Attention)[1:] if name not in ("fa3", attention)]
    usable = [name for name in others if _fault(name, device, dtype, head_dim) is None]
    raise UserError(
        f"recipe key 'optim.attention' is {attention}, which does not run on this {device.type} "
        f"with {str(dtype).removeprefix('torch.')} heads of {head_dim} ({fault}); leave it at "
        f"auto, or take one of {', '.join(usable)}"
    )


def _fault(attention: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a kernel does not run, None if it does."""
    try:
        if attention == "fa3":
            _activate_fa3()
        q = torch.zeros(1, 2, 128, head_dim, device=device, dtype=dtype, requires_grad=True)
        with torch.enable_grad(), sdpa_kernel(KERNELS[attention]):
            scaled_dot_product_attention(q, q, q).sum().backward()
    except (RuntimeError, ImportError, AttributeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return None


def _activate_fa3() -> None:
    """Put FlashAttention 3, where it is installed, in the place of PyTorch's flash kernel."""
    from torch.nn import attention

    if not hasattr(attention, "activate_flash_attention_impl"):
        raise ImportError("PyTorch 2.10 or newer is needed")
    attention.activate_flash_attention_impl("FA3")
