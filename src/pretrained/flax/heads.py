"""Attention heads that are taken out of a JAX model.

A module builds the smaller layer from `config.pruned_heads`, so shapes say which parameters lose what: along an axis
that became shorter, the rows of heads that are kept stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from ..errors import ConfigError, InvalidOptionError
from ..pruning import Kept, checked_table, joined_tables, kept_heads, kept_rows
from . import live
from .sharding import placed, shardings_of
from .structure import Place, flatten, nest

__all__ = ["prune"]


def prune(model: Any, heads_to_prune: Mapping[int, Iterable[int]], params: Any = None) -> dict[str, Any]:
    """Takes heads out of a model and adds them to `config.pruned_heads`; returns the parameters that result.

    Raises:
        InvalidOptionError: there is no such layer or head, or only part of a group would go.
        NotImplementedError: the class cannot be pruned.
    """
    config, before = model.config, model.config.pruned_heads
    table = joined_tables(before or {}, checked_table(config, heads_to_prune, InvalidOptionError))
    given = flatten(live.params_of(model) if params is None else params)
    old = {place.path: place for place in model.structure.places}
    config.pruned_heads = table
    try:
        live.rebuild(model)
        places = model.structure.places
    except ConfigError as error:
        config.pruned_heads = before
        live.rebuild(model)
        raise InvalidOptionError(f"cannot prune heads: {error}", key="heads_to_prune") from error
    if table != (before or {}) and all(place.shape == old[place.path].shape for place in places):
        config.pruned_heads = before
        live.rebuild(model)
        raise NotImplementedError(f"{type(model).__name__} cannot prune heads: its module has no pruned_heads")
    kept = {
        layer: kept_heads(config.num_attention_heads, (before or {}).get(layer, ()), gone)
        for layer, gone in table.items()
    }
    shardings, found = shardings_of(model), {}
    for place in places:
        array, was = given[place.path], old[place.path]
        if place.shape != was.shape:
            without = partial(_without, model, old=was, new=place, kept=kept)
            array = placed(without, shardings.get(place.name))(array)
        found[place.path] = array
    return live.replace(model, nest(found), given=params is not None)


def _without(model: Any, array: Any, *, old: Place, new: Place, kept: Mapping[int, Kept]) -> Any:
    """The array of one parameter without the rows of the heads that go."""
    config = model.config
    for axis, (size, wanted) in enumerate(zip(old.shape, new.shape, strict=True)):
        if size == wanted:
            continue
        layer = next(int(part) for part in old.path if part.isdigit())
        heads = kept[layer]
        sort = next((sort for pattern, sort in type(model)._head_rows.items() if re.search(pattern, old.name)), 1)
        if sort == "groups":
            heads, sort = heads.groups(config.num_attention_heads // config.num_key_value_heads), 1
        array = jnp.take(array, jnp.asarray(kept_rows(size, heads, sort), jnp.int32), axis=axis)
    return array
