"""`dfdbench generate`: a suite's prompts × seeds become clips under RUN/videos/<suite>/.

Used by cli.py, study.py and regress.py; scoring reads what it writes. Every clip starts from
noise drawn from (prompt id, seed) alone, so neither batch size nor order nor a resume changes it
(but for the last bit of batched matrix products, which moves few pixels by one grey level).
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfdbench.distill.stages import grid
from dfdbench.errors import UserError, unknown_name
from dfdbench.files import sha256_file, write_text
from dfdbench.models import Conditioning, Family, concatenate, load_family
from dfdbench.progress import Bar
from dfdbench.recipe import recipe_from_dict
from dfdbench.run import Run, weights_sha256
from dfdbench.sampling import batch_noise, predictor, sample_student, sample_teacher
from dfdbench.suites import TOY_PICTURE, Prompt, Suite
from dfdbench.suites.images import crop, nearest_ratio
from dfdbench.suites.vbench import TOY
from dfdbench.toy.real import opening, real_clip, real_continuation, write_first_frame
from dfdbench.toy.world import render
from dfdbench.video import read_image, write_video

UNTRAINED = ("teacher", "real")
"""Arms that need no training; `reference_run` makes their run folders."""


@dataclass(frozen=True)
class Item:
    """One clip to make; `seed` is its generation seed, not a training seed.

    image: the first frame that it should continue, where the suite has one.
    """

    prompt: Prompt
    seed: int
    image: Path | None = None

    @property
    def path(self) -> str:
        """Where the clip lies, relative to samples.jsonl."""
        return f"{self.prompt.id}/{self.seed}.mp4"


class Maker:
    """One arm's way from items to clips.

    make: items to float clips (B 3 T H W) in [-1, 1]. settings: what the clips depend on beside
    prompt and seed; a clip made with other settings is stale.
    """

    def __init__(
        self, settings: dict[str, Any], make: Callable[[Sequence[Item]], Tensor], fps: int
    ) -> None:
        self.settings, self.make, self.fps = settings, make, fps


def parse_seeds(text: str) -> list[int]:
    """Seeds of `1-8` or `1,2,5` or a mix, sorted, each once."""
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            seeds.update(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise UserError(f"--seeds {text}: write seeds like 1-8 or 1,2,5") from None
    if not seeds:
        raise UserError(f"--seeds {text}: no seed in it; write seeds like 1-8 or 1,2,5")
    return sorted(seeds)


def to_uint8(video: Tensor) -> np.ndarray:
    """(3 T H W) in [-1, 1] to uint8 RGB (T H W 3)."""
    scaled = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 3, 0).cpu().numpy())


def _shape(run: Run, family: Family) -> tuple[int, int, int]:
    """Frames, height and width of the run's clips: its recipe's, else the model's own."""
    d, data = family.defaults, run.info.get("recipe", {}).get("data", {})
    frames, height, width = (data.get(name) for name in ("frames", "height", "width"))
    return frames or d.frames, height or d.height, width or d.width


def _items(
    suite: Suite, seeds: Sequence[int] | None, folder: Path, shape: tuple[int, int, int]
) -> list[Item]:
    """Every clip of the suite; a toy's first frames are written beside the clips."""
    _, height, width = shape
    items = []
    for prompt in suite.prompts:
        image = prompt.image
        if suite.images:
            image = crop(suite.images, prompt, nearest_ratio(width, height))
        if suite.conditions == TOY_PICTURE:
            image = folder / prompt.id / "first.png"
            write_first_frame(image, render(opening(prompt)))
        for seed in seeds or suite.seeds_of(prompt):
            if suite.conditions == TOY:
                image = folder / prompt.id / f"{seed}.png"
                write_first_frame(image, real_clip(prompt, seed))
            items.append(Item(prompt, seed, image))
    return items


def _conditions(
    family: Family, shape: tuple[int, int, int]
) -> Callable[[Sequence[Item]], Conditioning]:
    """Encodes the prompts of items, each distinct text once, and the first frames of their clips.

    shape: frames, height and width of the clips.
    """
    known: dict[str, Conditioning] = {}

    def encode(items: Sequence[Item]) -> Conditioning:
        for text in {item.prompt.text for item in items} - set(known):
            known[text] = family.encode_prompt([text])
        both = concatenate([known[item.prompt.text] for item in items])
        return both.given(_first_latents(family, items, shape)) if family.clean_frames else both

    return encode


def _first_latents(
    family: Family, items: Sequence[Item], shape: tuple[int, int, int]
) -> Tensor | None:
    """Latents (B C 1 H W) of the items' first frames, each fitted to the clip's size."""
    from dfdbench.data.sources import fit

    pictures = [read_image(item.image) for item in items]
    found = [fit(picture[None], *shape[1:]) for picture in pictures if picture is not None]
    if len(found) < len(items):
        return None
    pixels = torch.from_numpy(np.stack(found)).permute(0, 4, 1, 2, 3)
    return family.encode_video(pixels.float() / 127.5 - 1)


def _student_maker(run: Run, family: Family) -> Maker:
    """The student of a finished run, sampled as its recipe says."""
    if not (run.student / "transformer").is_dir():
        raise UserError(f"{run.path}: no student in it; finish it: dfdbench distill --resume")
    recipe = recipe_from_dict(run.info["recipe"], str(run.path))
    times = grid(recipe)
    settings = {
        "student_sha256": weights_sha256(run.student / "transformer"),
        "times": times.tolist(),
        "sampler": recipe.student.sampler,
    }
    module = family.load_student(run.student).eval().requires_grad_(False)
    clip = _shape(run, family)
    shape, encode = family.latent_shape(*clip), _conditions(family, clip)

    def make(items: Sequence[Item]) -> Tensor:
        ids, seeds = [item.prompt.id for item in items], [item.seed for item in items]

        def noise(step: int) -> Tensor:
            return batch_noise(ids, seeds, shape, step).to(family.device)

        predict = predictor(family, module, encode(items))
        x0 = sample_student(predict, noise(0), times, recipe.student.sampler, noise)
        return family.decode_latents(x0)

    return Maker(settings, make, family.defaults.fps)


def _teacher_maker(run: Run, family: Family) -> Maker:
    """The teacher at its recommended steps, shift, guidance and negative prompt."""
    d = family.defaults
    cfg = float(run.info.get("cfg", d.cfg))
    settings = {
        "teacher_sha256": weights_sha256(family.path / "transformer"),
        "steps": d.steps,
        "shift": d.shift,
        "cfg": cfg,
    }
    clip = _shape(run, family)
    shape, encode = family.latent_shape(*clip), _conditions(family, clip)
    negative = family.encode_prompt([d.negative_prompt])

    def make(items: Sequence[Item]) -> Tensor:
        noise = batch_noise([i.prompt.id for i in items], [i.seed for i in items], shape)
        repeated = negative.repeat(len(items))
        predict = predictor(family, family.teacher, encode(items), repeated, cfg)
        latents, _ = sample_teacher(predict, noise.to(family.device), d.steps, d.shift)
        return family.decode_latents(latents)

    return Maker(settings, make, d.fps)


def _real_maker(family: Family, suite: Suite) -> Maker:
    """Rendered toy clips through the family's autoencoder, as every other arm's pixels are."""
    rendered = real_continuation if suite.conditions == TOY_PICTURE else real_clip

    def make(items: Sequence[Item]) -> Tensor:
        clips = torch.cat([rendered(item.prompt, item.seed) for item in items])
        return family.decode_latents(family.encode_video(clips * 2 - 1))

    return Maker({}, make, family.defaults.fps)


def model_of(run: Run) -> str:
    """The model that a run was made with, as load_family takes it."""
    return str(run.info.get("model") or run.info["recipe"]["model"])


def reference_run(arm: str, out: Path, model: str = "toy-t2v", cfg: float | None = None) -> Run:
    """The run folder of an arm that was not trained: `teacher` or `real`; made when absent.

    cfg: guidance of the teacher instead of the model's recommended one.
    """
    if arm not in UNTRAINED:
        raise unknown_name("arm", arm, UNTRAINED)
    if (out / "run.json").exists():
        run = Run.open(out)
        if run.arm != arm or model_of(run) != model:
            raise UserError(f"{out} holds arm {run.arm} of {model_of(run)}; choose another --out")
        return run
    info: dict[str, Any] = {"arm": arm, "method": arm, "model": model, "status": "finished"}
    return Run.create(out, info if cfg is None else {**info, "cfg": cfg})


def open_run(
    path: Path | None, arm: str | None, out: Path | None, model: str, cfg: float | None
) -> Run:
    """The run to generate for: an existing one, or that of an untrained arm."""
    if (path is None) == (arm is None):
        raise UserError("name either a run folder or --arm teacher or --arm real")
    if path is not None:
        return Run.open(path)
    assert arm is not None
    return reference_run(arm, out or Path("runs") / arm, model, cfg)


def complete(
    inputs: Sequence[Path], suite: Suite, seeds: Sequence[int] | None, batch_size: int, device: str
) -> None:
    """Generate what the runs among `inputs` lack of the suite; other inputs are left alone."""
    families: dict[str, Family] = {}
    for path in inputs:
        if (path / "run.json").is_file():
            run = Run.open(path)
            model = model_of(run)
            if model not in families:
                families = {model: open_family(model, device)}  # one model in memory
            generate(run, suite, seeds, batch_size, family=families[model])


def _finished(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of samples.jsonl whose clip is there, intact and made with these settings."""
    manifest = folder / "samples.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else []
    rows = [json.loads(line) for line in lines]  # written whole, so never cut short
    return {
        row["path"]: row
        for row in rows
        if row.get("settings") == settings
        and (folder / row["path"]).is_file()
        and sha256_file(folder / row["path"]) == row["sha256"]
    }


def _write_manifest(folder: Path, items: Sequence[Item], rows: dict[str, dict[str, Any]]) -> None:
    """Rewrite samples.jsonl: `items` in order, then rows of earlier calls with other seeds."""
    paths = [item.path for item in items]
    order = [p for p in paths if p in rows] + sorted(set(rows) - set(paths))
    lines = (json.dumps(rows[path], ensure_ascii=False) for path in order)
    write_text(folder / "samples.jsonl", "".join(f"{line}\n" for line in lines))


def generate(
    run: Run,
    suite: Suite,
    seeds: Sequence[int] | None = None,
    batch_size: int = 16,
    device: str = "auto",
    family: Family | None = None,
) -> Path:
    """Make what is missing of the suite's clips of one run; returns the path of samples.jsonl.

    Args:
        run: a distilled run, or one of `reference_run` (arms teacher and real).
        seeds: generation seeds; the suite's own if None.
        batch_size: clips sampled at once.
        family: the run's model, to share a loaded one.

    A clip that is there with the right hash and settings is never made again; one of an older
    student or autoencoder is. After every batch samples.jsonl is rewritten, so a killed call loses
    one batch.

    Raises:
        UserError: a suite without prompts, or a run without a student.
    """
    if not suite.prompts:
        raise UserError(f"suite {suite.name} brings no prompts; its videos come from a manifest")
    if family is None:
        family = open_family(model_of(run), device)
    if run.arm == "real":
        maker = _real_maker(family, suite)
    else:
        maker = (_teacher_maker if run.arm == "teacher" else _student_maker)(run, family)
    maker.settings["vae_sha256"] = weights_sha256(family.path / "vae")  # it decoded every clip
    folder = run.path / "videos" / suite.name
    items = _items(suite, seeds, folder, _shape(run, family))
    rows = _finished(folder, maker.settings)
    todo = [item for item in items if item.path not in rows]
    with Bar(len(items), f"generating {run.arm}", done=len(items) - len(todo)) as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            with torch.no_grad():
                clips = maker.make(batch)
            for item, clip in zip(batch, clips, strict=True):
                rows[item.path] = _write_clip(folder, item, clip, maker, run)
            _write_manifest(folder, items, rows)
            bar.step(len(batch))
    for item in items:
        rows[item.path] |= _image(folder, item)  # of earlier calls, the images may have moved
    _write_manifest(folder, items, rows)
    return folder / "samples.jsonl"


def _write_clip(folder: Path, item: Item, clip: Tensor, maker: Maker, run: Run) -> dict[str, Any]:
    frames = to_uint8(clip)
    write_video(folder / item.path, frames, maker.fps)
    return {
        "path": item.path,
        "prompt_id": item.prompt.id,
        "prompt": item.prompt.text,
        "seed": item.seed,
        "method": run.arm,
        "sha256": sha256_file(folder / item.path),
        "frames": len(frames),
        "fps": maker.fps,
        "model": model_of(run),
        "student_sha256": maker.settings.get("student_sha256"),
        "settings": maker.settings,
    } | _image(folder, item)


def _image(folder: Path, item: Item) -> dict[str, Any]:
    """The column that names a clip's first frame, if it has one."""
    if item.image is None:
        return {}
    return {"image": Path(os.path.relpath(item.image, folder)).as_posix()}


def open_family(model: str, device: str = "auto") -> Family:
    """The model on `device`; `auto` is CUDA with a bfloat16 teacher where there is a GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no CUDA device here; use --device cpu")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return load_family(model, dtype, device)
