"""Overrides: dotted paths, JSON values, unions by kind, and messages that name the nearest right name."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from tubelet.core.config import Config, at_default
from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Window


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9


class Warmup(Config):
    steps: int = 10
    shape: Literal["linear", "cosine"] = "linear"


class Adam(Config):
    kind: Literal["adam"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: Warmup = Warmup()


class Neck(Config):
    channels: int = Field(default=64, ge=1)


class Recipe(Config):
    name: str = "plain"
    optim: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()
    neck: Neck | None = None
    sizes: tuple[int, ...] = (1, 2)
    flip: bool = False


def test_an_override_changes_one_value_and_leaves_the_original() -> None:
    before = Recipe()
    after = before.override("optim.lr=0.01")
    assert isinstance(after.optim, Sgd)
    assert (after.optim.lr, after.optim.momentum) == (0.01, 0.9)
    assert before == Recipe()


def test_no_override_is_an_equal_config() -> None:
    config = Recipe(optim=Adam(lr=3e-4), neck=Neck(channels=3), sizes=())
    assert config.override() == config


def test_several_overrides_apply_in_order() -> None:
    assert Recipe().override("optim.lr=1", "flip=true", "optim.lr=2") == Recipe(optim=Sgd(lr=2), flip=True)


@pytest.mark.parametrize(
    ("assignment", "field", "value"),
    [
        ("flip=true", "flip", True),
        ("flip=True", "flip", True),
        ("flip=false", "flip", False),
        ("name=wide", "name", "wide"),
        ('name="wide"', "name", "wide"),
        ("name=a=b", "name", "a=b"),
        ("name=", "name", ""),
        ("sizes=[4, 5, 6]", "sizes", (4, 5, 6)),
        ("sizes=[]", "sizes", ()),
        (" sizes = [7] ", "sizes", (7,)),
        ('neck={"channels": 8}', "neck", Neck(channels=8)),
        ("neck={}", "neck", Neck()),
        ("neck=null", "neck", None),
        ("neck=None", "neck", None),
    ],
)
def test_values_are_json_or_else_plain_text(assignment: str, field: str, value: object) -> None:
    assert getattr(Recipe(neck=Neck(channels=2)).override(assignment), field) == value


def test_a_field_that_is_null_can_be_set_whole_but_not_in_part() -> None:
    assert Recipe().override('neck={"channels": 5}').neck == Neck(channels=5)
    with pytest.raises(ConfigError, match="neck has no fields, it is None"):
        Recipe().override("neck.channels=5")


def test_a_choice_is_replaced_by_kind() -> None:
    assert Recipe().override('optim={"kind": "adam", "lr": 0.5}').optim == Adam(lr=0.5)


def test_another_kind_starts_from_its_own_defaults_and_the_same_kind_changes_nothing() -> None:
    tuned = Recipe(optim=Sgd(lr=7))
    assert tuned.override("optim.kind=adam").optim == Adam()
    assert tuned.override("optim.kind=adam", "optim.lr=2").optim == Adam(lr=2)
    assert tuned.override("optim.kind=sgd") == tuned


def test_assignments_of_one_call_are_judged_together() -> None:
    assert Window().override("stride=4", "length=8") == Window(stride=4, length=8)


def test_fields_of_a_choice_made_in_the_same_call_are_known() -> None:
    changed = Recipe().override('optim={"kind": "adam"}', "optim.betas=[0.5, 0.6]", "optim.warmup.steps=3")
    assert changed.optim == Adam(betas=(0.5, 0.6), warmup=Warmup(steps=3))


def test_fields_of_the_choice_that_was_replaced_are_forgotten() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        Recipe().override('optim={"kind": "adam"}', "optim.momentum=0.5")


def test_a_part_set_in_the_same_call_can_be_refined() -> None:
    assert Recipe().override("neck={}", "neck.channels=5").neck == Neck(channels=5)


def test_a_nested_choice_keeps_its_kind() -> None:
    changed = Recipe(optim=Adam()).override("optim.warmup.shape=cosine")
    assert changed.optim == Adam(warmup=Warmup(shape="cosine"))


faults = {
    "a misspelt field": ("optim.momentun=1", r"optim\.momentun.*did you mean 'momentum'\?"),
    "a misspelt part": ("optin.lr=1", r"no field 'optin' in Recipe; did you mean 'optim'\?"),
    "a name like no other": ("zzz=1", "known: flip, name, neck, optim, sizes"),
    "the field of another choice": ("optim.betas=[1, 2]", "no field 'betas' in optim"),
    "a field below a number": ("optim.lr.x=1", "optim.lr has no fields"),
    "a field below a list": ("sizes.0=1", "sizes has no fields"),
    "no equals sign": ("flip", "expected key=value, got 'flip'"),
    "an empty key": ("=3", "no field ''"),
    "a path with a hole": ("optim..lr=1", "no field ''"),
    "text for a number": ("optim.lr=fast", r"optim.*lr: .*number.*got 'fast'"),
    "a fraction for a count": ('neck={"channels": 1.5}', r"neck\.channels: .*got 1.5"),
    "a number out of range": ('neck={"channels": 0}', r"neck\.channels: .*greater than or equal to 1.*got 0"),
    "a number for a switch": ("flip=7", r"flip: .*got 7"),
    "a list for a number": ("optim.lr=[1]", r"optim.*lr: .*got \[1\]"),
    "too few values": ('optim={"kind": "adam", "betas": [1]}', r"optim.*betas"),
    "an unknown kind": ('optim={"kind": "adan"}', r"optim: .*'sgd', 'adam'"),
    "a choice without kind and with a wrong field": ('optim={"speed": 3}', "optim"),
    "an unknown value of a literal": ("optim=sgd", "optim: .*got 'sgd'"),
    "null where none is allowed": ("name=null", "name: .*got None"),
    "an unknown field in a JSON value": ('neck={"width": 3}', r"neck\.width"),
}


@pytest.mark.parametrize(("assignment", "message"), faults.values(), ids=faults.keys())
def test_a_wrong_override_is_one_line_that_says_what_and_where(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe().override(assignment)
    assert "\n" not in str(caught.value)


def test_a_fault_of_the_whole_names_no_empty_path() -> None:
    with pytest.raises(ConfigError) as caught:
        Window().override("stride=4")
    assert not str(caught.value).startswith(":")
    assert "a stride of 4 leaves out frames" in str(caught.value)


def test_the_number_of_further_faults_is_told() -> None:
    with pytest.raises(ConfigError, match=r"\(and 1 more\)"):
        Recipe.from_tree({"flip": "maybe", "sizes": "many"})


def test_a_config_cannot_be_changed_or_given_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        Recipe().name = "other"  # type: ignore[misc]
    with pytest.raises(ConfigError, match="nmae"):
        Recipe(nmae="other")  # type: ignore[call-arg]


def test_a_wrong_default_is_found_when_the_config_is_made() -> None:
    class Wrong(Config):
        count: int = "three"  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="count"):
        Wrong()


@given(
    lr=st.floats(allow_nan=False, allow_infinity=False),
    sizes=st.lists(st.integers(-(2**53), 2**53), max_size=4),
    flip=st.booleans(),
    name=st.text(max_size=8),
)
def test_a_config_survives_json_and_overrides_say_the_same(lr: float, sizes: list[int], flip: bool, name: str) -> None:
    config = Recipe(name=name, optim=Adam(lr=lr), sizes=tuple(sizes), flip=flip)
    assert Recipe.from_tree(json.loads(config.model_dump_json())) == config
    base = Recipe(optim=Adam())
    assert base.override(f"optim.lr={lr}", f"sizes={sizes}", f"flip={flip}", f"name={json.dumps(name)}") == config


# changes in code


def test_but_changes_fields_and_leaves_the_original() -> None:
    before = Recipe()
    after = before.but(flip=True, neck=Neck(channels=3))
    assert (after.flip, after.neck) == (True, Neck(channels=3))
    assert before == Recipe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abuot": "x"}, "no field 'abuot' in Recipe"),
        ({"sizes": "many"}, "sizes"),
        ({"neck": {"channels": 0}}, "neck.channels"),
        ({"optim": Neck()}, "optim"),
    ],
)
def test_but_refuses_what_a_constructor_refuses(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe().but(**changes)


def test_a_field_is_at_its_default_by_its_own_class_wherever_it_stands() -> None:
    names = at_default(Recipe(optim=Adam(lr=0.5), neck=Neck()))
    assert names == {
        "flip",
        "name",
        "neck.channels",  # though `neck` itself is not
        "optim.betas",
        "optim.kind",
        "optim.warmup",
        "optim.warmup.shape",
        "optim.warmup.steps",
        "sizes",
    }
