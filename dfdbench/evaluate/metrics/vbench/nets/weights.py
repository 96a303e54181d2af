"""The files of weights that VBench's dimensions need, and how they become a network.

Used by all files of nets/ and by the families of VBench's dimensions; where the files lie, their
sizes, sources and licences are the assets' business (utils).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.utils.errors import pass_out_of_memory
from dfdbench.utils.vbench_weights import (
    COTRACKER_CHECKPOINT,
    read_state,
    vbench_digest,
    vbench_file,
    vbench_unusable,
)

# What torch, json and our own look at a file's contents raise where these are not as they should be
FAULTS = (LookupError, ArithmeticError, AttributeError, RuntimeError, ValueError, TypeError)


class Checkpoint(NamedTuple):
    """One file: what it is, for errors, its path in VBench's cache, and another one it may have."""

    what: str
    path: str
    also: str = ""

    def file(self) -> Path:
        """Where it lies; raises MissingWeights."""
        return vbench_file(*filter(None, (self.path, self.also)), what=self.what)

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The file; what fails in the block is its fault.

        Raises:
            MissingWeights: it is not here.
            UserError: it is damaged, or the block finds that it holds other weights.
        """
        file = self.file()
        try:
            yield file
        except FAULTS as error:
            pass_out_of_memory(error)
            raise vbench_unusable(file, self.what) from error

    @contextmanager
    def tensors(self) -> Iterator[dict[str, Any]]:
        """Its tensors by name, on the CPU, or whatever dict it holds; raises as `opened` does."""
        with self.opened() as file:
            yield dict(read_state(file, self.what))


def digest_of(checkpoints: tuple[Checkpoint, ...]) -> str:
    """sha256 over the files, for the key of a score; raises MissingWeights."""
    return vbench_digest(*(checkpoint.file() for checkpoint in checkpoints))


def frozen(network: Any, device: str) -> Any:
    """The network in float32 and evaluation mode, without gradients, on the device."""
    return network.float().eval().requires_grad_(False).to(device)


DINO = Checkpoint("the backbone of DINO ViT-B/16", "dino_model/dino_vitbase16_pretrain.pth")
CLIP_B32 = Checkpoint("OpenAI's weights of CLIP ViT-B/32", "clip_model/ViT-B-32.pt")
CLIP_L14 = Checkpoint("OpenAI's weights of CLIP ViT-L/14", "clip_model/ViT-L-14.pt")
AESTHETIC_HEAD = Checkpoint(
    "LAION's aesthetic head for CLIP ViT-L/14",
    "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
)
MUSIQ = Checkpoint(
    "the checkpoint of MUSIQ trained on SPAQ", "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"
)
AMT = Checkpoint("the checkpoint of AMT-S", "amt_model/amt-s.pth")
RAFT_THINGS = Checkpoint(
    "the checkpoint of RAFT trained on FlyingChairs and FlyingThings3D",
    "raft_model/models/raft-things.pth",
)
UMT = Checkpoint(
    "the weights of UMT-L/16, Kinetics-400", "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth"
)
VICLIP = Checkpoint(
    "the weights of ViCLIP-L, InternVid-10M-FLT", "ViCLIP/ViClip-InternVid-10M-FLT.pth"
)
COTRACKER2 = Checkpoint("the weights of CoTracker2", COTRACKER_CHECKPOINT)
DREAMSIM_CLIP = Checkpoint(
    "the CLIP tower of DreamSim's ensemble", "dreamsim/clip_vitb16_pretrain.pth.tar"
)
DREAMSIM_OPEN_CLIP = Checkpoint(
    "the OpenCLIP tower of DreamSim's ensemble", "dreamsim/open_clip_vitb16_pretrain.pth.tar"
)
DREAMSIM_LORA = Checkpoint(
    "the LoRA of DreamSim's ensemble",
    "dreamsim/ensemble_lora/adapter_model.safetensors",
    "dreamsim/ensemble_lora/adapter_model.bin",
)
DREAMSIM_SETTINGS = Checkpoint(
    "the settings of DreamSim's LoRA", "dreamsim/ensemble_lora/adapter_config.json"
)
DREAMSIM = (DINO, DREAMSIM_CLIP, DREAMSIM_OPEN_CLIP, DREAMSIM_LORA, DREAMSIM_SETTINGS)
