"""A model between calls: its program, its parameters, and the module that somebody may be training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..errors import InvalidOptionError, unknown_argument
from ..options import LOAD_KEYWORDS
from . import calls
from .init import draw_all
from .layers import Module
from .module_config import ModuleConfig
from .sharding import Placing, shardings_of
from .structure import Structure, flatten, nest

__all__ = [
    "LOAD_ARGUMENTS", "call", "check_arguments", "count", "dtype_of", "initial_params", "module_of", "params_of",
    "program_of", "rebuild", "replace", "set_params", "shardings_on",
]  # fmt: skip

# What from_pretrained takes for the model beside the options of every load and the arguments of the module.
LOAD_ARGUMENTS = (
    "dtype", "torch_dtype", "param_dtype", "_do_init", "seed", "input_shape", "mesh", "sharding_rules",
    "gradient_checkpointing",
)  # fmt: skip
_NOT_MODULE = frozenset({"self", "config", "dtype", "rngs"})


def check_arguments(cls: Any, arguments: Mapping[str, Any]) -> None:
    """Raises OptionError unless the module of `cls` takes all these arguments."""
    if not arguments:
        return
    parameters = inspect.signature(cls.module_class.__init__).parameters if cls.module_class is not None else {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = set(parameters) - _NOT_MODULE
    for name in arguments:
        if name not in known:
            own = inspect.signature(cls.__init__).parameters
            names = {*known, *own, *LOAD_ARGUMENTS, *LOAD_KEYWORDS} - {"self", "kwargs"}
            raise unknown_argument(cls.__name__, name, names)


def program_of(model: Any) -> calls.Program:
    """The program for a model as its config is now."""
    config = ModuleConfig(model.config, model._dtype, model._gradient_checkpointing)
    if (given := model._given) is not None:
        return calls.Program(Structure(given, lambda rng: given))
    module_class = type(model).module_class
    if not (isinstance(module_class, type) and issubclass(module_class, nnx.Module)):
        name = getattr(module_class, "__name__", module_class)
        raise InvalidOptionError(
            f"{type(model).__name__}.module_class is {name}, which is no flax.nnx.Module (nor can it be a Linen one)",
            key="module_class",
        )
    if not issubclass(module_class, Module):
        make = _maker(module_class, model)
        return calls.Program(Structure(nnx.eval_shape(make), make))
    arguments = tuple(sorted(model._arguments.items()))
    key = module_class, config, arguments
    return calls.program_for(key, lambda: _described(module_class, config, model._arguments))


def _described(module_class: Any, config: ModuleConfig, arguments: Mapping[str, Any]) -> Structure:
    module = module_class(config, **arguments)
    return Structure(module, lambda rng: module)


def _maker(module_class: Any, model: Any) -> Callable[..., nnx.Module]:
    """What makes a module of a class that is not ours, from a key."""
    takes = inspect.signature(module_class.__init__).parameters
    fixed = {"config": model.config, "dtype": model._dtype or jnp.float32}
    known = {name: value for name, value in fixed.items() if name in takes} | model._arguments

    def make(rng: Any = None) -> nnx.Module:
        rngs = {"rngs": nnx.Rngs(0 if rng is None else rng)} if "rngs" in takes else {}
        made: nnx.Module = module_class(**known, **rngs)
        return made

    return make


def rebuild(model: Any, **changes: Any) -> None:
    """Forgets the program of a model whose config or way of computing changes; parameters stay."""
    params = None if model._values is None and model._live is None else params_of(model)
    for name, value in changes.items():
        setattr(model, f"_{name}", value)
    model._made = model._live = None
    model._values = params


def replace(model: Any, params: dict[str, Any], *, given: bool) -> dict[str, Any]:
    """Gives a model whose structure changed its new parameters, unless the caller keeps them; returns them."""
    if not given:
        model._live, model._values = None, params
    return params


def dtype_of(model: Any) -> Any:
    """The dtype that a model computes in."""
    if model._dtype is not None:
        return jnp.dtype(model._dtype)
    held = model._values if model._live is None else params_of(model)
    leaves = jax.tree.leaves(held) if held is not None else list(model.structure.places)
    found = (jnp.dtype(leaf.dtype) for leaf in leaves)
    return next((dtype for dtype in found if jnp.issubdtype(dtype, jnp.floating)), jnp.dtype("float32"))


def params_of(model: Any) -> dict[str, Any]:
    """The parameters of a model: those of its module, where somebody has that."""
    if not model._is_initialized:
        raise ValueError(
            f"this {type(model).__name__} was made with _do_init=False and has no params: keep what from_pretrained or "
            "init_weights gave, and pass it as params="
        )
    if model._live is not None:
        return model.structure.params(model._live)
    values: dict[str, Any] = model._values
    return values


def set_params(model: Any, params: Any) -> None:
    """Gives a model other parameters; its module, if somebody has it, holds them from then on.

    Raises:
        ValueError: some are missing or of another shape, or the model holds none.
    """
    params_of(model)
    given = flatten(params)
    places = model.structure.places
    if missing := [".".join(place.path) for place in places if place.path not in given]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"params lack {', '.join(missing[:5])}{more}")
    for place in places:
        if tuple(given[place.path].shape) != place.shape:
            raise ValueError(f"params: {place.name} is {tuple(given[place.path].shape)}, expected {place.shape}")
    chosen = nest({place.path: given[place.path] for place in places})
    if model._live is None:
        model._values = chosen
    else:
        nnx.update(model._live, nnx.state(model.structure.module(chosen), nnx.Param))


def module_of(model: Any) -> Any:
    """The module that holds the parameters of a model; the same one whenever it is asked for."""
    if model._live is None:
        model._live = model.structure.module(params_of(model))
        model._values = None
    return model._live


def initial_params(model: Any, rng: Any, params: Any = None) -> dict[str, Any]:
    """Initial parameters, or `params` completed."""
    if isinstance(rng, int):
        rng = jax.random.key(rng)
    structure, given = model.structure, {} if params is None else flatten(params)
    lacking = [place for place in structure.places if place.path not in given]
    drawn = draw_all(structure, lacking, rng, shardings=shardings_of(model))
    return nest({p.path: given[p.path] if p.path in given else drawn[p.name] for p in structure.places})


def shardings_on(model: Any, mesh: Any, rules: Any) -> dict[str, Any]:
    """A nested dict of the shardings that a model's parameters have on a mesh."""
    placing = Placing.of(mesh, rules)
    if placing is None:
        raise InvalidOptionError("mesh= is a jax.sharding.Mesh, not None", key="mesh")
    found = placing.shardings(model)
    return nest({place.path: found[place.name] for place in model.structure.places})


def count(model: Any) -> int:
    """How many numbers a model's parameters are."""
    return sum(math.prod(place.shape) for place in model.structure.places)


def call(
    model: Any,
    inputs: dict[str, Any],
    params: Any,
    dropout_rng: Any,
    train: bool,
    return_dict: bool | None,
    method: str = "__call__",
) -> Any:
    """The output of one call of a module's `method`; what it does not say the config does."""
    config, module_class = model.config, model._module_class
    if train and dropout_rng is None:
        raise ValueError("train=True needs dropout_rng=, a key such as jax.random.key(0)")
    for name in ("output_attentions", "output_hidden_states"):
        if name not in inputs and calls.takes(module_class, name, method):
            inputs[name] = bool(getattr(config, name))
    params = params_of(model) if params is None else params
    output = model._program(params, inputs, dropout_rng if train else None, method)
    wants_tuple = not (config.use_return_dict if return_dict is None else return_dict)
    return calls.as_tuple(output) if wants_tuple else output
