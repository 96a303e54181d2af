"""Writes the resume points of the finished VAE stages into a folder of `dfdbench toy train`.

python training-state/restore.py runs/toy-train

The last stage's weights lie beside this file; what finished stages need no more is fresh. The log of each stage goes with them.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from dfdbench.toy.checkpoint import TOY, build_vae
from dfdbench.toy.fit import Fit
from dfdbench.toy.train import Settings

HERE, OUT, S = Path(__file__).parent, Path(sys.argv[1]), Settings()
STAGES = {
    "vae": (S.vae_channels, S.vae_steps, S.vae_lr),  # finished, so only that it was matters
    "polish": (S.vae_channels, S.polish_steps, S.polish_lr),
    "decoder": (TOY.latent_channels, S.decoder_steps, S.decoder_lr),
}
OUT.mkdir(parents=True, exist_ok=True)
for name, (channels, steps, lr) in STAGES.items():
    vae = build_vae(replace(TOY, latent_channels=channels))
    kept = HERE / f"{name}.safetensors"  # of the last stage; of the others only that they are done
    average = load_file(kept) if kept.exists() else vae.state_dict()
    vae.load_state_dict(average)
    if name == "decoder":  # as `finish_vae` has it
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)
    fit = Fit(name, vae, steps, lr, S.ema, OUT)
    fit.average, fit.step = average, steps
    fit.save()
    shutil.copy(HERE / f"{name}.jsonl", OUT)
    print(f"{OUT / fit.file.name}: step {steps}")
