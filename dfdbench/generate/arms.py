"""An arm's way from the clips that are wanted to their latents: student, teacher, or the real ones.

Used by clips.py. Every clip starts from noise drawn from (prompt id, seed) alone, so neither
batch size nor order nor a resume changes it, but for the last bit of batched matrix products: of
the toy teacher's frames 16 values in a million move by one grey level between batches of 1 and 8.
H.264 makes more of that than it is: x264 decides otherwise, and of the values read back from the
files 22 % differ, by .36 grey levels in the mean and up to 15. A clip's mean saturation
moves by .0002 at most (spread between clips .025), scores of extremes and slopes by more (sprite
speed 11 % of its spread, drift of saturation 14 %, clipped share 74 %), and a reading that a clip
leaves open may turn (one direction of eight). To repeat files to the byte, repeat the batch size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dfdbench.distill.stages import grid, recipe_of
from dfdbench.generate.real import opening, real_clip, real_continuation
from dfdbench.generate.suites.base import TOY_FIRST_FRAME, Prompt, Suite
from dfdbench.generate.suites.vbench import TOY
from dfdbench.models.conditioning import Conditioning, concatenate
from dfdbench.models.family import ModelFamily
from dfdbench.models.sampling import (
    batch_noise,
    compile_blocks,
    compute_precision,
    predictor,
    sample_blocks,
    sample_student,
    sample_teacher,
)
from dfdbench.utils.device import uses_tf32
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.run import RUN_FILE, Run, weights_sha256
from dfdbench.utils.video import fit, read_image

HELD_BYTES = 2**31  # of prompt embeddings, at a time


@dataclass(frozen=True)
class Item:
    """One clip to make; `seed` is its generation seed, not a training seed.

    image: the first frame that it should continue, where the suite has one.
    """

    prompt: Prompt
    seed: int
    image: Path | None = None

    @property
    def text(self) -> str:
        """What the clip is generated from."""
        return self.prompt.source_text

    @property
    def path(self) -> str:
        """Where the clip lies, relative to samples.jsonl."""
        return f"{self.prompt.id}/{self.seed}.mp4"


Sample = Callable[[Sequence[Item]], Tensor]  # of a batch of clips: their latents (B C T H W)


class ArmSampler(NamedTuple):
    """One arm's way from items to latents (B C T H W).

    settings: what the clips depend on beside prompt and seed; a clip made with other settings is
    stale. prepare: loads what sampling these items takes, and gives the sampler.
    """

    settings: dict[str, Any]
    prepare: Callable[[Sequence[Item]], Sample]


def clip_shape(run: Run, family: ModelFamily) -> tuple[int, int, int]:
    """Frames, height and width of the run's clips: its recipe's, else the model's own."""
    d, data = family.defaults, run.info.get("recipe", {}).get("data", {})
    frames, height, width = (data.get(name) for name in ("frames", "height", "width"))
    return frames or d.frames, height or d.height, width or d.width


class Conditions:
    """Conditioning of items: the prompts' embeddings, and first frames.

    Of the embeddings as many as HELD_BYTES takes lie on the CPU: one of Cosmos-Predict2.5 has
    103 MB, those of a suite a hundred GB. The text encoder is let go of when they are made, and
    loaded again for the prompts that follow.

    Args:
        shape: frames, height and width of the clips.
        texts: of all items that will come, in their order.
    """

    def __init__(
        self, family: ModelFamily, shape: tuple[int, int, int], texts: Iterable[str] = ()
    ) -> None:
        self.family, self.shape = family, shape
        self.order = list(dict.fromkeys(texts))
        self.embedded: dict[str, Conditioning] = {}

    def fill(self, wanted: Sequence[str]) -> None:
        """Encode each distinct text of `wanted`, and those that follow in the order, while there is
        room; then let go of the text encoder."""
        needed = dict.fromkeys(wanted)
        held = {text: self.embedded[text] for text in needed if text in self.embedded}
        self.embedded = held
        after = self.order.index(wanted[-1]) + 1 if wanted[-1] in self.order else len(self.order)
        new = 0
        for text in [*needed, *self.order[after:]]:
            if text not in needed and sum(map(_size, held.values())) >= HELD_BYTES:
                break
            if text not in held:
                held[text] = self.family.encode_prompt([text]).to("cpu")
                new += 1
        self.family.release("text_encoder")
        self.family.warn_of_cut_prompts(new)

    def __call__(self, items: Sequence[Item]) -> Conditioning:
        """Of a batch, on the family's device."""
        texts = [item.text for item in items]
        if not self.embedded.keys() >= set(texts):
            self.fill(texts)
        both = concatenate([self.embedded[text] for text in texts]).to(self.family.device)
        if not self.family.conditioning_frames:
            return both
        return both.given(_first_latents(self.family, items, self.shape))


def _size(conditioning: Conditioning) -> int:
    """Bytes of a prompt's embedding."""
    return conditioning.prompt_embeds.nbytes


def _first_latents(
    family: ModelFamily, items: Sequence[Item], shape: tuple[int, int, int]
) -> Tensor | None:
    """Latents (B C 1 H W) of the items' first frames, each fitted to the clip's size."""
    images = [read_image(item.image) for item in items]
    fitted = [fit(image[None], *shape[1:]) for image in images if image is not None]
    if len(fitted) < len(items):
        return None
    pixels = torch.from_numpy(np.stack(fitted)).permute(0, 4, 1, 2, 3)
    return family.encode_video(pixels.float() / 127.5 - 1)


def student_settings(run: Run, family: ModelFamily) -> dict[str, Any]:
    """What every clip of a run's student depends on."""
    if not (run.student / "transformer").is_dir():
        raise UserError(f"{run.path}: no student in it; finish it: dfdbench distill --resume")
    recipe = recipe_of(run)
    return {
        "student_sha256": weights_sha256(run.student / "transformer"),
        "times": grid(recipe).tolist(),
        "sampler": recipe.student.sampler,
        **_precision(family),
    }


def load_student(run: Run, family: ModelFamily, compiled: bool) -> nn.Module:
    """The student of a run, ready to sample.

    Raises:
        UserError: it cannot be loaded, or is not causal as its recipe says.
    """
    layout = recipe_of(run).student.layout
    try:
        module = family.load_student(run.student).eval().requires_grad_(False)
        own = family.causal.layout(module) if layout and family.causal else layout
    except UserError as error:
        if clean(str(run.path)) in str(error):
            raise
        raise UserError(f"{run.student}: {error}; restore the folder from a copy") from None
    if own != layout:
        raise UserError(
            f"{run.student}: its network has {own}, the run's recipe {layout}; restore the folder "
            f"or {RUN_FILE} from a copy"
        )
    if compiled:
        compile_blocks(family, module)
    return module


def student_sampler(run: Run, family: ModelFamily, compiled: bool) -> ArmSampler:
    """The student of a finished run, sampled as its recipe says."""
    settings = student_settings(run, family)
    recipe = recipe_of(run)
    times = grid(recipe)
    clip = clip_shape(run, family)
    shape = family.latent_shape(*clip)

    def prepare(wanted: Sequence[Item]) -> Sample:
        texts = [item.text for item in wanted]
        encode = Conditions(family, clip, texts)
        encode.fill(texts[:1])  # before the network is there
        module = load_student(run, family, compiled)

        def sample(items: Sequence[Item]) -> Tensor:
            ids, seeds = [item.prompt.id for item in items], [item.seed for item in items]

            def noise(step: int) -> Tensor:
                return batch_noise(ids, seeds, shape, step).to(family.device)

            conditions, sampler = encode(items), recipe.student.sampler
            with compute_precision(family.device):
                if recipe.student.layout:
                    start = noise(0)
                    return torch.cat(
                        [*sample_blocks(family, module, conditions, start, times, sampler, noise)],
                        2,
                    )
                predict = predictor(family, module, conditions)
                return sample_student(predict, noise(0), times, sampler, noise)

        return sample

    return ArmSampler(settings, prepare)


def teacher_sampler(run: Run, family: ModelFamily, compiled: bool) -> ArmSampler:
    """The teacher at its recommended shift and negative prompt, and steps and guidance but for the
    run's own."""
    d = family.defaults
    cfg, steps = float(run.info.get("cfg", d.cfg)), int(run.info.get("steps", d.steps))
    settings = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "steps": steps,
        "shift": d.shift,
        "cfg": cfg,
    }
    clip = clip_shape(run, family)
    shape = family.latent_shape(*clip)

    def prepare(wanted: Sequence[Item]) -> Sample:
        texts = [item.text for item in wanted]
        encode = Conditions(family, clip, texts)
        negative = family.encode_prompt([d.negative_prompt])
        encode.fill(texts[:1])  # before the network is there
        if compiled:
            compile_blocks(family, family.teacher)

        def sample(items: Sequence[Item]) -> Tensor:
            noise = batch_noise([i.prompt.id for i in items], [i.seed for i in items], shape)
            repeated = negative.repeat(len(items))
            predict = predictor(family, family.teacher, encode(items), repeated, cfg)
            with compute_precision(family.device):
                latents, _ = sample_teacher(predict, noise.to(family.device), steps, d.shift)
            return latents

        return sample

    return ArmSampler(settings | _precision(family), prepare)


def real_sampler(family: ModelFamily, suite: Suite) -> ArmSampler:
    """Rendered toy clips through the family's autoencoder, as every other arm's pixels are."""
    by_conditions = {TOY_FIRST_FRAME: real_continuation, TOY: opening}
    rendered = by_conditions.get(suite.conditions, real_clip)

    def sample(items: Sequence[Item]) -> Tensor:
        clips = torch.cat([rendered(item.prompt, item.seed) for item in items])
        return family.encode_video(clips * 2 - 1)

    return ArmSampler({}, lambda wanted: sample)


def _precision(family: ModelFamily) -> dict[str, Any]:
    """Named among the settings where it is not float32; tf32: of the autoencoder, float32 else."""
    if family.device.type == "cpu":
        return {}
    return {"compute": "bfloat16", "tf32": uses_tf32(family.device)}
