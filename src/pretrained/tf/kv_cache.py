"""Keys and values of past tokens, preallocated: one shape from the first token to the last, so one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from .attention import by_head
from .compiled import is_compiled, with_slice
from .layers import shape_of

__all__ = [
    "KVCache", "Writing", "carried", "empty_cache", "extended", "num_keys", "reordered", "repeated", "swapped",
    "uncarried",
]  # fmt: skip

Tensor: TypeAlias = tf.Tensor
Pair = tuple[Tensor, Tensor]


class KVCache(NamedTuple):
    """What a decoder remembers.

    Attributes:
        layers: keys and values of each layer, `(batch, groups, max_length, head_dim)`.
        length: `()`, how many tokens they hold.
        cross: keys and values of an encoder's output, `(batch, groups, encoder seq, head_dim)`; empty without one.
    """

    layers: tuple[Pair, ...]
    length: Tensor
    cross: tuple[Pair, ...] = ()

    @classmethod
    def of_shapes(
        cls, shapes: Sequence[tuple[int, int, int, int]], dtype: Any, cross: tuple[Pair, ...] = ()
    ) -> KVCache:
        """A cache without a token; of each layer the shape of its keys; `cross` is kept."""
        layers = tuple((tf.zeros(shape, dtype), tf.zeros(shape, dtype)) for shape in shapes)
        return cls(layers, tf.zeros((), tf.int32), cross)

    @property
    def max_length(self) -> int:
        """Tokens that there is room for."""
        return int(self.layers[0][0].shape[2])


def empty_cache(config: Any, size: tuple[int, int], dtype: Any) -> KVCache:
    """A cache of `size` (rows, tokens) for a decoder of this config."""
    groups = getattr(config, "num_key_value_heads", None)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    gone = config.pruned_heads or {}
    shared = config.num_attention_heads // groups if groups else 1
    heads = [
        (groups or config.num_attention_heads) - len(gone.get(layer, ())) // shared
        for layer in range(config.num_hidden_layers)
    ]
    rows, tokens = size
    return KVCache.of_shapes([(rows, count, tokens, head_dim) for count in heads], dtype)


class Writing:
    """A cache in the middle of a forward pass: layers write to it in turn, `after` is the cache that comes of it."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._layers = list(cache.layers)
        self._crossed: dict[int, Pair] = {}

    @property
    def start(self) -> Tensor:
        """Place of the first new token."""
        return self._cache.length

    @property
    def max_length(self) -> int:
        """Tokens that there is room for."""
        return self._cache.max_length

    def update(self, layer: int, key: Tensor, value: Tensor) -> Pair:
        """All keys and values `(batch, max_length, groups, head_dim)` of a layer, with new ones behind the old."""
        keys, values = self._layers[layer]
        self._layers[layer] = _written(keys, key, self.start), _written(values, value, self.start)
        return swapped(self._layers[layer])

    def crossed(self, layer: int, make: Callable[[], Pair]) -> Pair:
        """A layer's keys and values of an encoder's output: those of the cache, or what `make` gives, for the next.

        Both, and what `make` gives, are `(batch, encoder seq, groups, head_dim)`.
        """
        if self._cache.cross:
            return swapped(self._cache.cross[layer])
        made = make()
        self._crossed[layer] = swapped(made)
        return made

    def after(self, num_tokens: int) -> KVCache:
        """The cache, with that many tokens more."""
        made = tuple(self._crossed[layer] for layer in sorted(self._crossed))
        cross = made or self._cache.cross
        return self._cache._replace(layers=tuple(self._layers), length=self.start + num_tokens, cross=cross)


def extended(cache: Writing | None, layer: int, key: Tensor, value: Tensor) -> Pair:
    """The keys and values that a layer attends to: the new ones, and those of the cache if there is one."""
    return (key, value) if cache is None else cache.update(layer, key, value)


def num_keys(cache: Writing | None, num_new: int) -> int:
    """How many keys `extended` gives for that many new tokens, unused places included."""
    return num_new if cache is None else cache.max_length


def swapped(pair: Pair) -> Pair:
    """Keys and values `(batch, seq, groups, head_dim)` as a cache has them, or the other way round."""
    keys, values = (tf.transpose(x, (0, 2, 1, 3)) for x in pair)
    return keys, values


def _written(old: Tensor, new: Tensor, start: Tensor) -> Tensor:
    new = by_head(tf.cast(new, old.dtype))
    rows, groups, length, head_dim = shape_of(old)
    flat, size = tf.reshape(old, (rows * groups, length, head_dim)), shape_of(new)[1]
    if is_compiled():
        whole = with_slice(flat, new, start)
    else:
        whole = tf.concat((flat[:, :start], new, flat[:, start + size :]), 1)
    return tf.reshape(whole, (rows, groups, length, head_dim))


def carried(cache: KVCache) -> KVCache:
    """A cache as a loop hands it from step to step: with one axis for rows and groups, see `by_head`."""

    def flat(x: Tensor) -> Tensor:
        return tf.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))

    return tf.nest.map_structure(lambda x: flat(x) if x.shape.rank else x, cache)


def uncarried(cache: KVCache, num_rows: int) -> KVCache:
    """The cache again."""

    def parted(x: Tensor) -> Tensor:
        return tf.reshape(x, (num_rows, x.shape[0] // num_rows, *x.shape[1:]))

    return tf.nest.map_structure(lambda x: parted(x) if x.shape.rank else x, cache)


def reordered(cache: KVCache, rows: Tensor) -> KVCache:
    """A cache whose row `i` is what row `rows[i]` was; what an encoder gave is alike in the rows that are swapped."""
    return cache._replace(
        layers=tuple((tf.gather(keys, rows), tf.gather(values, rows)) for keys, values in cache.layers)
    )


def repeated(tree: Any, times: int) -> Any:
    """Every tensor with each of its rows `times` times, one after another; what has no rows stays."""
    if times == 1:
        return tree
    return tf.nest.map_structure(lambda x: tf.repeat(x, times, 0) if x.shape.rank else x, tree)
