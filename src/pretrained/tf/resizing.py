"""Embeddings of a TensorFlow model with another number of rows."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ..sizes import rounded
from . import live
from .init import seed_of
from .layers import Parameter, value

__all__ = ["resize_tokens"]

Tensor: TypeAlias = tf.Tensor

# New embeddings stand close to the mean, or their logits would exceed all others from the start (Hewitt, "Initializing
# New Word Embeddings for Pretrained Language Models", 2021).
SHRINK = 1e-9


def resize_tokens(model: Any, num_tokens: int | None, multiple: int | None, mean_resizing: bool) -> Any:
    """Gives a model `num_tokens` tokens, rounded up; the module and the config follow. Returns the layer of the table.

    Raises:
        InvalidOptionError: a size that is no positive integer. NotImplementedError: the class has no tokens.
    """
    cls, config = type(model), model.config.get_text_config()
    names = [name for name in (cls._input_embeddings, cls._output_embeddings, cls._output_bias) if name]
    before = {name: model.structure.by_name[name] for name in names if name in model.structure.by_name}
    if not before:
        raise NotImplementedError(f"{cls.__name__} has no table of tokens (_input_embeddings)")
    old = int(config.vocab_size)
    size = rounded(old if num_tokens is None else num_tokens, multiple)
    if size != old:
        config.vocab_size = size
        described = live.describe(model).by_name
        resized = {}
        for name, place in before.items():
            seed = seed_of(model.seed, name)
            rows = value(place.variable)
            resized[name] = _resized(rows, described[name].described, place.shape.index(old), mean_resizing, seed)
        live.fill_anew(model, resized)
    return live.layer_of(model, cls._input_embeddings)


def _resized(old: Tensor, new: Parameter, axis: int, mean_resizing: bool, seed: list[int]) -> Tensor:
    """The tensor with as many rows as its place has now; rows come and go at the end."""
    size, before = new.shape[axis], int(old.shape[axis])
    if size <= before:
        return tf.gather(old, tf.range(size), axis=axis)
    shape = tuple(size - before if i == axis else dim for i, dim in enumerate(new.shape))
    if len(shape) == 1:
        added = tf.fill(shape, tf.reduce_mean(tf.cast(old, tf.float32)))
    elif mean_resizing:
        added = _drawn_like(old if axis == 0 else tf.transpose(old), size - before, seed)
        added = added if axis == 0 else tf.transpose(added)
    else:
        added = new.init.draw(seed, shape, tf.float32)
    return tf.concat((old, tf.cast(added, old.dtype)), axis)


def _drawn_like(old: Tensor, num_new: int, seed: list[int]) -> Tensor:
    """`(num_new, features)` draws from a normal distribution: the mean of the old rows, 1e-9 of their covariance.

    The covariance is never formed: with `C = old - mean` and `z` standard normal, `C' z / sqrt(rows)` has it.
    """
    wide = tf.cast(old, tf.float32)
    mean = tf.reduce_mean(wide, 0)
    normal = tf.random.stateless_normal((num_new, old.shape[0]), seed)
    mixed = normal @ wide - tf.reduce_sum(normal, 1, keepdims=True) * mean
    return mean + (SHRINK / old.shape[0]) ** 0.5 * mixed
