"""Settings: typed, refused in one line with the place and what would do."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from tokenmill.errors import RecipeError
from tokenmill.shards.settings import read_settings, to_mapping


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rows: int = 1
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise RecipeError(f"rows must not be negative, got {self.rows}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: str
    colour: Colour = Colour.RED
    how: Literal["split", "drop"] = "split"
    edges: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    each: dict[str, Inner] = field(default_factory=dict)
    place: Path | None = None
    share: float | str = 0.0


def test_a_mapping_becomes_the_dataclass_and_comes_back():
    mapping = {
        "name": "x", "colour": "blue", "how": "drop", "edges": [1, 2], "inner": {"rows": "2.5e3"},
        "each": {"a": {"share": 1}}, "place": "/tmp", "share": "1/3",
    }  # fmt: skip
    outer = read_settings(Outer, mapping, "r.yaml")
    assert outer.colour is Colour.BLUE
    assert outer.edges == (1, 2)
    assert outer.inner.rows == 2_500  # which YAML 1.1 takes for a string
    assert outer.each["a"].share == 1.0
    assert outer.place == Path("/tmp")
    assert read_settings(Outer, to_mapping(outer), "again") == outer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nane": 1}, "r.yaml.nane: unknown key. Did you mean name? Known keys: colour, each,"),
        ({"inner": {"row": 1}}, "r.yaml.inner.row: unknown key. Did you mean rows?"),
        (
            {"inner": {"rows": True}},
            "r.yaml.inner.rows: expected a whole number, found True (bool)",
        ),
        ({"inner": {"rows": 1.5}}, "r.yaml.inner.rows: expected a whole number, found 1.5 (float)"),
        (
            {"inner": {"rows": "1.25e1"}},
            "r.yaml.inner.rows: expected a whole number, found '1.25e1'",
        ),
        ({"inner": {"rows": -1}}, "r.yaml.inner: rows must not be negative, got -1"),
        ({"inner": 3}, "r.yaml.inner: expected a mapping of settings, found 3 (int)"),
        ({"name": None}, "r.yaml.name: expected a string, found nothing."),
        ({"colour": "green"}, "r.yaml.colour: expected one of red, blue, found 'green'."),
        ({"how": "keep"}, "r.yaml.how: expected one of split, drop, found 'keep'."),
        ({"edges": 3}, "r.yaml.edges: expected a list, found 3 (int)."),
        ({"edges": [1, "b"]}, "r.yaml.edges[1]: expected a whole number, found 'b' (str)."),
        ({"each": {"a": {"share": float("nan")}}}, "r.yaml.each.a.share: expected a number, found"),
        ({"each": {"a": {"share": "nan"}}}, "r.yaml.each.a.share: expected a number, found nan"),
        ({"each": []}, "r.yaml.each: expected a mapping, found [] (list)."),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(change, message):
    with pytest.raises(RecipeError) as caught:
        read_settings(Outer, {"name": "x", **change}, "r.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_setting_without_default_must_be_given():
    with pytest.raises(RecipeError, match=r"r\.yaml\.name: missing\. It has no default; set it\."):
        read_settings(Outer, {}, "r.yaml")
