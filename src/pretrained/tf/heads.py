"""Attention heads that are taken out of a TensorFlow model.

A module builds the smaller layer from `config.pruned_heads`, so shapes say which parameters lose what: along an axis
that became shorter, the rows of heads that are kept stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from ..errors import ConfigError, InvalidOptionError
from ..pruning import Kept, checked_table, joined_tables, kept_heads, kept_rows
from . import live
from .layers import value
from .structure import Place

__all__ = ["prune"]


def prune(model: Any, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
    """Takes heads out of a model and adds them to `config.pruned_heads`.

    Raises:
        InvalidOptionError: there is no such layer or head, or only part of a group would go.
        NotImplementedError: the class cannot be pruned.
    """
    config, before = model.config, model.config.pruned_heads
    table = joined_tables(before or {}, checked_table(config, heads_to_prune, InvalidOptionError))
    old = model.structure.by_name
    config.pruned_heads = table
    try:
        places = live.describe(model).places
    except ConfigError as error:
        config.pruned_heads = before
        raise InvalidOptionError(f"cannot prune heads: {error}", key="heads_to_prune") from error
    if table != (before or {}) and all(place.shape == old[place.name].shape for place in places):
        config.pruned_heads = before
        raise NotImplementedError(f"{type(model).__name__} cannot prune heads: its module has no pruned_heads")
    kept = {
        layer: kept_heads(config.num_attention_heads, (before or {}).get(layer, ()), gone)
        for layer, gone in table.items()
    }
    changed = [place for place in places if place.shape != old[place.name].shape]
    live.fill_anew(model, {place.name: _without(model, old[place.name], place, kept) for place in changed})


def _without(model: Any, old: Place, new: Place, kept: Mapping[int, Kept]) -> tf.Tensor:
    """The values of one parameter without the rows of the heads that go."""
    config, tensor = model.config, value(old.variable)
    for axis, (size, wanted) in enumerate(zip(old.shape, new.shape, strict=True)):
        if size == wanted:
            continue
        layer = next(int(part) for part in old.name.split(".") if part.isdigit())
        heads = kept[layer]
        sort = next((sort for pattern, sort in type(model)._head_rows.items() if re.search(pattern, old.name)), 1)
        if sort == "groups":
            heads, sort = heads.groups(config.num_attention_heads // config.num_key_value_heads), 1
        rows = tf.constant(kept_rows(size, heads, sort), tf.int32)
        tensor = tf.gather(tensor, rows, axis=axis)
    return tensor
