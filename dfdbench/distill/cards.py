"""Cards of public few-step students: TOML files that say how a student is sampled, and who says so.

Used by `import-student --card` and by the commands that list and explain them. Shipped cards lie in
baselines/cards/ and are named by their file: "self-forcing".
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from dfdbench.distill.recipe import CARDS, baselines_folder
from dfdbench.distill.sections import Student
from dfdbench.models.causal import Layout
from dfdbench.models.defaults import Shift
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import shift_time
from dfdbench.models.loading import MEND
from dfdbench.models.published_configs import published_config, published_name, published_names
from dfdbench.models.registry import PACKAGED, resolve_folder
from dfdbench.models.wan_causal_import import FREE
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.names import check_name
from dfdbench.utils.reading import Name, Outside, Text, read_json, read_toml, validate

REMEDY = "correct it in the card"
# A student starts from noise alone, ε·t₁, so the point that it meets must have next to no signal.
LOWEST_START = 0.9


class Card(Outside):
    """How a published student is sampled.

    Attributes:
        about: what it is, in one line.
        paper, repository: where it is described; where its weights are published.
        licence: of the weights.
        layout: of the published weights; a hint for people.
        family, bases: kind of model, and the models that there are students of.
        times: its own, falling from the first to the last before 0; or else `steps` of a grid
            shifted by `shift`, whose first time is `start`.
        start: the first time, at which noise alone is its input.
        sampler: "ode" keeps the noise of a sample, "sde" draws it anew for every step.
        cfg: guidance at sampling; 1 is none.
        block_frames, window_frames, sink_frames: of a causal student; 0: it is bidirectional.
        leaves_out: parts of names of weights that the network here has no use for.
        sources: field -> where its value was read.
        unverified: what of this card nobody here has checked, or what is done otherwise.
        arm: its name in tables; by default the card's, with _ for -.
    """

    about: Name
    family: Name
    bases: Annotated[tuple[Name, ...], Field(min_length=1)]
    sampler: Literal["ode", "sde"]
    cfg: float
    times: tuple[float, ...] = ()
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    shift: Shift | None = None
    start: float | None = None
    block_frames: Annotated[int, Field(ge=0, le=2**16)] = 0
    window_frames: Annotated[int, Field(ge=0, le=2**16)] = 0
    sink_frames: Annotated[int, Field(ge=0, le=2**16)] = 0
    paper: Text = ""
    repository: Text = ""
    licence: Text = ""
    layout: Literal["", "diffusers", "original", "lora"] = ""
    leaves_out: tuple[Name, ...] = ()
    sources: dict[str, Text] = Field({})
    unverified: Text = ""
    arm: Text = ""

    @property
    def grid(self) -> tuple[float, ...]:
        """The student's times without the final 0."""
        if self.times or self.steps is None or self.shift is None or self.start is None:
            return self.times
        u = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)[1:-1]
        return (self.start, *shift_time(u, self.shift).tolist())

    @property
    def causal(self) -> Layout | None:
        """The blocks of a causal student; None: it is bidirectional."""
        return self.student.layout

    @property
    def student(self) -> Student:
        """As a recipe has it; ValueError where it cannot be."""
        return Student(
            steps=len(self.grid),
            input="self_forcing" if self.block_frames else "noised_real",
            sampler=self.sampler,
            times=self.grid,
            block_frames=self.block_frames,
            window_frames=self.window_frames,
            sink_frames=self.sink_frames,
        )


def shipped_cards() -> list[str]:
    """Names of the shipped cards, such as "self-forcing"."""
    return sorted(path.stem for path in (baselines_folder() / CARDS).glob("*.toml"))


def find_card(name: str | Path) -> Path:
    """The TOML file of a path or of a shipped name; UserError with near names if neither."""
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise UserError(f"card {path} does not exist; shipped ones: {', '.join(shipped_cards())}")
    if str(name) not in shipped_cards():
        raise unknown_name("card", str(name), shipped_cards())
    return baselines_folder() / CARDS / f"{name}.toml"


def load_card(name: str | Path) -> Card:
    """Read and check a card.

    Args:
        name: a TOML file or a shipped name.

    Raises:
        UserError: no such card, broken TOML, an unknown key (with near ones), times that no student
            has, or guidance.
    """
    path = find_card(name)
    card = validate(Card, read_toml(path, dict[str, Any], REMEDY), path, REMEDY, strictly=True)
    fault = _fault(card)
    if not fault:
        try:
            _ = card.student
        except ValueError as error:  # what a recipe would be refused for
            fault = str(error)
    if fault:
        raise UserError(f"{path}: {fault}; {REMEDY}")
    arm = card.arm or path.stem.replace("-", "_")
    return card.model_copy(update={"arm": check_name(arm, f"{path}: arm", longest=150)})


def _fault(card: Card) -> str:
    """What is wrong with values that are each of the right kind; empty if nothing is."""
    gridded = (card.steps, card.shift)
    if card.times and gridded != (None, None):
        return "has both times and steps with a shift; keep one"
    if not card.times and None in (*gridded, card.start):
        return "says no times; give times, or steps, shift and start"
    grid = card.grid
    outside = [time for time in grid if not 0 < time <= 1]
    if outside:
        return f"the time {outside[0]:g} is not within (0, 1]"
    if any(after >= before for before, after in pairwise(grid)):
        return f"times must fall from each to the next, not {', '.join(f'{t:g}' for t in grid)}"
    if card.start not in (None, grid[0]):
        return f"start is {card.start:g}, but the first of times {grid[0]:g}"
    if grid[0] < LOWEST_START:
        return (
            f"the start time {grid[0]:g} is below {LOWEST_START:g}, where noise alone is no point "
            "of the model's path"
        )
    if card.cfg != 1:
        return f"cfg is {card.cfg:g}, but a student is sampled without guidance here, cfg = 1"
    unknown = sorted(card.sources.keys() - type(card).model_fields.keys())
    return f"sources names '{unknown[0]}', which is no field of a card" if unknown else ""


def check_fits(card: Card, name: str, family: ModelFamily, model: str) -> None:
    """Refuse a card for another kind of model, or for a base of another size than `model`.

    Args:
        name: of the card, for the message.

    Raises:
        UserError: also where nothing is known here of the bases that the card names.
    """
    if card.family != family.name:
        raise UserError(
            f"--card {name}: is for a model of the family {card.family}, --model {model} is of the "
            f"family {family.name}; give its base, {card.bases[0]}"
        )
    if card.causal and family.causal is None:
        raise UserError(
            f"--card {name}: is of a causal student, and the family {family.name} has none here; "
            "take a card with block_frames = 0"
        )
    if model in card.bases:
        return
    own = read_json(family.path / "transformer" / "config.json", dict[str, Any], MEND)
    known = {base: config for base in card.bases if (config := _config_of(base)) is not None}
    if not known:
        raise UserError(
            f"--card {name}: nothing is known here of its base {card.bases[0]}; let bases name "
            f"--model itself, a folder, or one of {', '.join([*published_names(), *PACKAGED])}"
        )
    faults = [_other_size(own, config, base) for base, config in known.items()]
    if all(faults):
        raise UserError(f"--card {name}: --model {model} is another model: {faults[0]}")


def _config_of(base: str) -> dict[str, Any] | None:
    """The denoiser's config of a base that is here or published; None where it is neither."""
    if published := published_name(base):
        config: dict[str, Any] = published_config(published)["transformer"]
        return config
    if base in PACKAGED or (Path(base).expanduser() / "model_index.json").is_file():
        return read_json(resolve_folder(base) / "transformer" / "config.json", dict[str, Any], MEND)
    return None


def _other_size(own: dict[str, Any], config: dict[str, Any], base: str) -> str:
    """The first key in which two networks differ, layers and channels first; empty if none."""
    first = ("num_layers", "num_attention_heads", "attention_head_dim", "in_channels")
    for key in (*first, *config):
        free = key.startswith("_") or key in FREE
        if not free and key in own and own[key] != config.get(key):
            return f"its {key} is {own[key]}, {base}'s is {config.get(key)}; give --model {base}"
    return ""
