"""Measures image-to-video on the toy: the frame is kept, its sprite goes on, the ways it can go.

Used for the shipped toy-i2v (`measure`) and for what students of it make (`quality_of`).
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from dfdbench.files import write_json
from dfdbench.metrics import oracle as oracle_metrics
from dfdbench.metrics.first_frame import psnr
from dfdbench.models import Defaults, read_defaults
from dfdbench.models.cosmos import network_v
from dfdbench.models.cosmos_text import chat_tokens, joined_states
from dfdbench.progress import track
from dfdbench.run import weights_sha256
from dfdbench.sampling import batch_noise, sample_teacher
from dfdbench.schedule import cfg_combine
from dfdbench.toy import oracle, world
from dfdbench.toy.checkpoint_i2v import MAX_TOKENS, TOY_I2V
from dfdbench.toy.continuation import continuations, direction_probabilities
from dfdbench.toy.data import prompts_of
from dfdbench.toy.quality import to_frames
from dfdbench.toy.train import held_out

FREE = {"direction": world.DIRECTIONS, "pan": len(world.PANS)}  # given the caption and the frame


def quality_of(frames: np.ndarray, given: world.Attributes) -> dict[str, float]:
    """Scores of clips made from first frames.

    Args:
        frames: uint8 (N K T H W 3), K clips from each of N first frames.
        given: the N clips whose first frames were given.

    Returns:
        Means over all clips: PSNR (dB) of the first frame against the given one, the least of
        them, and the shares that are intact, of the given shape, of the given hue, steady, and all
        of these (`continues`). Means over first frames: Miller–Madow entropies of direction and
        pan over clips that continue, in units of log 8 and log 3; frames with fewer than two such
        clips have none. `entropy_frames` counts the others.
    """
    pictures = to_frames(world.render(given) * 2 - 1)[:, 0]
    shapes, hues = given.shape.tolist(), given.hue_mode.tolist()
    rows: dict[str, list[float]] = {
        name: [] for name in ("psnr", "intact", "shape", "hue", "steady", "wobble", "continues")
    }
    entropies: dict[str, list[float]] = {name: [] for name in FREE}
    for clips, picture, shape, hue in zip(frames, pictures, shapes, hues, strict=True):
        readings = [oracle.read(clip) for clip in clips]
        going = [oracle.continues(r, shape, hue) for r in readings]
        rows["psnr"] += [psnr(clip[0], picture) for clip in clips]
        rows["intact"] += [r.intact for r in readings]
        rows["shape"] += [r.shape == shape for r in readings]
        rows["hue"] += [r.hue == hue for r in readings]
        rows["steady"] += [r.wobble <= oracle.STEADY for r in readings]
        rows["wobble"] += [r.wobble for r in readings]
        rows["continues"] += going
        if sum(going) >= oracle_metrics.MIN_CLIPS:
            kept = [r for r, good in zip(readings, going, strict=True) if good]
            for name, classes in FREE.items():
                labels = np.array([getattr(r, name) for r in kept])
                entropies[name].append(oracle_metrics.normalised_entropy(labels, classes))
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    means |= {f"{k}_entropy": float(np.mean(v)) for k, v in entropies.items() if v}
    return {
        "clips": float(len(rows["psnr"])),
        "psnr_min": min(rows["psnr"]),
        "entropy_frames": float(len(entropies["pan"])),
        **means,
    }


class Teacher:
    """The parts of a toy-i2v folder in float32."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.transformer: Any = CosmosTransformer3DModel.from_pretrained(folder / "transformer")
        self.vae: Any = AutoencoderKLWan.from_pretrained(folder / "vae").float().eval()
        self.transformer = self.transformer.float().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder")
        texts = [caption.text for caption in world.captions()]
        tokens = chat_tokens(tokenizer, [*texts, ""], MAX_TOKENS)
        self.prompts = joined_states(encoder.float(), tokens)  # 12 captions and the empty prompt
        shape = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(self.vae.config.latents_mean).view(shape)
        self.std = torch.tensor(self.vae.config.latents_std).view(shape)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised latents of (B 3 T H W) in [−1, 1]."""
        return (self.vae.encode(video).latent_dist.mode() - self.mean) / self.std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B 3 T H W) in [−1, 1]."""
        return self.vae.decode(latents * self.std + self.mean).sample.clamp(-1, 1)

    def sample(
        self,
        first: torch.Tensor,
        captions: torch.Tensor,
        noise: torch.Tensor,
        cfg: float,
        steps: int,
        shift: float,
    ) -> torch.Tensor:
        """Euler samples (B C T H W) with guidance g = `cfg` on the text; both see the frame.

        Args:
            first: (B C 1 H W), clean latent of the given frame.
            captions: int64 (B,), of the 12.
            noise: (B C T H W).
        """
        negative = self.prompts[-1:].expand(len(noise), -1, -1)

        def guided(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            v = network_v(self.transformer, x_t, t, first, self.prompts[captions])
            if cfg == 1:
                return v
            return cfg_combine(v, network_v(self.transformer, x_t, t, first, negative), cfg)

        x0, _ = sample_teacher(guided, noise, steps, shift)
        return torch.cat([first, x0[:, :, 1:]], 2)


@torch.no_grad()
def teacher_samples(
    teacher: Teacher, given: world.Attributes, count: int, cfg: float, steps: int, shift: float
) -> np.ndarray:
    """uint8 (N K T H W 3): `count` samples from the first frame of each of the N clips."""
    captions, prompts = prompts_of(given)
    frames = []
    for i in track(range(len(given)), f"toy-i2v at CFG {cfg:g}, {steps} steps"):
        picture = world.render(given[slice(i, i + 1)])[:, :, :1] * 2 - 1
        first = teacher.encode(picture).expand(count, -1, -1, -1, -1)
        shape = (first.shape[1], (world.FRAMES - 1) // 4 + 1, *first.shape[3:])
        noise = batch_noise([f"quality-{i}-{prompts[captions[i]]}"] * count, range(count), shape)
        x0 = teacher.sample(first, captions[i].expand(count), noise, cfg, steps, shift)
        frames.append(to_frames(teacher.decode(x0)))
    return np.stack(frames)


@torch.no_grad()
def real_samples(teacher: Teacher, given: world.Attributes, count: int) -> np.ndarray:
    """Like `teacher_samples`, of real continuations through the autoencoder."""
    clips = [continuations(given[slice(i, i + 1)], count, i) for i in range(len(given))]
    return np.stack(
        [
            to_frames(teacher.decode(teacher.encode(world.render(several) * 2 - 1)))
            for several in track(clips, "real continuations")
        ]
    )


def measure(
    folder: str | Path, out: str | Path, images: int = 48, samples: int = 16
) -> dict[str, Any]:
    """Measure the model in `folder` and write `out` (JSON); returns what it wrote."""
    folder, started = Path(folder), time.monotonic()
    defaults = read_defaults(folder, Defaults(**TOY_I2V.defaults))
    teacher, given = Teacher(folder), held_out(images, seed=1)
    p = direction_probabilities(given)
    nats = torch.special.entr(p).sum(1).mean()
    result: dict[str, Any] = {
        "teacher_sha256": weights_sha256(folder / "transformer"),
        "images": images,
        "samples_an_image": samples,
        "direction_entropy_exact": float(nats) / float(np.log(world.DIRECTIONS)),
        "real": quality_of(real_samples(teacher, given, samples), given),
        "steps": defaults.steps,
        "shift": defaults.shift,
        "teacher": {},
    }
    for cfg in dict.fromkeys((defaults.cfg, 1.0)):
        frames = teacher_samples(teacher, given, samples, cfg, defaults.steps, defaults.shift)
        result["teacher"][f"cfg_{cfg:g}"] = quality_of(frames, given)
    result["seconds"] = round(time.monotonic() - started, 1)
    write_json(out, result)
    return result
