"""`distill`: trains a student by the method its recipe names and leaves a run folder.

Behind `dfdbench distill`. Owns optimisers, cadence, precision, clipping, checkpoints and the log;
knows neither methods nor models by name.
"""

import copy
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dfdbench.distill import checkpoint, diagnostics, stages
from dfdbench.distill.checkpoint import Position
from dfdbench.distill.data import Clips, load_clips
from dfdbench.distill.discriminator import Heads, tapped_blocks
from dfdbench.distill.methods import Method, get_method
from dfdbench.distill.nets import Batch, LossReport, Networks
from dfdbench.distill.streams import Stream, seeded
from dfdbench.errors import UserError
from dfdbench.files import trim_jsonl
from dfdbench.models import Family, load_family
from dfdbench.progress import Bar
from dfdbench.recipe import Recipe
from dfdbench.run import Run, weights_sha256

LossFunction = Callable[[Batch, Networks, Recipe, Stream], LossReport]


def distill(
    recipe: Recipe,
    out: str | Path,
    resume: bool = False,
    init: str | Path | None = None,
    device: str | None = None,
) -> Run:
    """Train a student and return its finished run.

    Args:
        out: run folder to make, or with `resume` to go on with (a finished one is returned as is).
        init: finished run whose student and fake score to start from; without it a recipe with
            [init] makes or reuses that run beside `out`.
        device: "cpu" or "cuda"; by default CUDA where there is one. On CUDA networks compute in
            bfloat16 over float32 master weights.

    Raises:
        UserError: recipe, model, `init` or an existing `out` do not fit, or the loss is not finite.
    """
    out, init = Path(out), None if init is None else Path(init)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    method = get_method(recipe.method)
    family = load_family(
        recipe.model, torch.float32 if where.type == "cpu" else torch.bfloat16, where
    )
    stages.check_family(recipe, family)
    recipe = stages.resolve(recipe, family.defaults)
    method.record(recipe, family)  # refuses what cannot work before anything is trained

    existing = Run.open(out) if (out / "run.json").is_file() else None
    if existing and not resume:
        raise UserError(f"{out} already holds a run; pass --resume or another --out")
    parent = stages.parent_run(
        recipe, out, init, family, lambda first, path: distill(first, path, True, None, device)
    )
    if existing:
        stages.check_resume(existing, recipe, parent)
        if existing.finished:
            return existing
    clips = load_clips(recipe, family)
    nets = build_networks(recipe, family, method, parent, where)
    family.release("text_encoder")
    dtypes = {"master": "float32", "compute": str(nets.autocast or torch.float32).split(".")[1]}
    run = existing or Run.create(out, stages.describe(recipe, family, clips, parent, out, dtypes))
    return Trainer(recipe, method, nets, clips, run, parent).train()


def build_networks(
    recipe: Recipe, family: Family, method: Method, parent: Run | None, device: torch.device
) -> Networks:
    """Student and fake score from the parent run or the teacher, and heads for a GAN."""
    student = family.load_student(parent.student) if parent else family.new_module()
    critic = family.load_network(parent.critic) if parent else family.new_module()
    heads, blocks = None, tuple[int, ...]()
    if method.uses_gan(recipe):
        blocks = tapped_blocks(recipe.dmd2, family.block_count(critic))
        with torch.random.fork_rng():
            torch.manual_seed(seeded("cpu", recipe.seed, "heads").initial_seed())
            heads = Heads(len(blocks), family.feature_width(critic)).to(device)
    gan_teacher = recipe.dmd2.gan_features == "teacher"
    if recipe.optim.gradient_checkpointing:
        for module in (student, critic, *([family.teacher] if heads and gan_teacher else [])):
            family.save_memory(module)
    return Networks(
        family=family,
        student=student,
        critic=critic,
        negative=family.encode_prompt([recipe.teacher.negative or ""]),
        cfg=1.0 if recipe.teacher.cfg is None else recipe.teacher.cfg,
        guidance_passes=recipe.teacher.guidance_passes,
        times=stages.grid(recipe),
        heads=heads,
        gan_teacher=gan_teacher,
        blocks=blocks,
        autocast=torch.bfloat16 if device.type == "cuda" else None,
        device=device,
    )


class Trainer:
    """One run's training: five iterations (ratio) a student update, the first on the student."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        nets: Networks,
        clips: Clips,
        run: Run,
        parent: Run | None,
    ) -> None:
        self.recipe, self.method, self.nets, self.clips = recipe, method, nets, clips
        self.run, self.parent = run, parent
        # A second stage goes on with the parent's data order and noise, so that two arms that
        # continue one run see the same.
        self.first_iteration = parent.info["iterations_total"] if parent else 0
        o = recipe.optim
        self.student_params = [*nets.student.parameters()]
        heads = [*nets.heads.parameters()] if nets.heads else []
        self.critic_params = [*nets.critic.parameters(), *heads]
        groups = [{"params": [*nets.critic.parameters()], "lr": o.fake_lr}]
        if heads:
            groups.append({"params": heads, "lr": recipe.dmd2.gan_lr or o.fake_lr})
        adamw = partial(torch.optim.AdamW, betas=o.betas, weight_decay=o.weight_decay, fused=True)
        self.optimisers = {
            "student": adamw(self.student_params, lr=o.lr),
            "critic": adamw(groups, lr=o.fake_lr),
        }
        self.modules: dict[str, nn.Module] = {"student": nets.student, "critic": nets.critic}
        if nets.heads is not None:
            self.modules["heads"] = nets.heads
        if o.ema:
            self.modules["ema"] = copy.deepcopy(nets.student).requires_grad_(False)
        self.recorder = diagnostics.Recorder(run.metrics_file, recipe.schedule.shift, nets.device)

    def train(self) -> Run:
        """Go on from the newest checkpoint to the end."""
        recipe, total = self.recipe, self.recipe.schedule.student_updates
        position = checkpoint.restore(
            self.run.checkpoints, self.modules, self.optimisers, self.nets.device
        )
        trim_jsonl(self.run.metrics_file, "update", position.updates)
        saved = time.monotonic()
        started = saved - position.seconds
        with Bar(total, f"{recipe.arm} seed {recipe.seed}", done=position.updates) as bar:
            for update in range(position.updates + 1, total + 1):
                self.cycle(update)
                now = time.monotonic()
                due = now - saved >= recipe.checkpoint.every_seconds
                if recipe.checkpoint.every_updates:
                    due = due or update % recipe.checkpoint.every_updates == 0
                if due or update == total or update % recipe.log.every == 0:
                    self.flush(update)
                if due or update == total:
                    position = Position(update, now - started)
                    keep = recipe.checkpoint.keep
                    checkpoint.save(
                        self.run.checkpoints, position, self.modules, self.optimisers, keep
                    )
                    saved = time.monotonic()
                bar.step()
        return self.finish(time.monotonic() - started)

    def cycle(self, update: int) -> None:
        """One student update and the fake score's that follow it, and what is logged of them."""
        ratio = self.recipe.schedule.ratio
        first = self.first_iteration + (update - 1) * ratio
        line = self.step("student", first)
        if "ema" in self.modules:
            self.average(self.modules["ema"])
        critics = [self.step("critic", first + i) for i in range(1, ratio)]
        for name in critics[0]:
            line[name] = torch.stack([values[name] for values in critics]).mean()
        self.recorder.add_line("update", update, dict(line))
        self.probe(update, first)

    @torch.no_grad()
    def average(self, average: nn.Module) -> None:
        """Move the exponential average of the student's weights."""
        for kept, new in zip(average.parameters(), self.student_params, strict=True):
            kept.lerp_(new, 1 - self.recipe.optim.ema)

    def step(self, role: str, iteration: int) -> dict[str, Tensor]:
        """One optimiser step of `role`; returns its loss parts and gradient norm."""
        o, nets = self.recipe.optim, self.nets
        student = role == "student"
        loss_of: LossFunction = self.method.student_loss if student else self.method.critic_loss
        params = self.student_params if student else self.critic_params
        if nets.heads is not None:
            nets.train_only(*((nets.student,) if student else (nets.critic, nets.heads)))
        size = o.batch // o.accumulate
        parts: dict[str, Tensor] = {}
        for round_ in range(o.accumulate):
            batch = self.clips.batch(iteration * o.batch + round_ * size, size)
            rng = Stream(self.recipe.seed, iteration, round_, nets.device)
            report = loss_of(batch, nets, self.recipe, rng)
            (report.loss / o.accumulate).backward()
            self.recorder.add_bins(report)
            for name, value in report.parts.items():
                parts[name] = parts.get(name, 0) + value / o.accumulate
        norm = torch.nn.utils.clip_grad_norm_(params, o.clip or float("inf"))
        self.optimisers[role].step()
        self.optimisers[role].zero_grad(set_to_none=True)
        return parts | {f"{role}_gradient_norm": norm}

    def probe(self, update: int, iteration: int) -> None:
        """Measurements that cost passes of their own, every so many updates."""
        log = self.recipe.log
        look = log.decode_every and update % log.decode_every == 0
        if not look and not (log.probe_every and update % log.probe_every == 0):
            return
        size = self.recipe.optim.batch // self.recipe.optim.accumulate
        batch = self.clips.batch(iteration * self.recipe.optim.batch, size)
        rng = Stream(self.recipe.seed, iteration, -1, self.nets.device)
        bins, made = diagnostics.discrepancy(
            self.method.generate, batch, self.nets, self.recipe, rng
        )
        self.recorder.add_bins(LossReport(made, {}, bins))
        if look:
            values = diagnostics.decoded_look(self.nets, made, batch.latents, log.decode_count)
            self.recorder.add_line("probe", update, dict(values))

    def flush(self, update: int) -> None:
        """Write the log; stop where a loss or a gradient is no longer finite."""
        broken = self.recorder.flush(update)
        if broken:
            last = checkpoint.found(self.run.checkpoints)
            good = f"last good checkpoint: {last[-1]}" if last else "no checkpoint was written yet"
            raise UserError(
                f"training of {self.run.path} diverged ({broken[0]} is not finite); {good}; lower "
                "optim.lr or optim.fake_lr"
            )

    def finish(self, seconds: float) -> Run:
        """Save the student and the fake score, drop resume points, complete run.json."""
        family, run, s = self.nets.family, self.run, self.recipe.schedule
        family.save_student(self.modules.get("ema", self.nets.student), run.student)
        family.save_network(self.nets.critic, run.critic)
        before = run.info["parent"] or {}
        run.update(
            status="finished",
            student_updates=s.student_updates,
            fake_updates=s.student_updates * (s.ratio - 1),
            wall_seconds=round(seconds, 1),
            student_updates_total=before.get("student_updates", 0) + s.student_updates,
            iterations_total=self.first_iteration + s.student_updates * s.ratio,
            wall_seconds_total=round(before.get("wall_seconds_total", 0.0) + seconds, 1),
            student_sha256=weights_sha256(run.student / "transformer"),
            critic_sha256=weights_sha256(run.critic),
            device=_device_name(self.nets.device),
        )
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return run


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
