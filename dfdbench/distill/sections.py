"""The recipe of a training run, section by section, with the rules for its values.

Used by all of training; recipe.py reads it from TOML and run.json. A method's own section is the
dataclass `Options` in the method's file.
"""

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from dfdbench.models.blocks import Attention, Checkpointing, Compile
from dfdbench.models.causal import Layout
from dfdbench.models.defaults import Guidance, Shift
from dfdbench.utils.errors import UserError
from dfdbench.utils.names import check_name
from dfdbench.utils.reading import plain

if TYPE_CHECKING:
    from dfdbench.models.defaults import Defaults


def _without_control(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL, which no name or prompt does")
    return text


Text = Annotated[str, AfterValidator(_without_control)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]
Count = Annotated[int, Field(ge=1, lt=2**53)]
Updates = Annotated[int, Field(ge=0, lt=2**53)]  # between two doings of a thing; 0 = never
Size = Annotated[int, Field(ge=0, le=2**16)]
Unit = Annotated[float, Field(ge=0, lt=1)]


class Later:
    """Marks an option that came after recipes had digests: `Annotated[bool, LATER] = False`.

    Its default is what training did before there was the option. A recipe that leaves it there has
    the digest that it always had; any other value is in the digest.
    """


LATER = Later()


@dataclass(frozen=True)
class Data:
    """Real clips: where their latents and prompts come from."""

    source: Text = "toy"  # "toy" renders them; else a folder made by `dfdbench data encode`
    count: Annotated[Count, Field(le=10_000_000)] = 2048  # rendered; a folder is taken whole
    seed: Seed = 0  # of the rendered
    frames: Size = 0  # 0: the model's own
    height: Size = 0  # of a clip in pixels; 0: the model's own
    width: Size = 0  # the same
    # Of the rendered: what captions name, 1 shape and scene, 2 hue too, 3 hue and direction too.
    level: Annotated[int, Field(ge=1, le=3), LATER] = 1
    # Of the rendered: all saturations, pale ones alone (.35 to .50), or every second clip pale.
    mix: Annotated[Literal["all", "pale", "half_pale"], LATER] = "all"
    # Of a folder with captions at three lengths: how often each (long, medium, short) is drawn for
    # a sample; empty: always the long one.
    captions: Annotated[tuple[NonNegativeFloat, ...], LATER] = ()
    # Further folders that samples are drawn from, and the share of each, that of `source` first.
    more_sources: Annotated[tuple[Text, ...], LATER] = ()
    weights: Annotated[tuple[PositiveFloat, ...], LATER] = ()

    def __post_init__(self) -> None:
        folders = len(self.more_sources) + 1 if self.more_sources else 0
        if len(self.weights) != folders or (folders and abs(sum(self.weights) - 1) >= 1e-6):
            raise ValueError(
                "weights must be one share for source and one for each of more_sources, that add "
                "up to 1"
            )
        if self.captions and not (len(self.captions) == 3 and abs(sum(self.captions) - 1) < 1e-6):
            raise ValueError("captions must be three probabilities that add up to 1")


@dataclass(frozen=True)
class Student:
    """The few-step student: its time grid, training input and sampler."""

    steps: Annotated[Count, Field(le=1000)] = 4  # N, of sampling and of training
    # What G is made from in training: a noised real clip, or the student's own steps from noise.
    input: Literal["noised_real", "backward_simulation", "self_forcing"] = "noised_real"
    sampler: Literal["ode", "sde"] = "ode"  # between steps: the noise it came from, or fresh noise
    times: tuple[float, ...] = ()  # own grid without the final 0; empty: shifted multiples of 1/N
    # Of a causal student: latent frames a block (0: it is bidirectional), the most that a block
    # sees (0: all before it), and first ones that always stay in sight.
    block_frames: Annotated[Size, LATER] = 0
    window_frames: Annotated[Size, LATER] = 0
    sink_frames: Annotated[Size, LATER] = 0

    @property
    def layout(self) -> Layout | None:
        """The blocks of a causal student; None: it is bidirectional."""
        if not self.block_frames:
            return None
        return Layout(self.block_frames, self.window_frames, self.sink_frames)

    def __post_init__(self) -> None:
        if not self.block_frames and (self.window_frames or self.sink_frames):
            raise ValueError("window_frames and sink_frames need a causal student: block_frames")
        if self.input == "self_forcing" and not self.block_frames:
            raise ValueError('input = "self_forcing" needs a causal student: block_frames, say 3')
        try:
            _ = self.layout
        except UserError as error:
            raise ValueError(str(error)) from None
        times = list(self.times)
        if times and len(times) != self.steps:
            raise ValueError(f"times must be one time for each student step, {self.steps}")
        if sorted(times, reverse=True) != times or not all(0 < t <= 1 for t in times):
            raise ValueError("times must be falling, within (0, 1]")


@dataclass(frozen=True)
class Teacher:
    """Guidance of the teacher; unset values are the checkpoint's own."""

    cfg: Guidance | None = None  # standard g, 1 = none
    negative: Text | None = None  # negative prompt
    guidance_passes: Literal["batched", "sequential"] = "batched"  # sequential: half the memory


@dataclass(frozen=True)
class Optim:
    """AdamW on both networks, with float32 master weights; how their blocks run."""

    lr: PositiveFloat = 1e-5  # of the student
    fake_lr: PositiveFloat = 1e-5  # of the fake score
    batch: Count = 16  # samples an update, over all accumulation rounds
    accumulate: Count = 1  # rounds a batch is cut into
    clip: NonNegativeFloat = 10.0  # gradient norm, on both networks; 0 = off
    betas: tuple[Unit, Unit] = (0.9, 0.999)  # AdamW's
    weight_decay: NonNegativeFloat = 0.01  # AdamW's
    ema: Unit = 0.0  # of the student, per student update; 0 = off
    # What blocks keep for the backward pass: all, their inputs, or these and self-attention.
    checkpointing: Checkpointing = "none"
    attention: Attention = "auto"  # kernel; "auto" is PyTorch's choice, fa3 must be installed
    compile: Compile = False  # torch.compile of the blocks: true, or a mode
    # Moments in 8 bits need a quarter of the memory: torchao's, on one GPU.
    optimiser: Annotated[Literal["adamw", "adamw8bit"], LATER] = "adamw"
    ema_start: Annotated[Updates, LATER] = 0  # first update that is averaged; before, it follows

    def __post_init__(self) -> None:
        if self.checkpointing == "save_attention" and self.attention == "math":
            raise ValueError(
                "checkpointing save_attention keeps what a fused kernel gives, and attention math "
                "is none; take checkpointing full or another attention"
            )
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must be a divisor of batch, {self.batch}")


@dataclass(frozen=True)
class Schedule:
    """How long, how often, and at which noise levels."""

    student_updates: Count = 1000  # after which training ends
    # Every so many iterations one updates the student, the others the fake score; 1: there is none.
    student_update_freq: Count = 5
    shift: Shift = 5.0  # of the student grid and of the score times
    t_low: float = 0.001  # least score time
    t_high: float = 0.999  # greatest score time
    # One score time for the whole batch of an iteration (DP-DMD as released), not one a sample.
    one_time: Annotated[bool, LATER] = False

    def __post_init__(self) -> None:
        if not 0 < self.t_low < self.t_high < 1:
            raise ValueError("t_low and t_high must be 0 < t_low < t_high < 1")


@dataclass(frozen=True)
class FakeScore:
    """How the fake score learns to denoise G; its learning rate is optim.fake_lr."""

    loss: Literal["x0", "flow"] = "x0"  # squared error of x0 or of the velocity


@dataclass(frozen=True)
class Gan:
    """The GAN beside distribution matching (DMD2, 2405.14867), for every method that has one."""

    weight: NonNegativeFloat = 0.0  # of the generator's GAN loss; 0 = no GAN
    features: Literal["fake_score", "teacher"] = "fake_score"  # network whose blocks are tapped
    discriminator_weight: NonNegativeFloat = 1.0  # of its loss beside the fake score's
    lr: NonNegativeFloat = 0.0  # of the heads; 0 = optim.fake_lr
    blocks: tuple[NonNegativeInt, ...] = ()  # tapped blocks; empty: at 1/2, 3/4 and the end
    r1_weight: NonNegativeFloat = 0.0  # approximate R1; 0 = off
    r1_alpha: PositiveFloat = 0.1  # size of R1's perturbation


@dataclass(frozen=True)
class Checkpoints:
    """When the state is written; `keep` newest stay until the run ends."""

    every_seconds: NonNegativeFloat = 300.0  # between two of them
    every_updates: Updates = 0  # 0: by time only
    keep: Count = 2  # how many


@dataclass(frozen=True)
class Log:
    """Training curve and diagnostics, counted in student updates."""

    every: Count = 10  # updates between writes of metrics.jsonl
    probe_every: Updates = 10  # between measurements of the teacher score discrepancy; 0 = off
    decode_every: Updates = 20  # between looks at decoded pixels; 0 = off
    decode_count: Count = 2  # clips decoded each time


@dataclass(frozen=True)
class Init:
    """The finished DMD2 run that student (its average, where it kept one), fake score and, with a
    GAN in both, discriminator heads start from."""

    recipe: Text = ""  # recipe of that run, made or reused when no --init is given; "" = teacher
    updates: Updates = 0  # its student updates; 0: the recipe's own


@dataclass(frozen=True)
class MethodOptions:
    """Base of a method's own section, which has the method's name."""

    def resolved(self, defaults: "Defaults") -> Self:
        """These options with what they leave to the checkpoint filled in."""
        return self


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from the device.

    options: the method's own section. gan: as if not given where its weight is 0.
    """

    method: str  # a name of `dfdbench list methods`
    arm: Text = ""  # name in tables and of the run's folder; "": the method
    model: Text = "toy-t2v"  # a packaged one, a diffusers folder, or a hub id
    family: Text = ""  # kind of model that the recipe is for, such as "wan"; "": any
    seed: Seed = 0  # training seed
    data: Data = Data()
    student: Student = Student()
    teacher: Teacher = Teacher()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    fake_score: FakeScore = FakeScore()
    gan: Gan = Gan()
    options: Any = MethodOptions()
    checkpoint: Checkpoints = Checkpoints()
    log: Log = Log()
    init: Init = Init()

    def __post_init__(self) -> None:
        if not self.arm:
            object.__setattr__(self, "arm", self.method)
        check_name(self.arm, "recipe key 'arm'", longest=150)
        if not self.gan.weight:
            object.__setattr__(self, "gan", Gan())
        if self.data.count < self.optim.batch // self.optim.accumulate:
            raise UserError(
                f"recipe key 'data.count' is {self.data.count}, less than one batch; correct it "
                "in the recipe or --set"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values under the TOML's own keys, of the sections that the run uses."""
        values = {item.name: plain(getattr(self, item.name)) for item in fields(self)}
        values[self.method] = values.pop("options")
        if not self.gan.weight:
            del values["gan"]
        return {key: value for key, value in values.items() if value != {}}

    def decisive(self) -> dict[str, Any]:
        """`as_dict` without what leaves the weights as they are: sections that the run does not
        use, later options at their defaults, so that what is new changes no digest, and UNDECISIVE.
        """
        values = self.as_dict()
        # As digests have had it since there was one policy; which it is changes no weight.
        values["optim"]["gradient_checkpointing"] = self.optim.checkpointing != "none"
        for name in [*values]:
            section = self.options if name == self.method else getattr(self, name)
            for key in _untouched(section):
                del values[name][key]
            if values[name] == {}:
                del values[name]
        for key in UNDECISIVE:
            *sections, last = key.split(".")
            table = values
            for section in sections:
                table = table[section]
            table.pop(last)
        return values

    def digest(self) -> str:
        """Hash of all that decides the weights."""
        values = self.decisive()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _untouched(section: Any) -> list[str]:
    """The later options that a section has at their defaults; none if it is no section."""
    if not is_dataclass(section):
        return []
    hints = get_type_hints(type(section), include_extras=True)
    later = [f for f in fields(section) if LATER in getattr(hints[f.name], "__metadata__", ())]
    return [f.name for f in later if getattr(section, f.name) == f.default]


UNDECISIVE = (
    "checkpoint",
    "log",
    "family",
    "teacher.guidance_passes",
    "optim.checkpointing",
    "optim.attention",
    "optim.compile",
)
"""Sections and keys that leave the weights as they are (but for rounding): a run may be resumed
with others."""
