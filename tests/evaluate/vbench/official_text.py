"""VBench's own code for the dimensions that read the prompt; run by test_parity_text.py.

Arguments: a job (JSON) and where to write the answer (JSON). It runs in an interpreter of its own,
with VBENCH_CACHE_DIR set, because importing VBench needs stand-ins for modules that are gone.
"""

import contextlib
import json
import sys
import types
from functools import partial
from pathlib import Path

import packaging.version
import timm.layers
import timm.models
import torch


def stand_in(name, **members):
    """Let `import name` give a module with these members."""
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


stand_in("pkg_resources", packaging=packaging)
stand_in("numpy.lib.function_base", disp=print)
stand_in("timm.models.layers", **vars(timm.layers))
stand_in("timm.models.registry", register_model=lambda function: function)


def viclip(dimension, job):
    """[score, results of videos]; the towers are as small as the job's weights."""
    import vbench.third_party.ViCLIP.viclip as definition
    from vbench.third_party.ViCLIP.viclip_text import CLIP_TEXT
    from vbench.third_party.ViCLIP.viclip_vision import VisionTransformer

    if size := job["viclip"]:
        definition.clip_joint_l14 = lambda input_resolution, pretrained, center, **rest: (
            VisionTransformer(input_resolution, 14, *size["vision"], **rest).eval()
        )
        definition.clip_text_l14 = lambda embed_dim, pretrained, **rest: CLIP_TEXT(
            size["vision"][-1],
            transformer_width=size["text"][0],
            transformer_layers=size["text"][1],
            transformer_heads=size["text"][2],
            **rest,
        ).eval()
    module = __import__(f"vbench.{dimension}", fromlist=[dimension])
    run = getattr(module, f"compute_{dimension}")
    return run(job["info"], torch.device("cpu"), {"pretrain": job["viclip_weights"]})


def human_action(job):
    """[accuracy, results of videos, probabilities of the classes of each video]."""
    import vbench.human_action as module
    from vbench.third_party.umt.models import modeling_finetune as definition

    probabilities = []

    def create_model(name, pretrained, **settings):
        # what timm's create_model does, without the settings that only its new versions pass
        settings = {key: value for key, value in settings.items() if value is not None}
        if size := job["umt"]:
            norm = partial(torch.nn.LayerNorm, eps=1e-6)
            network = definition.VisionTransformer(
                patch_size=16, qkv_bias=True, norm_layer=norm, **size, **settings
            )
        else:
            network = definition.vit_large_patch16_224(**settings)
        network.register_forward_hook(
            lambda module, inputs, output: probabilities.append(output[0].sigmoid().tolist())
        )
        return network

    module.create_model = create_model
    found = module.compute_human_action(job["info"], torch.device("cpu"), [job["umt_weights"]])
    return [*found, probabilities]


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    answer = {}
    with contextlib.redirect_stdout(sys.stderr):
        for dimension in job["dimensions"]:
            if dimension == "human_action":
                answer[dimension] = human_action(job)
            else:
                answer[dimension] = viclip(dimension, job)
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
