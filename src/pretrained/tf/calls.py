"""The inputs of a model's call: what Keras passes on as tensors, and what goes beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import call_inputs

__all__ = ["Beside", "bind"]


class Beside:
    """Inputs that are no tensors: Keras hands an object of this on without looking into it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)


@tf.autograph.experimental.do_not_convert
def bind(
    model: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], method: str = "call"
) -> tuple[dict[str, Any], Beside]:
    """(tensors by name, the other inputs) of a call of the module's `method`.

    The first argument may be all of them, in a dict or a list.

    Raises:
        OptionError: an input that the module does not take; names the nearest. TypeError: too many inputs.
    """
    given = dict(keywords)
    beside, return_dict = given.pop("beside", None), given.pop("return_dict", None)
    if args and isinstance(args[0], Mapping) and not isinstance(args[0], tf.Tensor):
        first, args = dict(args[0]), args[1:]
        if args:
            raise TypeError(f"{type(model).__name__} takes further inputs by name after a dict of them")
        given = {**first, **given}
    elif len(args) == 1 and isinstance(args[0], (list, tuple)) and args[0] and _is_array(args[0][0]):
        args = tuple(args[0])
    of_call = ("training", "return_dict")
    return_dict = given.pop("return_dict", None)
    inputs = call_inputs.bind(type(model).module_class, args, given, of_call, method)
    tensors, others = {}, {} if beside is None else dict(beside.values)
    if return_dict is not None:
        others["return_dict"] = return_dict
    for name, value in inputs.items():
        if isinstance(value, (np.ndarray, np.generic)):
            value = tf.convert_to_tensor(value)
        if isinstance(value, (tf.Variable, keras.Variable)):
            value = tf.convert_to_tensor(value)
        if _is_array(value):
            tensors[name] = value
        else:
            others[name] = value
    return tensors, Beside(others)


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, keras.KerasTensor, tf.Variable)) or bool(tf.is_tensor(value))
