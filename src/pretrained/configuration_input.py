"""From what a config file and a caller say to the arguments of a config class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .checkpoint.dtypes import known_dtype
from .configuration_fields import constructor_names, fields_of, from_json_value
from .configuration_file import is_plain_key
from .errors import ConfigError, PretrainedError

__all__ = ["LABELS", "check_dtype", "located", "merged_values", "plain_dtype"]

LABELS = ("num_labels", "id2label", "label2id")

# What the constructor of a config or a model makes of values that nobody foresaw.
_BUILD_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError)


@contextmanager
def located(class_name: str, file: str | None) -> Iterator[None]:
    """Makes whatever goes wrong in the block a ConfigError that names the file, where one is known."""
    try:
        yield
    except ConfigError as error:
        if file is not None:
            error.at(file)
        raise
    except PretrainedError:
        raise
    except _BUILD_ERRORS as error:
        reason = f"{class_name} cannot be built from these values: {type(error).__name__}: {error}"
        raise ConfigError(f"{file or 'config'}: {reason}", path=file, reason=reason) from error


def merged_values(
    cls: Any, config_dict: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values of a file with the overrides in place, overrides that are no field of the class)."""
    values = {name: from_json_value(value) for name, value in config_dict.items() if is_plain_key(name)}
    named = {*constructor_names(cls), *fields_of(cls), *LABELS, "torch_dtype", "attn_implementation", *values}
    unused = {}
    for name, value in overrides.items():
        if name in named or cls.attribute_map.get(name) in named:
            _put(values, name, value, cls.attribute_map)
        elif name != "return_unused_kwargs":
            unused[name] = value
    if overrides.keys() & set(LABELS):
        _drop_outdated_labels(values, overrides)
    return values, unused


def _drop_outdated_labels(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Takes away what a file says of the labels and what no longer holds beside the caller's."""
    table, count = values.get("id2label"), overrides.get("num_labels")
    outdated = set()
    if overrides.get("id2label") is not None:
        outdated = {"num_labels", "label2id"}
    elif count is not None and isinstance(table, Mapping) and len(table) != count:
        outdated = {"id2label", "label2id"}
    for name in outdated - overrides.keys():
        values.pop(name, None)


def _put(values: dict[str, Any], name: str, value: Any, attribute_map: Mapping[str, str]) -> None:
    """Sets a value in place of whatever stands under another name of the same field."""
    names = {"torch_dtype": "dtype", **attribute_map}
    target = names.get(name, name)
    for other in [other for other in values if names.get(other, other) == target]:
        del values[other]
    values[name] = plain_dtype(value) if target == "dtype" else value


def plain_dtype(dtype: Any) -> Any:
    """A dtype as its plain name; torch.float32, jnp.float32 and "float32" are one. What is none stays as it is."""
    return dtype if dtype is None or isinstance(dtype, dict) else known_dtype(dtype) or dtype


def check_dtype(key: str, value: Any) -> None:
    """Refuses what no table of dtypes has; a dict, as 5.x writes it, says one for each part."""
    for name in value.values() if isinstance(value, dict) else (value,):
        if not (name is None or name == "auto" or (isinstance(name, str) and known_dtype(name))):
            raise ConfigError(f"config key {key!r} is {name!r:.80}, which is no dtype", key=key)
