"""Embeddings of a JAX model with another number of rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..sizes import rounded
from . import live
from .init import key_of
from .sharding import placed, shardings_of
from .structure import Place, flatten, nest

__all__ = ["resize_tokens"]

# New embeddings stand close to the mean, or their logits would exceed all others from the start (Hewitt, "Initializing
# New Word Embeddings for Pretrained Language Models", 2021).
SHRINK = 1e-9


def resize_tokens(
    model: Any, num_tokens: int | None, multiple: int | None, mean_resizing: bool, params: Any = None
) -> dict[str, Any]:
    """The parameters of `model` with `num_tokens` tokens, rounded up; the module and the config follow.

    Raises:
        InvalidOptionError: a size that is no positive integer. NotImplementedError: the class has no tokens.
    """
    cls, config = type(model), model.config.get_text_config()
    names = [name for name in (cls._input_embeddings, cls._output_embeddings, cls._output_bias) if name]
    given = flatten(live.params_of(model) if params is None else params)
    before = [place for place in model.structure.places if place.name in names]
    if not before:
        raise NotImplementedError(f"{cls.__name__} has no table of tokens (_input_embeddings)")
    old = int(config.vocab_size)
    size = rounded(old if num_tokens is None else num_tokens, multiple)
    if size == old:
        return nest(given)
    config.vocab_size = size
    live.rebuild(model)
    shardings = shardings_of(model)
    for place in before:
        rows = given[place.path]
        new = model.structure.by_name[place.name]
        axis = place.shape.index(old)
        resized = partial(_resized, new=new, axis=axis, mean_resizing=mean_resizing)
        given[place.path] = placed(resized, shardings.get(place.name))(rows, key=key_of(model.key, place.name))
    return live.replace(model, nest(given), given=params is not None)


def _resized(old: jax.Array, *, new: Place, axis: int, mean_resizing: bool, key: jax.Array) -> jax.Array:
    """The array with as many rows as its place has now; rows come and go at the end."""
    size, before = new.shape[axis], old.shape[axis]
    kept = jax.lax.slice_in_dim(old, 0, min(size, before), axis=axis)
    if size <= before:
        return kept
    if old.ndim == 1:
        added = jnp.broadcast_to(old.astype(jnp.float32).mean(), (size - before,))
    elif mean_resizing:
        added = _drawn_like(jnp.moveaxis(old, axis, 0), size - before, key)
    else:
        shape = tuple(size - before if i == axis else dim for i, dim in enumerate(new.shape))
        assert new.init is not None
        added = jnp.moveaxis(new.init.draw(key, shape, jnp.float32), axis, 0)
    return jnp.concatenate((kept, jnp.moveaxis(added, 0, axis).astype(old.dtype)), axis)


def _drawn_like(old: jax.Array, num_new: int, key: jax.Array) -> jax.Array:
    """`(num_new, features)` draws from a normal distribution: the mean of the old rows, 1e-9 of their covariance.

    The covariance is never formed: with `C = old - mean` and `z` standard normal, `C' z / sqrt(rows)` has it.
    """
    wide = old.astype(jnp.float32)
    mean = wide.mean(0)
    normal = jax.random.normal(key, (num_new, len(old)), jnp.float32)
    mixed = normal @ wide - normal.sum(1, keepdims=True) * mean
    return mean + jnp.sqrt(SHRINK / len(old)) * mixed
