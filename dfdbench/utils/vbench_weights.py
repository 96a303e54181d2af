"""The weights of VBench's dimensions: where VBench, torch hub and CLIP keep them, how to get them.

Used by the families `vbench_*`, catalogue.py and download.py. Nothing is downloaded here. Folders,
in order: $VBENCH_CACHE_DIR (default ~/.cache/vbench), torch hub's checkpoints ($TORCH_HOME, default
~/.cache/torch), CLIP's ~/.cache/clip, and ./models, where DreamSim's package leaves its files.
"""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.files import sha256_cached


class Weights(NamedTuple):
    """One file, or one of an archive's.

    name: as `dfdbench assets get vbench/NAME` knows it; the files of one archive share it. path: in
    VBench's cache. also: another path of the same. source: of the file, of the archive (.zip), or
    for what is no download a page. dimensions: what cannot be scored without it. bridge: only the
    official package reads it.
    """

    name: str
    path: str
    size: str
    source: str
    licence: str
    dimensions: tuple[str, ...]
    bridge: bool = False
    also: str = ""


_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_VBENCH = "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main"
_DREAMSIM = (
    "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/"
    "dreamsim_ensemble_checkpoint.zip"
)
_UNVERIFIED = "MIT (not verified)"
_STYLES = ("temporal_style", "overall_consistency")
_OBJECTS = ("object_class", "multiple_objects", "color", "spatial_relationship")
_I2V_BACKGROUND = ("i2v_background",)

# Sizes and licences as far as they are known without the files (4 bytes a parameter).
WEIGHTS = (
    Weights(
        "dino",
        "dino_model/dino_vitbase16_pretrain.pth",
        "343 MB",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        "Apache-2.0",
        ("subject_consistency", "i2v_subject", "i2v_background"),
    ),
    Weights(
        "clip-b32",
        "clip_model/ViT-B-32.pt",
        "about 340 MB",
        f"{_OPENAI}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        _UNVERIFIED,
        ("background_consistency", "appearance_style"),
    ),
    Weights(
        "clip-l14",
        "clip_model/ViT-L-14.pt",
        "about 890 MB",
        f"{_OPENAI}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        _UNVERIFIED,
        ("aesthetic_quality",),
    ),
    Weights(
        "aesthetic-head",
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        "4 kB",
        "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
        _UNVERIFIED,
        ("aesthetic_quality",),
    ),
    Weights(
        "musiq-spaq",
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        "109 MB",
        "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/"
        "musiq_spaq_ckpt-358bb6af.pth",
        "pyiqa's, non-commercial (not verified)",
        ("imaging_quality",),
    ),
    Weights(
        "amt-s",
        "amt_model/amt-s.pth",
        "12 MB",
        "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
        "CC BY-NC 4.0",
        ("motion_smoothness",),
    ),
    Weights(
        "raft-things",
        "raft_model/models/raft-things.pth",
        "21 MB",
        "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
        "BSD-3-Clause",
        ("dynamic_degree", "static"),
    ),
    Weights(
        "umt",
        "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        "about 1.2 GB",
        f"{_VBENCH}/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        "not stated",
        ("human_action",),
    ),
    Weights(
        "viclip",
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        "about 1.7 GB",
        f"{_VBENCH}/ViClip-InternVid-10M-FLT.pth",
        "not stated",
        _STYLES,
    ),
    Weights(
        "viclip-vocabulary",
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "1.4 MB",
        "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
        _UNVERIFIED,
        _STYLES,
        bridge=True,
    ),
    Weights(
        "cotracker2",
        "cotracker2.pth",
        "size not known",
        "https://huggingface.co/facebook/cotracker/resolve/main/cotracker2.pth",
        "CC BY-NC 4.0",
        ("camera_motion",),
    ),
    Weights(
        "dreamsim",
        "dreamsim/clip_vitb16_pretrain.pth.tar",
        "about 345 MB",
        _DREAMSIM,
        _UNVERIFIED,
        _I2V_BACKGROUND,
    ),
    Weights(
        "dreamsim",
        "dreamsim/open_clip_vitb16_pretrain.pth.tar",
        "about 345 MB",
        _DREAMSIM,
        _UNVERIFIED,
        _I2V_BACKGROUND,
    ),
    Weights(
        "dreamsim",
        "dreamsim/ensemble_lora/adapter_config.json",
        "1 kB",
        _DREAMSIM,
        _UNVERIFIED,
        _I2V_BACKGROUND,
    ),
    Weights(
        "dreamsim",
        "dreamsim/ensemble_lora/adapter_model.safetensors",
        "a few MB",
        _DREAMSIM,
        _UNVERIFIED,
        _I2V_BACKGROUND,
        also="dreamsim/ensemble_lora/adapter_model.bin",
    ),
    Weights(
        "grit",
        "grit_model/grit_b_densecap_objectdet.pth",
        "size not known",
        f"{_VBENCH}/grit_b_densecap_objectdet.pth",
        _UNVERIFIED,
        _OBJECTS,
        bridge=True,
    ),
    Weights(
        "tag2text",
        "caption_model/tag2text_swin_14m.pth",
        "about 4.5 GB (not verified)",
        "https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/"
        "tag2text_swin_14m.pth",
        "Apache-2.0 (not verified)",
        ("scene",),
        bridge=True,
    ),
)
PREFIX = "vbench/"  # of a name, among those of other assets
_BY_STEM = {Path(weights.path).name.split(".")[0]: weights for weights in WEIGHTS}


def cache_folders() -> list[Path]:
    """Folders that may hold weights, the preferred first; they need not exist."""
    torch_home = os.environ.get("TORCH_HOME")
    if not torch_home:
        torch_home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch")
    return [
        Path(os.environ.get("VBENCH_CACHE_DIR") or "~/.cache/vbench").expanduser(),
        Path(torch_home).expanduser() / "hub" / "checkpoints",
        Path("~/.cache/clip").expanduser(),
        Path("models").absolute(),
    ]


def find_file(*paths: str) -> Path | None:
    """The first of some paths, in VBench's cache or, without its folder there, in the others."""
    for folder in cache_folders():
        for path in paths:
            for name in (path, path.split("/", 1)[-1]):
                if (folder / name).is_file():
                    return folder / name
    return None


def find_weights(weights: Weights) -> Path | None:
    """Where an entry of WEIGHTS lies; None if nowhere."""
    return find_file(*filter(None, (weights.path, weights.also)))


def vbench_file(*paths: str, what: str) -> Path:
    """The first of the paths that is in one of `cache_folders`, as `find_file` finds it.

    Args:
        paths: inside VBench's cache, the preferred first, which is one of WEIGHTS.
        what: what it is, in a few words, for the error.

    Raises:
        MissingWeights: it is nowhere; the message names the file and how to get it.
    """
    if found := find_file(*paths):
        return found
    wanted = _of(Path(paths[0]))
    raise MissingWeights(
        f"no {Path(wanted.path).name} ({what}; {wanted.size}, {wanted.licence}); get it with "
        f"`dfdbench assets get {PREFIX}{wanted.name}`, or from {wanted.source} and put it at "
        f"{home_of(wanted)}"
    )


def home_of(weights: Weights) -> Path:
    """Where it belongs in VBench's cache."""
    return cache_folders()[0] / weights.path


def vbench_digest(*files: Path) -> str:
    """sha256 over the files, for the key of a score; large files are hashed once."""
    return sha256_cached(files)


def vbench_unusable(file: Path, what: str) -> UserError:
    """The error for a file that is here but is not `what`."""
    return UserError(f"{file}: not {what}; get it again from {_of(file).source}")


def _of(file: Path) -> Weights:
    """The entry of a file of any suffix."""
    return _BY_STEM[file.name.split(".")[0]]


def read_state(file: Path, what: str) -> Mapping[str, Any]:
    """The tensors of a checkpoint by name, or whatever dict of tensors it holds, on the CPU.

    safetensors, torch's own files as far as `weights_only` reads them, and TorchScript archives
    such as OpenAI's CLIP, of which only the tensors are taken; no code in them is run.

    Raises:
        UserError: it is none of these, or damaged.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if _is_torchscript(file):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is deprecated; OpenAI has no other file
                return torch.jit.load(file, map_location="cpu").state_dict()
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; the remedy is the same
        raise vbench_unusable(file, what) from error
    if not isinstance(found, Mapping):
        raise vbench_unusable(file, what)
    return found


def _is_torchscript(file: Path) -> bool:
    """Whether torch.save would not have written the zip file: it has TorchScript's constants."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


COTRACKER = "facebookresearch_co-tracker_main"  # as torch hub names its copy
COTRACKER_CHECKPOINT = "cotracker2.pth"
COTRACKER_SOURCE = "https://github.com/facebookresearch/co-tracker"


def cotracker_folder() -> Path:
    """Where torch hub keeps CoTracker's repository, which defines the network."""
    checkpoints = next(folder for folder in cache_folders() if folder.name == "checkpoints")
    return checkpoints.parent / COTRACKER
