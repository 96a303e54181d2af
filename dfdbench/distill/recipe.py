"""Typed training recipes: TOML plus `--set a.b=c`, checked key by key.

Used by `dfdbench distill` and the training core. Shipped recipes lie in baselines/ of the
repository (dfdbench/_baselines in a wheel) and are named by their path there: "toy/dfd".
"""

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dfdbench.utils.errors import UserError, unknown_name


@dataclass(frozen=True)
class Data:
    """Real clips: where their latents and prompts come from."""

    source: str = "toy"  # "toy" renders them; else a folder made by `dfdbench data encode`
    count: int = 2048  # rendered; a folder is taken whole
    seed: int = 0  # of the rendered
    frames: int = 0  # 0: the model's own
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Student:
    """The few-step student: its time grid, training input and sampler."""

    steps: int = 4
    input: Literal["noised_real", "backward_simulation"] = "noised_real"
    sampler: Literal["ode", "sde"] = "ode"
    times: tuple[float, ...] = ()  # own grid without the final 0; empty: shifted multiples of 1/N


@dataclass(frozen=True)
class Teacher:
    """Guidance of the teacher; unset values are the checkpoint's own."""

    cfg: float | None = None  # standard g, 1 = none
    negative: str | None = None
    guidance_passes: Literal["batched", "sequential"] = "batched"  # sequential: half the memory


@dataclass(frozen=True)
class Optim:
    """AdamW on both networks, with float32 master weights."""

    lr: float = 1e-5
    fake_lr: float = 1e-5
    batch: int = 16  # samples an update, over all accumulation rounds
    accumulate: int = 1  # rounds a batch is cut into
    clip: float = 10.0  # gradient norm, on both networks; 0 = off
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    ema: float = 0.0  # of the student, per student update; 0 = off
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Schedule:
    """How long, how often, and at which noise levels."""

    student_updates: int = 1000
    ratio: int = 5  # every `ratio`-th iteration updates the student, the others the fake score
    shift: float = 5.0  # of the student grid and of the score times
    t_low: float = 0.001
    t_high: float = 0.999


@dataclass(frozen=True)
class Dmd2:
    """DMD2 (2405.14867), and the fake score and GAN that every method shares."""

    gan_weight: float = 0.0  # of the generator's GAN loss; 0 = no GAN
    gan_features: Literal["fake_score", "teacher"] = "fake_score"
    gan_critic_weight: float = 1.0  # of the discriminator's loss beside the fake score's
    gan_lr: float = 0.0  # of the heads; 0 = fake_lr
    blocks: tuple[int, ...] = ()  # tapped blocks; empty: at 1/2, 3/4 and the end
    r1_weight: float = 0.0  # approximate R1; 0 = off
    r1_alpha: float = 0.1
    critic_loss: Literal["x0", "flow"] = "x0"


@dataclass(frozen=True)
class DpDmd:
    """DP-DMD (2602.03139): the first step learns the teacher's anchor, the others DMD."""

    weight: float = field(default=0.05, metadata={"key": "lambda"})
    anchor_step: int | None = 5  # K steps on the teacher's grid, or:
    anchor_time: float | None = None  # the grid point nearest to this time
    grid_steps: int = 0  # 0: the checkpoint's own
    grid_shift: float = 0.0  # 0: the checkpoint's own
    gradient_steps: Literal["all", "last", "random"] = "all"  # later steps with a DMD gradient


@dataclass(frozen=True)
class Dfd:
    """DFD (2606.18478): the teacher scores the real clip with probability p."""

    p: float = 0.5
    w: float | None = None  # exact mixture (Eq. 9) with this weight instead of drawing with p
    gradient_space: Literal["x0", "score"] = "x0"
    t_min: float = 0.0  # real branch only at noise levels from here up
    cfg_dfd: float | None = None  # guidance on the real branch; None: teacher.cfg
    normaliser: Literal["generated", "scored"] = "generated"  # mean |G − r|, or |y − r|
    gan: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """When the state is written; `keep` newest stay until the run ends."""

    every_seconds: float = 300.0
    every_updates: int = 0  # 0: by time only
    keep: int = 2


@dataclass(frozen=True)
class Log:
    """Training curve and diagnostics, counted in student updates."""

    every: int = 10  # updates between writes of metrics.jsonl
    probe_every: int = 10  # updates between measurements of the teacher score discrepancy; 0 = off
    decode_every: int = 20  # updates between looks at decoded pixels; 0 = off
    decode_count: int = 2  # clips decoded each time


@dataclass(frozen=True)
class Init:
    """The finished DMD2 run that student and fake score start from."""

    recipe: str = ""  # recipe of that run, made or reused when no --init is given; "" = teacher
    updates: int = 0  # its student updates; 0: the recipe's own


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from the device."""

    method: str
    arm: str = ""  # name in tables; "": the method
    model: str = "toy-t2v"
    family: str = ""  # kind of model that the recipe is for, such as "wan"; "": any
    seed: int = 0
    data: Data = Data()
    student: Student = Student()
    teacher: Teacher = Teacher()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    dmd2: Dmd2 = Dmd2()
    dp_dmd: DpDmd = DpDmd()
    dfd: Dfd = Dfd()
    checkpoint: Checkpoints = Checkpoints()
    log: Log = Log()
    init: Init = Init()

    def __post_init__(self) -> None:
        if not self.arm:
            object.__setattr__(self, "arm", self.method)
        _check(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values under the TOML's own keys."""
        return _plain(self)

    def digest(self) -> str:
        """Hash of all that decides the weights."""
        plain = self.as_dict()
        for key in UNDECISIVE:
            *sections, last = key.split(".")
            table = plain
            for section in sections:
                table = table[section]
            table.pop(last)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


UNDECISIVE = ("checkpoint", "log", "family", "teacher.guidance_passes")
"""Sections and keys that leave the weights as they are (but for rounding): a run may be resumed
with others."""


def _key(item: "dataclasses.Field[Any]") -> str:
    return item.metadata.get("key", item.name)


def _plain(section: Any) -> dict[str, Any]:
    values = {}
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            value = _plain(value)
        values[_key(item)] = list(value) if isinstance(value, tuple) else value
    return values


def _check(recipe: Recipe) -> None:
    """Refuse values that no run could use; raises UserError naming the key."""
    s, o, c, f = recipe.student, recipe.optim, recipe.schedule, recipe.dfd
    rules = [
        (s.steps >= 1, "student.steps", "at least 1"),
        (not s.times or len(s.times) == s.steps, "student.times", "one time for each student step"),
        (
            all(0 < t <= 1 for t in s.times) and sorted(s.times, reverse=True) == list(s.times),
            "student.times",
            "falling, within (0, 1]",
        ),
        (o.batch >= 1, "optim.batch", "at least 1"),
        (
            o.accumulate >= 1 and o.batch % o.accumulate == 0,
            "optim.accumulate",
            "a divisor of batch",
        ),
        (o.lr > 0 and o.fake_lr > 0, "optim.lr and optim.fake_lr", "positive"),
        (0 <= o.ema < 1, "optim.ema", "in [0, 1)"),
        (c.student_updates >= 1, "schedule.student_updates", "at least 1"),
        (c.ratio >= 2, "schedule.ratio", "at least 2"),
        (c.shift > 0, "schedule.shift", "positive"),
        (0 < c.t_low < c.t_high < 1, "schedule.t_low and t_high", "0 < t_low < t_high < 1"),
        (0 <= f.p <= 1, "dfd.p", "in [0, 1]"),
        (f.w is None or 0 <= f.w <= 1, "dfd.w", "in [0, 1]"),
        (recipe.log.every >= 1, "log.every", "at least 1"),
        (recipe.checkpoint.keep >= 1, "checkpoint.keep", "at least 1"),
        (recipe.data.count >= o.batch // o.accumulate, "data.count", "at least one batch"),
    ]
    for fine, key, wanted in rules:
        if not fine:
            raise UserError(
                f"recipe key '{key}' must be {wanted}; correct it in the recipe or --set"
            )


def _convert(value: Any, kind: Any, key: str) -> Any:
    """`value` as type `kind`, or a UserError that names `key`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise unknown_name(f"value of recipe key '{key}'", str(value), arguments)
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), key)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(_convert(v, k, key) for v, k in zip(value, kinds, strict=True))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    wanted = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise UserError(
        f"recipe key '{key}' takes {wanted}, not {value!r}; correct the recipe or --set"
    )


def _build(cls: Any, table: dict[str, Any], prefix: str = "") -> Any:
    items = {_key(item): item for item in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in items:
            known = {f"{prefix}{name}" for name in items}
            raise unknown_name("recipe key", f"{prefix}{key}", known)
        kind = hints[items[key].name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise UserError(f"recipe key '{prefix}{key}' is a section; set {prefix}{key}.NAME")
            values[items[key].name] = _build(kind, value, f"{prefix}{key}.")
        else:
            values[items[key].name] = _convert(value, kind, prefix + key)
    return cls(**values)


STUDIES = "studies"  # folders of baselines that hold studies (dfdbench/study.py), not recipes


def baselines_folder() -> Path:
    """Where the shipped recipes lie: the repository's baselines/, or the wheel's copy."""
    package = Path(__file__).parents[1]
    for folder in (package / "_baselines", package.parent / "baselines"):
        if folder.is_dir():
            return folder
    raise UserError(f"no recipes beside {package}; reinstall dfdbench")


def shipped_recipes() -> list[str]:
    """Names of the shipped recipes, such as "toy/dfd"."""
    folder = baselines_folder()
    files = [p.relative_to(folder) for p in folder.rglob("*.toml")]
    return sorted(f.with_suffix("").as_posix() for f in files if STUDIES not in f.parts)


def find_recipe(name: str | Path) -> Path:
    """The TOML file of a path or of a shipped name; UserError with near names if neither."""
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise UserError(
            f"recipe {path} does not exist; shipped ones: {', '.join(shipped_recipes())}"
        )
    if str(name) not in shipped_recipes():
        raise unknown_name("recipe", str(name), shipped_recipes())
    return baselines_folder() / f"{name}.toml"


def _override(table: dict[str, Any], assignment: str) -> None:
    """Put one `a.b=value` into the table; value is TOML, a bare word is a string, "none" unset."""
    key, equals, text = assignment.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not key:
        raise UserError(f"--set {assignment} is not KEY=VALUE; write --set dfd.p=0.5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text.lower() == "none" else text
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {assignment}: '{section}' is not a section of the recipe")
    table[last] = value


def load_recipe(name: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a TOML file or a shipped name such as "toy/dfd".
        overrides: `--set` values such as "dfd.p=0.3" or "init.recipe=''".

    Raises:
        UserError: no such recipe, broken TOML, an unknown key (with near ones) or a bad value.
    """
    path = find_recipe(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {path} is not valid TOML: {error}") from None
    for assignment in overrides:
        _override(table, assignment)
    return recipe_from_dict(table, str(path))


def recipe_from_dict(table: dict[str, Any], origin: str = "recipe") -> Recipe:
    """A recipe from nested plain values, as `Recipe.as_dict` gives them."""
    if "method" not in table:
        raise UserError(f"{origin} lacks the key 'method'; add method = \"dmd2\"")
    built: Recipe = _build(Recipe, table)
    return built
