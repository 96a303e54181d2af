"""`distill`: trains a student by the method its recipe names and leaves a run folder.

Behind `dfdbench distill`. Owns optimisers, cadence, precision, clipping, checkpoints and the log;
knows neither methods nor models by name.
"""

import gc
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfdbench.distill import checkpoint, diagnostics, parallel, stages, start, statistics
from dfdbench.distill.batch import Batch
from dfdbench.distill.checkpoint import Position
from dfdbench.distill.data.clips import Clips, check_source, load_clips, negative_embedding
from dfdbench.distill.discriminator import Heads, load_heads, save_heads, tapped_blocks
from dfdbench.distill.methods import Method, get_method
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.optimisers import adamw, check_optimiser
from dfdbench.distill.parallel import Group
from dfdbench.distill.record import describe
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import Stream, seeded
from dfdbench.models.blocks import run_blocks
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family, resolve_folder
from dfdbench.utils.device import compute_dtype, uses_tf32
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import trim_jsonl
from dfdbench.utils.folders import locked
from dfdbench.utils.progress import Bar
from dfdbench.utils.run import Run, weights_sha256
from dfdbench.utils.stopping import Stopped, deferred

LossFunction = Callable[[Batch, Networks, Recipe, Stream], LossReport]
STORED = {"student": "student", "fake_score": "critic"}
"""Names of the trained networks in checkpoints and metrics.jsonl."""


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
            bfloat16 over float32 master weights. Under torchrun all processes call this alike.

    Raises:
        UserError: recipe, model, `init` or an existing `out` do not fit, the loss is not finite, or
            a checkpoint cannot be written, or another process trains in `out`.
        Stopped: SIGINT, SIGTERM or SIGHUP came; a checkpoint of the update was written.
    """
    with parallel.joined(device) as group:
        return _distill(recipe, Path(out), resume, None if init is None else Path(init), group)


def _distill(recipe: Recipe, out: Path, resume: bool, init: Path | None, group: Group) -> Run:
    where, method = group.device, get_method(recipe.method)
    group.rounds(recipe.optim.accumulate, recipe.optim.batch)  # refuses what cannot be shared
    check_optimiser(recipe.optim, group.size)
    existing = Run.open(out) if (out / "run.json").is_file() else None
    if existing and not resume:
        raise UserError(f"{out} already holds a run; pass --resume or another --out")
    if not (existing and existing.finished):
        check_source(recipe)
    parallel.patiently(lambda: resolve_folder(recipe.model), group)
    with group.main_process_first():
        family = load_family(recipe.model, compute_dtype(where.type), where)
    stages.check_family(recipe, family)
    recipe = stages.resolve(recipe, family.defaults)
    method.record(recipe, family)  # refuses what cannot work before anything is trained
    parent = stages.parent_run(
        recipe,
        out,
        init,
        family,
        train=lambda first, path: _first_stage(first, path, group),
        talk=group.is_main,
    )
    with ExitStack() as held:

        def hold() -> None:
            held.enter_context(locked(out))

        if existing:
            stages.check_resume(existing, recipe, parent)
            if existing.finished:
                return existing
            group.on_main(hold)
            existing = Run.open(out)  # another process may have come to its end meanwhile
            if existing.finished:
                return existing
        with group.main_process_first():
            clips = load_clips(recipe, family)
            negative = negative_embedding(recipe, clips, family)
        nets = build_networks(recipe, family, method, parent, group, negative)
        if not clips.encodes:
            family.release("text_encoder")
        compute = str(nets.autocast or torch.float32).split(".")[1]
        dtypes = {"master": "float32", "compute": compute}
        dtypes |= {"autoencoder": "tf32"} if uses_tf32(where) else {}

        def create() -> dict[str, Any]:
            hold()
            said = describe(recipe, family, clips, parent, out, dtypes, nets.blocks)
            return Run.create(out, said).info

        run = existing or Run(out, group.on_main(create))
        return Trainer(recipe, method, nets, clips, run, parent, group).train()


def _first_stage(recipe: Recipe, out: Path, group: Group) -> Run:
    """Train the run that another starts from, and free its networks before that one's are made."""
    run = _distill(recipe, out, True, None, group)
    gc.collect()  # networks, optimisers and their hooks refer to one another
    torch.cuda.empty_cache()
    return run


def build_networks(
    recipe: Recipe,
    family: ModelFamily,
    method: Method,
    parent: Run | None,
    group: Group,
    negative: Conditioning,
) -> Networks:
    """Student and fake score from the parent run or the teacher, and heads for a GAN.

    The parent's student is what it saved, the average where it kept one; its fake score is the
    last, as it follows the student.
    """
    device = group.device
    autocast = torch.bfloat16 if device.type == "cuda" else None
    student, fake_score, ema, skeletons = start.trained_networks(recipe, family, parent, group)
    heads, blocks = None, tuple[int, ...]()
    if method.uses_gan(recipe):
        blocks = tapped_blocks(recipe.gan, family.block_count(fake_score))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded("cpu", recipe.seed, "heads").initial_seed())
            heads = Heads(len(blocks), family.feature_width(fake_score)).to(device)
        if begun := stages.parent_heads(recipe, parent, blocks):
            load_heads(heads, begun)
    if heads is not None and group.size > 1:
        skeletons["heads"] = parallel.skeleton(heads)
        parallel.shard(heads, (), group)
    o = recipe.optim
    for module in (student, fake_score, family.teacher):
        run_blocks(family.blocks(module), o.attention, o.checkpointing, o.compile)
    return Networks(
        family=family,
        student=student,
        fake_score=fake_score,
        negative=negative,
        cfg=1.0 if recipe.teacher.cfg is None else recipe.teacher.cfg,
        guidance_passes=recipe.teacher.guidance_passes,
        times=stages.grid(recipe),
        heads=heads,
        gan_teacher=recipe.gan.features == "teacher",
        blocks=blocks,
        autocast=autocast,
        device=device,
        ema=ema,
        skeletons=skeletons,
        statistics=statistics.new_statistics(method, recipe, device),
    )


class Trainer:
    """One run's training: the first of `student_update_freq` iterations is the student's."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        nets: Networks,
        clips: Clips,
        run: Run,
        parent: Run | None,
        group: Group,
    ) -> None:
        self.recipe, self.method, self.nets, self.clips = recipe, method, nets, clips
        self.run, self.parent, self.group = run, parent, group
        # A second stage goes on with the parent's data order and noise, so that two arms that
        # continue one run see the same.
        self.first_iteration = parent.info["iterations_total"] if parent else 0
        o = recipe.optim
        self.student_params = [*nets.student.parameters()]
        heads = [*nets.heads.parameters()] if nets.heads else []
        self.fake_score_params = [*nets.fake_score.parameters(), *heads]
        groups = [{"params": [*nets.fake_score.parameters()], "lr": o.fake_lr}]
        if heads:
            groups.append({"params": heads, "lr": recipe.gan.lr or o.fake_lr})
        self.optimisers = {
            "student": adamw(o, self.student_params, o.lr),
            STORED["fake_score"]: adamw(o, groups, o.fake_lr),
        }
        self.modules: dict[str, nn.Module] = {
            "student": nets.student,
            STORED["fake_score"]: nets.fake_score,
        }
        more = {"heads": nets.heads, "ema": nets.ema, "statistics": nets.statistics}
        self.modules |= {name: module for name, module in more.items() if module is not None}
        self.recorder = diagnostics.Recorder(run.metrics_file, recipe.schedule.shift, group)

    def train(self) -> Run:
        """Go on from the newest checkpoint to the end."""
        recipe, total = self.recipe, self.recipe.schedule.student_updates
        group = self.group
        position = checkpoint.restore(
            self.run.checkpoints, self.modules, self.optimisers, self.nets.device, group
        )
        if group.is_main:
            trim_jsonl(self.run.metrics_file, "update", position.updates)
        saved = time.monotonic()
        started = saved - position.seconds
        label, quiet = f"{recipe.arm} seed {recipe.seed}", not group.is_main
        bar_of_updates = Bar(total, label, done=position.updates, quiet=quiet, stage="train")
        with deferred() as stop, bar_of_updates as bar:
            for update in range(position.updates + 1, total + 1):
                self.cycle(update)
                now = time.monotonic()
                # One process's clock, and its signals, decide for all.
                stopping, late = group.agree(
                    (stop.requested, now - saved >= recipe.checkpoint.every_seconds)
                )
                due = stopping or late
                if recipe.checkpoint.every_updates:
                    due = due or update % recipe.checkpoint.every_updates == 0
                if due or update == total or update % recipe.log.every == 0:
                    self.flush(update)
                if due or update == total:
                    position = Position(update, now - started)
                    keep = recipe.checkpoint.keep
                    checkpoint.save(
                        self.run.checkpoints, position, self.modules, self.optimisers, keep, group
                    )
                    saved = time.monotonic()
                bar.step()
                if stopping:
                    raise Stopped
        return self.finish(time.monotonic() - started)

    def cycle(self, update: int) -> None:
        """One student update and the fake score's that follow it, and what is logged of them."""
        freq = self.recipe.schedule.student_update_freq
        first = self.first_iteration + (update - 1) * freq
        line = self.step("student", first)
        if "ema" in self.modules:
            self.update_ema(self.modules["ema"], update)
        others = [self.step("fake_score", first + i) for i in range(1, freq)]
        for name in others[0] if others else ():
            line[name] = torch.stack([values[name] for values in others]).mean()
        self.recorder.add_line("update", update, dict(line))
        self.probe(update, first)

    @torch.no_grad()
    def update_ema(self, ema: nn.Module, update: int) -> None:
        """Move the exponential moving average of the student's weights; before its start it is
        the student."""
        o = self.recipe.optim
        decay = o.ema if update >= o.ema_start else 0.0
        for kept, new in zip(ema.parameters(), self.student_params, strict=True):
            kept.lerp_(new, 1 - decay)

    def step(self, role: str, iteration: int) -> dict[str, Tensor]:
        """One optimiser step of `role`; returns its loss parts and gradient norm."""
        o, nets = self.recipe.optim, self.nets
        student = role == "student"
        loss_of: LossFunction = self.method.student_loss if student else self.method.fake_score_loss
        params = self.student_params if student else self.fake_score_params
        trained = (nets.student,) if student else (nets.fake_score, nets.heads)
        nets.train_only(*(module for module in trained if module is not None))
        rounds = self.group.rounds(o.accumulate, o.batch)
        nets.whole_batch = len(rounds) == self.group.size == 1
        if student:
            ahead = (self.drawn(iteration, round_) for round_ in rounds)
            statistics.survey(self.method, nets, self.recipe, self.group, ahead)
        parts: dict[str, Tensor] = {}
        rows: list[Tensor] = []
        for round_ in rounds:
            batch, rng = self.drawn(iteration, round_)
            report = loss_of(batch, nets, self.recipe, rng)
            (report.loss / len(rounds)).backward()
            self.recorder.add_bins(report)
            if report.observed is not None:
                rows.append(report.observed)
            for name, value in report.parts.items():
                parts[name] = parts.get(name, 0) + value / len(rounds)
        statistics.update(nets.statistics, rows, self.group)
        norm = parallel.local(torch.nn.utils.clip_grad_norm_(params, o.clip or float("inf")))
        optimiser = self.optimisers[STORED[role]]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return parts | {f"{STORED[role]}_gradient_norm": norm}

    def drawn(self, iteration: int, round_: int) -> tuple[Batch, Stream]:
        """Clips and random numbers of one accumulation round."""
        o, freq = self.recipe.optim, self.recipe.schedule.student_update_freq
        size, update = o.batch // o.accumulate, (iteration - self.first_iteration) // freq
        batch = self.clips.batch(iteration * o.batch + round_ * size, size)
        return batch, Stream(self.recipe.seed, iteration, round_, self.nets.device, update)

    def probe(self, update: int, iteration: int) -> None:
        """Measurements that cost passes of their own, every so many updates."""
        log = self.recipe.log
        look = log.decode_every and update % log.decode_every == 0
        if not look and not (log.probe_every and update % log.probe_every == 0):
            return
        batch, _ = self.drawn(iteration, 0)
        rng = Stream(self.recipe.seed, iteration, -1, self.nets.device, update - 1)
        bins, generated = diagnostics.discrepancy(
            self.method.generate, batch, self.nets, self.recipe, rng
        )
        # Every process measures the same clips, as cut networks need all of them; one reports.
        self.recorder.add_bins(LossReport(generated, {}, bins), ours=self.group.is_main)
        if look and self.group.is_main:
            values = diagnostics.decoded_look(self.nets, generated, batch.latents, log.decode_count)
            self.recorder.add_line("probe", update, dict(values))

    def flush(self, update: int) -> None:
        """Write the log; stop where a loss or a gradient is no longer finite."""
        broken = self.recorder.flush(update)
        statistics.warn(self.nets.statistics, self.group)
        if broken:
            self.check_clips(update)
            last = checkpoint.complete(self.run.checkpoints)
            good = f"last good checkpoint: {last[-1]}" if last else "no checkpoint was written yet"
            raise UserError(
                f"training of {self.run.path} diverged ({broken[0]} is not finite); {good}; lower "
                "optim.lr or optim.fake_lr"
            )

    def check_clips(self, update: int) -> None:
        """Refuse real clips that are not finite among those of the updates just logged."""
        freq, size = self.recipe.schedule.student_update_freq, self.recipe.optim.batch
        begin = max(update - self.recipe.log.every, 0)
        for i in range(begin * freq, update * freq):
            batch = self.clips.batch((self.first_iteration + i) * size, size)
            if not torch.isfinite(batch.latents).all():
                raise UserError(
                    f"training of {self.run.path} stopped: data.source {self.recipe.data.source} "
                    f"has latents with NaN or infinity (update {i // freq + 1}); encode them again"
                )

    def finish(self, seconds: float) -> Run:
        """Save student, fake score and heads, drop resume points, complete run.json."""
        family, run, nets, group = self.nets.family, self.run, self.nets, self.group
        student = self.modules.get("ema", nets.student)
        student = parallel.gather(student, nets.skeletons.get("student"), group)
        sampling = stages.sampling(self.recipe)
        group.on_main(lambda: family.save_student(student, run.student, sampling))
        fake_score = parallel.gather(nets.fake_score, nets.skeletons.get("fake_score"), group)
        group.on_main(lambda: family.save_network(fake_score, run.fake_score))
        if nets.heads is not None:
            heads = parallel.gather(nets.heads, nets.skeletons.get("heads"), group)
            looks = nets.blocks, self.recipe.gan.features
            group.on_main(lambda: save_heads(heads, run.heads, *looks))
        run.info = group.on_main(lambda: self.complete(seconds))
        return run

    def complete(self, seconds: float) -> dict[str, Any]:
        """Write run.json of the finished run and delete its resume points; returns run.json."""
        run, s = self.run, self.recipe.schedule
        before = run.info["parent"] or {}
        run.update(
            status="finished",
            student_updates=s.student_updates,
            fake_updates=s.student_updates * (s.student_update_freq - 1),
            wall_seconds=round(seconds, 1),
            student_updates_total=before.get("student_updates", 0) + s.student_updates,
            iterations_total=self.first_iteration + s.student_updates * s.student_update_freq,
            wall_seconds_total=round(before.get("wall_seconds_total", 0.0) + seconds, 1),
            student_sha256=weights_sha256(run.student / "transformer"),
            critic_sha256=weights_sha256(run.fake_score),
            **({"heads_sha256": weights_sha256(run.heads)} if self.nets.heads is not None else {}),
            device=_device_name(self.nets.device),
            processes=self.group.size,
        )
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return run.info


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
