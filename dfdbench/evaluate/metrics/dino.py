"""What the DINO families share: a checkpoint folder of transformers becomes an embedding function.

Used by dinov2_l.py and dinov3_l.py. The vector of a frame is the checkpoint's pooler output, its
preprocessing is the checkpoint's own (preprocessor_config.json).
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.evaluate.metrics.base import Setting
from dfdbench.evaluate.metrics.embedding import Embed, batched
from dfdbench.utils.assets import locate, unusable
from dfdbench.utils.errors import pass_out_of_memory


def load(asset: str, architecture: Mapping[str, Any], setting: Setting) -> Embed:
    """The pooler output of the checkpoint in the asset's folder, float32 on any device.

    Args:
        architecture: fields that its config.json must have, so that no other model goes by the
            asset's name.

    Raises:
        MissingWeights: a file is not here.
        UserError: a file is damaged or belongs to another model.
    """
    import torch
    from PIL import Image
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would run through ours
    folder = locate(asset)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    what = f"that of {asset} ({', '.join(f'{k} {v}' for k, v in architecture.items())})"
    with _reading(folder / "config.json", asset, what):
        config = AutoConfig.from_pretrained(folder, **local)
        if any(getattr(config, key, None) != value for key, value in architecture.items()):
            raise ValueError("another model's config")
    with _reading(folder / "preprocessor_config.json", asset, "an image processor"):
        processor = AutoImageProcessor.from_pretrained(folder, **local)
    with _reading(folder / "model.safetensors", asset, f"the weights of {asset}"):
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **local,
        )
        # transformers only warns of missing tensors, and draws them at random
        if report["missing_keys"]:
            raise ValueError(f"missing: {report['missing_keys']}")
    model.eval().requires_grad_(False).to(setting.device)

    def prepare(frames: np.ndarray) -> torch.Tensor:
        inputs = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")
        return inputs["pixel_values"].to(setting.device)

    return batched(prepare, lambda pixels: model(pixels).pooler_output, setting.device)


@contextlib.contextmanager
def _reading(file: Path, asset: str, what: str) -> Iterator[None]:
    """Whatever fails inside is the file's fault: transformers raises many kinds for bad files.

    Its own report, a table of tensors, is kept off the screen: the error is one line.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:
        pass_out_of_memory(error)
        raise unusable(file, asset, what) from error
    finally:
        logging.set_verbosity(verbosity)
