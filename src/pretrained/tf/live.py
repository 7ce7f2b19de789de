"""A model between calls: its module, its variables, and what changes of them."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..call_inputs import as_tuple, takes
from ..errors import InvalidOptionError, MissingFrameworkError, unknown_argument
from ..module_config import ModuleConfig
from ..options import LOAD_KEYWORDS
from ..tying import ties_of
from .calls import Beside
from .generation.run import Programs
from .init import draw
from .layers import Module
from .structure import Place, Structure

__all__ = [
    "assign", "call", "check_arguments", "count", "describe", "drawn", "dtype_of", "fill_anew", "initialise",
    "layer_of", "output_layer", "output_name", "require_keras", "restore_variables", "store_variables", "take",
]  # fmt: skip


def require_keras(name: str) -> None:
    """Raises MissingFrameworkError unless this is Keras 3 on TensorFlow."""
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise MissingFrameworkError(
            f"{name} is a Keras 3 model, and TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']} asks for Keras 2, "
            "whose optimizers and layers do not go with it: unset TF_USE_LEGACY_KERAS",
            key="TF_USE_LEGACY_KERAS",
        )
    if keras.backend.backend() != "tensorflow":
        raise MissingFrameworkError(
            f"{name} needs Keras on TensorFlow, and this Keras is on {keras.backend.backend()}: set "
            "KERAS_BACKEND=tensorflow before Keras is imported",
            key="KERAS_BACKEND",
        )


def check_arguments(cls: Any, arguments: Mapping[str, Any]) -> None:
    """Raises OptionError unless the module of `cls` takes all these arguments."""
    module_class = cls.module_class
    if not (isinstance(module_class, type) and issubclass(module_class, Module)):
        name = getattr(module_class, "__name__", module_class)
        raise InvalidOptionError(f"{cls.__name__}.module_class is {name}, which is no Module", key="module_class")
    known = set(inspect.signature(module_class.__init__).parameters) - {"self", "config"}
    for name in arguments:
        if name not in known:
            own = inspect.signature(cls.__init__).parameters
            raise unknown_argument(cls.__name__, name, {*known, *own, *LOAD_KEYWORDS} - {"self", "kwargs"})


def describe(model: Any) -> Structure:
    """The structure of a model as its config is now, with a module of its own that has no variables."""
    policy = model.dtype_policy
    is_mixed = policy.compute_dtype != policy.variable_dtype
    config = ModuleConfig(model.config, policy.compute_dtype if is_mixed else None, model._gradient_checkpointing)
    return Structure(type(model).module_class(config, **model._arguments))


def take(model: Any, structure: Structure) -> None:
    """Makes a structure the model's own; Keras tracks its module from then on, and no other."""
    if model._structure is not None:
        model._tracker.untrack(model.module)
    model._structure, model._programs = structure, Programs()
    model.module = structure.module


def fill_anew(model: Any, values: Mapping[str, Any] | None = None) -> None:
    """Gives a model the structure that its config has now: variables of before, but for these values in their place."""
    kept = {} if model._structure is None else model._structure.variables
    structure = describe(model)
    structure.fill({place.name: (values or {}).get(place.name, kept.get(place.name)) for place in structure.places})
    take(model, structure)


def layer_of(model: Any, name: str | None) -> Any:
    """The layer that has the parameter `name`, or None."""
    place = model.structure.by_name.get(name or "")
    return None if place is None else place.owner


def output_name(model: Any) -> str | None:
    """Name of the parameter that is the table of the token head: its own, or the one that it is tied to."""
    name = type(model)._output_embeddings
    return ties_of(model).get(name, name) if name else None


def output_layer(model: Any) -> Any:
    """The layer that has the table of the token head, or None."""
    return layer_of(model, output_name(model))


def assign(model: Any, name: str | None, values: Any) -> None:
    """Gives a parameter the values of a tensor, a variable or a layer with a `weight`.

    Raises:
        ValueError: another shape. NotImplementedError: there is no such parameter.
    """
    place = model.structure.by_name.get(name or "")
    if place is None:
        what = f"parameter {name!r}" if name else "such table of tokens"
        raise NotImplementedError(f"{type(model).__name__} has no {what}")
    if isinstance(values, keras.layers.Layer):
        values = values.weight if isinstance(values, Module) else values.weights[0]
    given = tf.convert_to_tensor(values)
    if tuple(given.shape) != place.shape:
        raise ValueError(f"{place.name} is {place.shape}, found {tuple(given.shape)}; resize_token_embeddings first")
    place.variable.assign(tf.cast(given, place.variable.dtype))


def store_variables(model: Any, store: Any) -> None:
    """Puts a model's variables into the store of one of Keras's files."""
    for name, variable in model.structure.variables.items():
        store[name] = variable.numpy()


def restore_variables(model: Any, store: Any) -> None:
    """Takes a model's variables from such a store.

    Raises:
        ValueError: some are not there, or of another shape.
    """
    names = list(model.structure.by_name)
    if missing := [name for name in names if name not in store.keys()]:  # noqa: SIM118 - a store is no mapping
        raise ValueError(f"the file lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    for name in names:
        assign(model, name, store[name])


def drawn(model: Any, place: Place, dtype: Any = None) -> tf.Tensor:
    """The initial value of a parameter."""
    return draw(place.init, model.seed, place.name, place.shape, dtype or place.dtype)


def initialise(model: Any) -> None:
    """Gives every parameter its initial value, in the dtype of variables of the model's policy."""
    dtype = model.dtype_policy.variable_dtype
    model.structure.fill({place.name: drawn(model, place, dtype) for place in model.structure.places})


def dtype_of(model: Any) -> str:
    """The dtype of a model's floating parameters."""
    found = (place.variable.dtype for place in model._structure.places)
    return next((str(name) for name in found if "float" in str(name)), "float32")


def count(model: Any, only_trainable: bool = False) -> int:
    """How many numbers a model's parameters are."""
    if only_trainable:
        return sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return sum(math.prod(place.shape) for place in model._structure.places)


@tf.autograph.experimental.do_not_convert
def call(model: Any, inputs: Mapping[str, Any], training: Any, beside: Beside | None, method: str = "call") -> Any:
    """The output of a method of a model's module; what a call does not say the config does."""
    module_class, config = type(model).module_class, model.config
    rest = {} if beside is None else dict(beside.values)
    return_dict = rest.pop("return_dict", None)
    for name in ("output_attentions", "output_hidden_states"):
        if name not in rest and takes(module_class, name, method):
            rest[name] = bool(getattr(config, name))
    rng = tf.cast(model._dropout_seeds.next(), tf.int32) if training else None
    output = getattr(model.module, method)(**inputs, **rest, **({} if rng is None else {"rng": rng}))
    wants_tuple = not (config.use_return_dict if return_dict is None else return_dict)
    return as_tuple(output) if wants_tuple else output
