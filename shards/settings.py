"""Read a JSON or YAML mapping into a frozen dataclass, and say in one line what is wrong with it.

    wiki.yaml.packing.overlnog: unknown key. Did you mean overlong? Known keys: bucket_edges, ...

A class states its settings by its fields; this file only walks the types: numbers, strings,
booleans, None, Path, Literal, StrEnum, tuple[X, ...], dict[str, X], X | None and other
dataclasses. An integer may stand where a float is asked for, and 4e6 for an integer; nothing else
is converted. What a class itself refuses (in __post_init__) gets its place added.
"""

import contextlib
import difflib
import enum
import functools
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from tokenmill.errors import RecipeError

T = TypeVar("T")
_EXPONENT = re.compile(r"\d+(\.\d+)?[eE]\+?\d{1,2}")


def read_settings(cls: type[T], mapping: object, where: str) -> T:
    """The dataclass that a mapping describes.

    Args:
        cls: a dataclass.
        mapping: string keys; what YAML or JSON gave.
        where: names the place in messages, e.g. "manifests/wiki.yaml: pack".

    Raises:
        RecipeError: an unknown key, a missing one, or a value of another type, with its place.
    """
    if not isinstance(mapping, Mapping):
        raise RecipeError(f"{where}: expected a mapping of settings, found {_kind(mapping)}.")
    hints, required = _settings_of(typing.cast(Any, cls))
    for key in mapping:
        if key not in hints:
            raise RecipeError(unknown_key(where, str(key), list(hints)))
    values = {key: _convert(hints[key], mapping[key], f"{where}.{key}") for key in mapping}
    for name in required:
        if name not in values:
            raise RecipeError(f"{where}.{name}: missing. It has no default; set it.")
    try:
        return cls(**values)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def apply_change(mapping: dict[str, Any], change: str) -> None:
    """Set one key of nested mappings, in place, to what `a.b=value` says; the value is YAML.

    Raises:
        RecipeError: that is no change, or the value no YAML.
    """
    place, equals, text = change.partition("=")
    if not equals or not place:
        raise RecipeError(f"--set {change}: expected key=value, e.g. packing.overlong=split")
    *above, key = place.split(".")
    for name in above:
        if mapping.get(name) is None:
            mapping[name] = {}
        mapping = mapping[name]
        if not isinstance(mapping, dict):
            raise RecipeError(f"--set {change}: {name} is a value, it has no keys below it")
    try:
        mapping[key] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise RecipeError(f"--set {change}: {text} is not readable as YAML") from None


def to_mapping(settings: Any) -> Any:
    """What read_settings reads: plain dicts, lists, strings, numbers, None."""
    if is_dataclass(settings):
        return {field.name: to_mapping(getattr(settings, field.name)) for field in fields(settings)}
    if isinstance(settings, Mapping):
        return {str(key): to_mapping(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [to_mapping(value) for value in settings]
    if isinstance(settings, Path):
        return str(settings)
    if isinstance(settings, enum.Enum):
        return settings.value
    return settings


def unknown_key(where: str, key: str, known: list[str]) -> str:
    """The message for a key that nobody reads."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{where}.{key}: unknown key.{hint} Known keys: {', '.join(sorted(known))}."


@functools.cache
def _settings_of(cls: type) -> tuple[dict[str, Any], list[str]]:
    """The type of each setting of a class, and those without a default."""
    hints = get_type_hints(cls)
    known = fields(typing.cast(Any, cls))
    missing = [f for f in known if f.default is MISSING and f.default_factory is MISSING]
    return {field.name: hints[field.name] for field in known}, [field.name for field in missing]


def _convert(hint: Any, value: Any, where: str) -> Any:
    if type(value) is hint and value == value:  # NaN is not
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: expected one of {_listed(arguments)}, found {value!r}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where}: expected a list, found {_kind(value)}.")
        return tuple(
            _convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)
        )
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}: expected a mapping, found {_kind(value)}.")
        return {
            str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()
        }
    return _convert_plain(hint, value, where)


def _convert_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    for choice in choices[:-1]:
        try:
            return _convert(choice, value, where)
        except RecipeError:
            continue  # the last choice's message is the one to show
    return _convert(choices[-1], value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if is_dataclass(hint):
        return read_settings(typing.cast(type, hint), value, where)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            choices = _listed([choice.value for choice in hint])
            raise RecipeError(f"{where}: expected one of {choices}, found {value!r}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 takes 6e-4 for a string
            value = float(value)
    if hint is int and isinstance(value, str) and _EXPONENT.fullmatch(value):
        number = Decimal(value)  # and 4e6
        value = int(number) if number == number.to_integral_value() else value
    if hint is float and value != value:
        raise RecipeError(f"{where}: expected a number, found {value!r}, which compares to none.")
    # bool is an int in Python; a recipe that says `rows: true` means something else.
    if (
        isinstance(hint, type)
        and isinstance(value, hint)
        and isinstance(value, bool) == (hint is bool)
    ):
        return value
    raise RecipeError(f"{where}: expected {_name(hint)}, found {_kind(value)}.")


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint) or str(getattr(hint, "__name__", hint))


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value!r} ({type(value).__name__})" if not isinstance(value, Mapping) else "a mapping"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)
