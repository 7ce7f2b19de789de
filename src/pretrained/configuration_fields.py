"""The fields of a config class: what they are called, what they may hold, and how they look in JSON."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple

from .errors import ConfigError

__all__ = [
    "Field",
    "attribute_alias",
    "check_value",
    "constructor_names",
    "fields_of",
    "from_json_value",
    "to_json_value",
]

MAX_SIZE = 2**31 - 1  # no dimension, count or id of a real model is larger
_MAX_INT = 2**63 - 1  # nor any number at all; frameworks convert integers to 64 bits

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "list": (list, tuple),
    "tuple": (list, tuple),
    "dict": (dict,),
}


class Field(NamedTuple):
    """A declared config field. `kinds` are the alternatives of its annotation; empty means anything."""

    name: str
    kinds: tuple[str, ...]
    default: Any


def fields_of(cls: type) -> Mapping[str, Field]:
    """Declared fields of a config class, base fields first; a later class overrides an earlier one."""
    return _fields_of(cls)


@cache
def _fields_of(cls: type) -> Mapping[str, Field]:
    table: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(base).items():
            if name.startswith("_") or "ClassVar" in str(annotation):
                continue
            table[name] = Field(name, _kinds(annotation), getattr(cls, name, None))
        for name in table.keys() & vars(base).keys():  # a plain `tie_word_embeddings = False` changes the default
            table[name] = table[name]._replace(default=vars(base)[name])
    return {name: field for name, field in table.items() if not isinstance(field.default, property)}


def constructor_names(cls: type) -> set[str]:
    """Names of the parameters that a config class's own constructor declares."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {"self"}


def _kinds(annotation: Any) -> tuple[str, ...]:
    """The alternatives of an annotation as plain names; empty if one of them is not a JSON type."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", None) or str(annotation)
    if not isinstance(annotation, (str, type)):
        text = str(annotation).replace("typing.", "").replace("NoneType", "None")
    kinds = []
    for part in _split_union(text):
        kind = part.split("[", 1)[0].strip().strip("\"'")
        if kind == "Optional":
            return (*_kinds(part[len("Optional[") : -1]), "None")
        kinds.append({"NoneType": "None", "Mapping": "dict", "Sequence": "list"}.get(kind, kind))
    return tuple(kinds) if all(kind in _TYPES for kind in kinds) else ()


def _split_union(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def check_value(key: str, value: Any, field: Field, *, positive: bool = False) -> None:
    """Raises ConfigError, naming key and value, unless `value` can stand in `field`."""
    if not field.kinds:
        return
    if value is None and field.default is None:
        return
    allowed = tuple(t for kind in field.kinds for t in _TYPES[kind])
    fits = isinstance(value, allowed) and not (isinstance(value, bool) and bool not in allowed)
    if not fits:
        expected = " or ".join(field.kinds)
        raise ConfigError(f"config key {key!r} must be {expected}, found {type(value).__name__} {value!r:.80}", key=key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(key, value, positive, is_count="float" not in field.kinds)


def _check_number(key: str, value: float, positive: bool, is_count: bool) -> None:
    if positive and value <= 0:
        raise ConfigError(f"config key {key!r} must be positive, found {value!r:.80}", key=key)
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise ConfigError(f"config key {key!r} is {value!r:.80}: no number of a model is that large", key=key)
    if is_count and abs(value) > MAX_SIZE:
        raise ConfigError(f"config key {key!r} is {value!r:.80}: larger than any real model's ({MAX_SIZE})", key=key)


def attribute_alias(target: str) -> property:
    """A property that reads and writes another attribute: the entries of `attribute_map`."""

    def read(self: Any) -> Any:
        return getattr(self, target)

    def write(self: Any, value: Any) -> None:
        setattr(self, target, value)

    return property(read, write, doc=f"Other name of `{target}`.")


def from_json_value(value: Any) -> Any:
    """A JSON value as Python has it: infinities spelt {"__float__": "Infinity"} become floats."""
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:
            return _special_float(value["__float__"])
        return {k: from_json_value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [from_json_value(v) for v in value]
    return value


def _special_float(text: Any) -> float:
    table = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    if not isinstance(text, str) or text not in table:
        raise ConfigError(f'{{"__float__": {text!r:.40}}} is none of Infinity, -Infinity and NaN', key="__float__")
    return table[text]


def to_json_value(value: Any) -> Any:
    """A field's value as JSON has it; nested configs become objects with their own model_type."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, Mapping):
        return {str(k): to_json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json_value(v) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Real):  # numpy's numbers
        return int(value) if isinstance(value, Integral) else to_json_value(float(value))
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    return str(getattr(value, "__name__", value)).removeprefix("torch.")
