"""Calling a model: one compiled program for each way it is called, shared by all models of the same structure."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from threading import Lock
from typing import Any

import jax
import numpy as np

from ..errors import unknown_argument
from .structure import Structure

__all__ = ["Program", "as_tuple", "bind", "program_for", "takes"]

_MAX_PROGRAMS = 64  # structures whose programs are kept; a program holds on to compiled code and to no parameters
_OWN = ("rng", "self")  # arguments of a module that a caller does not give

_programs: OrderedDict[Hashable, Program] = OrderedDict()
_lock = Lock()


class Program:
    """A structure and its compiled calls: a function of parameters, inputs and a key for dropout."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.run = jax.jit(self._run, static_argnums=(0, 1))
        self._methods: dict[str, Any] = {}

    def _run(self, method: str, statics: tuple[tuple[str, Any], ...], params: Any, arrays: Any, rng: Any) -> Any:
        module = self.structure.module(params, rng)
        extra = {"rng": rng} if rng is not None and self.structure.is_ours else {}
        return getattr(module, method)(**arrays, **dict(statics), **extra)

    def __call__(self, params: Any, inputs: Mapping[str, Any], rng: Any = None, method: str = "__call__") -> Any:
        """What the module's `method` gives for these inputs; what is no array becomes a part of the program."""
        arrays, statics = {}, []
        for name, value in inputs.items():
            if _is_static(value):
                statics.append((name, value))
            else:
                arrays[name] = value
        return self.run(method, tuple(statics), params, arrays, rng)


def _is_static(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, str))


def program_for(key: Hashable, make: Callable[[], Structure]) -> Program:
    """The program of a structure: the one that was made for an equal key, or a new one."""
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key]
    program = Program(make())
    with _lock:
        program = _programs.setdefault(key, program)
        while len(_programs) > _MAX_PROGRAMS:
            _programs.popitem(last=False)
    return program


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
    module_class: type, args: tuple[Any, ...], keywords: Mapping[str, Any], method: str = "__call__"
) -> dict[str, Any]:
    """The inputs of a call by name, as arrays.

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
            raise unknown_argument(
                module_class.__name__, name, [*names, "params", "dropout_rng", "train", "return_dict"]
            )
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
