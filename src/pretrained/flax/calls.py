"""Calling a model: one compiled program for each way it is called, shared by all models of the same structure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any

import jax

from .. import call_inputs
from ..call_inputs import as_tuple, takes
from .structure import Structure

__all__ = ["Program", "as_tuple", "bind", "program_for", "takes"]

_MAX_PROGRAMS = 64  # structures whose programs are kept; a program holds on to compiled code and to no parameters

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


def bind(
    module_class: type, args: tuple[Any, ...], keywords: Mapping[str, Any], method: str = "__call__"
) -> dict[str, Any]:
    """The inputs of a call by name; see `call_inputs.bind`."""
    return call_inputs.bind(module_class, args, keywords, ("params", "dropout_rng", "train", "return_dict"), method)
