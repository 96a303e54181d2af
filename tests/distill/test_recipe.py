import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest

from dfdbench.distill import methods, sections
from dfdbench.distill.recipe import load_recipe, recipe_from_dict, shipped_recipes
from dfdbench.distill.sections import Gan, MethodOptions
from dfdbench.utils.errors import UserError

PREVIOUS = {
    row["name"]: row
    for row in map(
        json.loads, (Path(__file__).parent / "previous_recipes.jsonl").read_text().splitlines()
    )
}
"""Shipped recipes and their digests as the version before the move wrote them into run.json."""

DIGESTS = {
    "cosmos-predict2.5-2b/dfd": "668a940bcb4c0344",
    "toy-i2v/dmd2": "2d869d4e7c6c7fcb",
    "toy/dfd": "4ce5810a71485d21",
    "toy/dmd2": "18e8b58d81487fa5",
    "toy/dmd2_control": "5d917d665383ec8b",
    "toy/dp_dmd": "c72bfe53db2fc2d9",
    "wan2.1-t2v-1.3b/dfd_gan": "f0e977dd23d6e59f",
    "wan2.1-t2v-1.3b/dmd2": "efc3fd4ada60ec18",
}
"""A run's name and whether it can be resumed hang on these: they must not change by themselves."""


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name):
    recipe = load_recipe(name)
    assert recipe_from_dict(recipe.as_dict()) == recipe


def test_toy_arms_share_everything_but_the_method():
    recipes = [
        load_recipe(f"toy/{n}") for n in ("dmd2", "dmd2_control", "dfd", "regression", "dp_dmd")
    ]
    for section in ("data", "student", "teacher", "optim", "model", "seed"):
        assert len({str(getattr(r, section)) for r in recipes}) == 1, section
    updates = {r.arm: r.schedule.student_updates for r in recipes}
    assert updates["dmd2_control"] == updates["dfd"] == updates["regression"]
    assert updates["dp_dmd"] == updates["dmd2"] + updates["dfd"]


def test_overrides_reach_nested_keys_with_toml_types():
    recipe = load_recipe(
        "toy/dfd",
        ["dfd.p=0.25", "teacher.cfg=1", "student.input=backward_simulation", "optim.batch=4",
         "student.times=[0.999, 0.9]", "student.steps=2", "init.recipe=''", "dfd.w=none"],
    )  # fmt: skip
    assert recipe.options.p == 0.25 and recipe.teacher.cfg == 1.0 and recipe.optim.batch == 4
    assert recipe.student.input == "backward_simulation" and recipe.student.times == (0.999, 0.9)
    assert recipe.init.recipe == "" and recipe.options.w is None
    assert load_recipe("toy/dp_dmd", ["dp_dmd.lambda=0.1"]).options.weight == 0.1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dfd.gradient_spaec=score", r"'dfd.gradient_spaec' \(did you mean dfd.gradient_space\?"),
        ("optm.lr=1", r"'optm' \(did you mean optim\?\)"),
        ("dfdd.p=1", r"'dfdd' \(did you mean dfd\?\)"),
        ("dfd.gradient_space=v", "dfd.gradient_space: not 'x0' or 'score'"),
        ("optim.lr=fast", "optim.lr: not a valid number .is 'fast'"),
        ("optim.lr='1e-4'", "optim.lr: not a valid number"),
        ("optim.lr=true", "optim.lr: not a valid number"),
        ("optim.lr=nan", "optim.lr: not a finite number"),
        ("teacher.cfg=inf", "teacher.cfg: not a finite number"),
        ("optim.batch=1.5", "optim.batch: not a valid integer"),
        ("optim.batch=true", "optim.batch: not a valid integer"),
        ("optim.gradient_checkpointing=1", "optim.checkpointing: not 'none', 'full'"),
        ("optim.checkpointing=some", "optim.checkpointing: not 'none', 'full' or 'save_attention'"),
        ("optim.attention=fa2", "optim.attention: not 'auto', 'flash'"),
        ("optim.compile=reduce-overhead", "optim.compile: not False, True, 'default'"),
        ("optim.optimiser=adam", "optim.optimiser: not 'adamw' or 'adamw8bit'"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("optim.accumulate=3", "accumulate must be a divisor of batch"),
        ("optim=3", r"optim: not a table \(is 3\); set optim.NAME"),
        ("dfd=3", r"dfd: not a table \(is 3\); set dfd.NAME"),
        ("dfd.p", "is not KEY=VALUE"),
        ("dfd.p=2", "dfd.p: not less than or equal to 1"),
        ("dfd.w=-1", "dfd.w: not greater than or equal to 0"),
        ("student.times=[0.9]", "one time for each"),
        ("student.times=[0.9, 0.95, 0.5, 0.2]", "falling"),
        ("schedule.student_update_freq=0", "greater than or equal to 1"),
        ("schedule.student_update_freq=1", "the fake score is never updated; make it 2"),
        ("schedule.ratio=0", "schedule.student_update_freq: not greater than or equal to 1"),
        ("student.input=self_forcing", "needs a causal student: block_frames, say 3"),
        ("student.block_frames=3", 'learns from its rollouts; make it "self_forcing"'),
        ("student.window_frames=6", "need a causal student: block_frames"),
        ("schedule.t_low=0.9999", "t_low < t_high"),
        ("optim.lr=0", "optim.lr: not greater than 0"),
        ("optim.ema=1", "optim.ema: not less than 1"),
        ("log.every=0", "log.every: not greater than or equal to 1"),
        ("checkpoint.keep=0", "checkpoint.keep: not greater than or equal to 1"),
        ("data.count=7", "'data.count' is 7, less than one batch"),
        ("method.x=1", "'method' is not a section"),
        ("method=dfdd", "unknown method 'dfdd'; did you mean dfd"),
        ("dp_dmd.lambda=0.1", "dp_dmd.lambda is an option of dp_dmd, the recipe's method is dfd"),
        ("dp_dmd=3", "the recipe's method is dfd"),
    ],
)
def test_a_wrong_override_names_its_key_and_the_remedy(override, words):
    with pytest.raises(UserError, match=words) as caught:
        load_recipe("toy/dfd", [override])
    assert "\n" not in str(caught.value)
    assert (
        "correct it" in str(caught.value)
        or "did you mean" in str(caught.value)
        or ("write --set" in str(caught.value))
    )


def test_unknown_and_broken_recipes_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="did you mean toy/dfd"):
        load_recipe("toy/dfdd")
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("method = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(broken)
    broken.write_text("seed = 1")
    with pytest.raises(UserError, match="lacks the key 'method'"):
        load_recipe(broken)


def test_digest_follows_what_decides_the_weights_only():
    base = load_recipe("toy/dfd")
    same = load_recipe("toy/dfd", ["checkpoint.every_updates=1", "log.every=3"])
    other = load_recipe("toy/dfd", ["dfd.p=0.4"])
    assert base.digest() == same.digest() != other.digest()


UPDATES = {
    "toy/dmd2": 200, "toy/dp_dmd": 280,
    "toy-i2v/dmd2": 200, "toy-i2v/dp_dmd": 280, "toy-i2v/dp_dmd_k1": 280,
}  # fmt: skip
"""Student updates of shipped recipes when their digests were pinned, where they have others now."""


def as_pinned(name, *changes):
    """A shipped recipe with the updates that it had when digests were pinned."""
    own = [f"schedule.student_updates={UPDATES[name]}"] if name in UPDATES else []
    return load_recipe(name, [*own, *changes])


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_are_the_pinned_ones(name):
    assert as_pinned(name).digest() == DIGESTS[name]


LATER = {
    "dfd.coin": ("update", ["round", "sample"]),
    "dfd.forward_kl": ("false", ["true"]),
    "schedule.one_time": ("false", ["true"]),
    "data.level": ("1", ["2", "3"]),
    "data.mix": ("all", ["pale", "half_pale"]),
    "optim.optimiser": ("adamw", ["adamw8bit"]),
    "data.captions": ("[]", ["[0.5, 0.3, 0.2]", "[0.2, 0.3, 0.5]"]),
    "data.more_sources": ("[]", []),
    "data.weights": ("[]", []),
}
"""Options that came after the pinned digests: their defaults, and other values."""


def test_how_blocks_run_is_in_no_digest_but_whether_they_are_checkpointed_is():
    """As ever: runs of the version before had optim.gradient_checkpointing, on or off."""
    plain, full = (as_pinned("toy/dmd2", f"optim.checkpointing={p}") for p in ("none", "full"))
    assert plain.digest() == DIGESTS["toy/dmd2"] != full.digest()
    kept = ["optim.checkpointing=save_attention", "optim.attention=flash", "optim.compile=true"]
    assert as_pinned("toy/dmd2", *kept).digest() == full.digest()
    mode = as_pinned("toy/dmd2", "optim.compile=max-autotune-no-cudagraphs")
    assert mode.optim.compile == "max-autotune-no-cudagraphs" and mode.digest() == plain.digest()


def test_attention_that_is_no_kernel_of_its_own_cannot_be_kept():
    with pytest.raises(UserError, match="save_attention keeps what a fused kernel gives"):
        load_recipe("toy/dmd2", ["optim.checkpointing=save_attention", "optim.attention=math"])


def test_later_options_at_their_defaults_leave_a_digest_as_it_was():
    given = [f"{key}={default}" for key, (default, _) in LATER.items()]
    assert load_recipe("toy/dfd", given).digest() == DIGESTS["toy/dfd"]
    detach = as_pinned("toy/dp_dmd", "dp_dmd.detach=true")
    assert detach.digest() == DIGESTS["toy/dp_dmd"]
    assert as_pinned("toy/dp_dmd", "dp_dmd.detach=false").digest() != detach.digest()


def test_every_other_value_of_a_later_option_has_a_digest_of_its_own():
    changes = [f"{key}={value}" for key, (_, values) in LATER.items() for value in values]
    digests = [load_recipe("toy/dfd", [change]).digest() for change in changes]
    assert len({DIGESTS["toy/dfd"], *digests}) == 1 + len(changes)


def test_a_recipe_stored_before_an_option_reads_as_with_its_default():
    stored = load_recipe("toy/dfd").as_dict()
    assert stored["dfd"]["coin"] == "update" and stored["data"]["level"] == 1
    old = json.loads(json.dumps(stored))
    for key in LATER:
        section, name = key.split(".")
        del old[section][name]
    assert recipe_from_dict(old) == load_recipe("toy/dfd")


def test_a_method_without_options_may_get_one_later(monkeypatch):
    """Its section is in no digest until the option has another value than its default."""

    @dataclass(frozen=True)
    class Before(MethodOptions):
        """None."""

    @dataclass(frozen=True)
    class After(MethodOptions):
        new: Annotated[int, sections.LATER] = 3

    def digest(options, **values):
        method = SimpleNamespace(
            Options=options, uses_gan=lambda recipe: False, fake_score_loss=None
        )
        monkeypatch.setattr(methods, "_registered", {"own": method})
        return recipe_from_dict({"method": "own", **values}).digest()

    before = digest(Before)
    assert digest(After) == digest(After, own={"new": 3}) == before
    assert digest(After, own={"new": 4}) != before


@pytest.mark.parametrize("wrong", ["0", "4", "1.5", "true", "'1'"])
def test_a_level_of_captions_is_one_two_or_three(wrong):
    with pytest.raises(UserError, match=r"data\.level: not (a valid integer|(less|greater) than)"):
        load_recipe("toy/dfd", [f"data.level={wrong}"])


@pytest.mark.parametrize("weights", ["[1.0]", "[0.5, 0.4]", "[0.5, 0.5, 0.0]", "[]"])
def test_every_folder_has_a_share_and_shares_add_up_to_one(weights):
    given = ["data.source=a", "data.more_sources=['b']"]
    with pytest.raises(UserError, match=r"data(\.weights\.2)?: .*(one share for source|greater)"):
        load_recipe("toy/dfd", [*given, f"data.weights={weights}"])
    shares = load_recipe("toy/dfd", [*given, "data.weights=[0.75, 0.25]"])
    other = load_recipe("toy/dfd", [*given, "data.weights=[0.25, 0.75]"])
    one = load_recipe("toy/dfd", ["data.source=a"])
    assert len({shares.digest(), other.digest(), one.digest()}) == 3
    with pytest.raises(UserError, match="one share for source"):
        load_recipe("toy/dfd", ["data.source=a", "data.weights=[1.0]"])


@pytest.mark.parametrize("wrong", ["[1.0]", "[0.5, 0.5, 0.5]", "[1.5, -0.5, 0.0]"])
def test_captions_are_drawn_by_three_probabilities(wrong):
    with pytest.raises(UserError, match=r"data(\.captions|: captions must be three prob)"):
        load_recipe("toy/dfd", [f"data.captions={wrong}"])


def test_a_recipe_holds_the_sections_that_its_method_uses():
    shared = {"method", "arm", "model", "family", "seed", "data", "student", "teacher", "optim",
              "schedule", "fake_score", "checkpoint", "log", "init"}  # fmt: skip
    assert load_recipe("toy/dmd2").as_dict().keys() == shared
    assert load_recipe("toy/dmd2", ["gan.weight=0.1"]).as_dict().keys() == shared | {"gan"}
    assert load_recipe("toy/dfd").as_dict().keys() == shared | {"dfd"}
    assert load_recipe("toy/dp_dmd").as_dict().keys() == shared | {"dp_dmd"}
    unused = load_recipe("toy/dmd2", ["gan.blocks=[1]"])
    assert unused.gan == Gan() and unused.digest() == load_recipe("toy/dmd2").digest()


# --- what the previous version wrote


def previous_digest(table):
    """The digest of the version before the move: all sections, under its keys."""
    decisive = {k: v for k, v in table.items() if k not in ("checkpoint", "log", "family")}
    teacher = {k: v for k, v in table["teacher"].items() if k != "guidance_passes"}
    text = json.dumps(decisive | {"teacher": teacher}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PREVIOUS)
def test_a_recipe_of_the_previous_version_is_the_shipped_one(name):
    row = PREVIOUS[name]
    assert previous_digest(row["recipe"]) == row["digest"], "the fixture is as it was written"
    read = recipe_from_dict(row["recipe"])
    assert read == as_pinned(name) and read.digest() == as_pinned(name).digest()


def test_the_literal_digests_of_the_previous_version():
    expected = {
        "toy/dfd": "248e03adb34256f9",
        "toy/dmd2": "c7d2b07ba205c5f4",
        "wan2.1-t2v-1.3b/dfd_gan": "23d1447faf95c88c",
    }
    assert {name: PREVIOUS[name]["digest"] for name in expected} == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["schedule.ratio=3"], ["schedule.student_update_freq=3"]),
        (["dmd2.critic_loss='flow'"], ["fake_score.loss='flow'"]),
        (["optim.gradient_checkpointing=true"], ["optim.checkpointing='full'"]),
        (["optim.checkpointing='full'", "optim.gradient_checkpointing=false"], []),
        (["dmd2.gan_weight=0.1"], ["gan.weight=0.1"]),
        (
            ["dmd2.gan_weight=0.1", "dmd2.gan_features='teacher'", "dmd2.gan_critic_weight=2",
             "dmd2.gan_lr=1e-3", "dmd2.blocks=[1]", "dmd2.r1_weight=3", "dmd2.r1_alpha=0.2"],
            ["gan.weight=0.1", "gan.features='teacher'", "gan.discriminator_weight=2",
             "gan.lr=1e-3", "gan.blocks=[1]", "gan.r1_weight=3", "gan.r1_alpha=0.2"],
        ),
        (["gan.weight=0.1", "dmd2.gan_weight=0.2"], ["gan.weight=0.2"]),
        (["dfd.gan=true"], []),
    ],
)  # fmt: skip
def test_keys_of_the_previous_version_are_aliases(old, new, tmp_path):
    expected = load_recipe("toy/dmd2", new)
    assert load_recipe("toy/dmd2", old) == expected
    files = [tmp_path / "old.toml", tmp_path / "new.toml"]
    for file, lines in zip(files, (old, new), strict=True):
        file.write_text("\n".join(['method = "dmd2"', *lines]))
    assert load_recipe(files[0]) == load_recipe(files[1])


def test_dfd_of_the_previous_version_had_a_gan_only_if_asked():
    weight = "dmd2.gan_weight=0.1"
    assert load_recipe("toy/dfd", [weight]).gan == Gan()
    assert load_recipe("toy/dfd", [weight, "dfd.gan=false"]).gan == Gan()
    assert load_recipe("toy/dfd", [weight, "dfd.gan=true"]).gan.weight == 0.1
    assert load_recipe("toy/dp_dmd", [weight]).gan == Gan()
    gan = load_recipe("wan2.1-t2v-1.3b/dfd_gan", [weight])
    assert (gan.gan.weight, gan.gan.features) == (0.1, "teacher")


def test_sections_of_other_methods_are_dropped_from_stored_recipes_and_refused_in_files(tmp_path):
    stored = PREVIOUS["toy/dmd2"]["recipe"]
    stored = stored | {"dfd": stored["dfd"] | {"p": 0.9}}  # as no run of DMD2 ever read
    assert recipe_from_dict(stored) == as_pinned("toy/dmd2")
    file = tmp_path / "mixed.toml"
    file.write_text('method = "dmd2"\n[dfd]\np = 0.5\n[dp_dmd]\nlambda = 0.05\n')
    assert load_recipe(file) == load_recipe(file, ["dfd.p=0.5"])
    file.write_text('method = "dmd2"\n[dfd]\np = 0.4\n')
    with pytest.raises(UserError, match=r"mixed\.toml: dfd\.p is an option of dfd"):
        load_recipe(file)
