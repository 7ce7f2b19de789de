"""The inputs of a call by name: what a module declares, and what a caller gave."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from .errors import unknown_argument

__all__ = ["as_tuple", "bind", "takes"]

_OWN = ("rng", "self")  # arguments of a module that a caller does not give


@cache
def _parameters_of(module_class: type, method: str) -> tuple[tuple[str, ...], bool]:
    """(names that a call may give, in order; whether it may give others).

    What a head hands on as `**inputs` has the names of the module class that it declares as `inputs_like`. They come
    before what a head takes by keyword alone.
    """
    parameters = inspect.signature(getattr(module_class, method)).parameters
    own = {name: p.kind for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD and name not in _OWN}
    last = [name for name, kind in own.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    names = [name for name in own if name not in last]
    takes_any = len(own) < len(set(parameters) - set(_OWN))
    inner: type | None = getattr(module_class, "inputs_like", None)
    if takes_any and inner is not None:
        more, takes_any = _parameters_of(inner, method)
        names += [name for name in more if name not in own]
    return (*names, *last), takes_any


def bind(
    module_class: type,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    of_call: tuple[str, ...],
    method: str = "__call__",
) -> dict[str, Any]:
    """The inputs of a call by name, numbers in lists as arrays; `of_call` are names that the call itself takes.

    Raises:
        OptionError: a keyword that the module does not know; names the nearest. TypeError: too many inputs.
    """
    names, takes_any = _parameters_of(module_class, method)
    if len(args) > len(names):
        raise TypeError(f"{module_class.__name__} takes {len(names)} inputs, found {len(args)}")
    inputs = dict(zip(names, args, strict=False))
    for name, value in keywords.items():
        if name in inputs:
            raise TypeError(f"{name} was given twice")
        if name not in names and not takes_any:
            raise unknown_argument(module_class.__name__, name, [*names, *of_call])
        inputs[name] = value
    return {name: _as_array(value) for name, value in inputs.items() if value is not None}


def _as_array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (list, tuple)) and _is_numbers(value) else value


def _is_numbers(value: Any) -> bool:
    first = value
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    return isinstance(first, (int, float)) and not isinstance(first, bool)


def takes(module_class: type, name: str, method: str = "__call__") -> bool:
    """Whether a module's call has an argument of that name."""
    return name in _parameters_of(module_class, method)[0]


def as_tuple(output: Any) -> Any:
    """An output as a plain tuple of what is in it."""
    to_tuple = getattr(output, "to_tuple", None)
    return output if to_tuple is None else to_tuple()
