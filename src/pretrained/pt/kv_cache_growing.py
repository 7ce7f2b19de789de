"""The cache that grows with the sequence, and what all caches are.

All tensors are `(batch, heads, seq, head_dim)`, with as many heads as the keys have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Cache", "CacheLayer", "KVCache", "in_our_order"]

BLOCK = 64  # tokens of spare room when a layer first grows; later it grows by half of what it holds


class CacheLayer:
    """Keys and values of one layer: the first `length` tokens of two buffers that may be longer."""

    __slots__ = ("keys", "length", "reserved", "values")

    def __init__(self, keys: Tensor, values: Tensor, reserved: int = 0) -> None:
        self.keys, self.values, self.length, self.reserved = keys, values, keys.shape[2], reserved

    def filled(self) -> tuple[Tensor, Tensor]:
        """Views of the part in use; the buffers themselves when all of them is."""
        if self.length == self.keys.shape[2]:  # export knows tensors by who they are: two views would be two
            return self.keys, self.values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens and returns views of all of them."""
        if self._must_copy(key):
            keys, values = self.filled()
            self.keys, self.values = torch.cat((keys, key), 2), torch.cat((values, value), 2)
            self.length = self.keys.shape[2]
            return self.keys, self.values
        end = self.length + key.shape[2]
        if end > self.keys.shape[2] or self.keys.is_inference() != torch.is_inference_mode_enabled():
            room = self.reserved if end <= self.reserved else end + max(BLOCK, end // 2)
            self.keys = _enlarged(self.keys, self.length, room)
            self.values = _enlarged(self.values, self.length, room)
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.filled()

    def _must_copy(self, key: Tensor) -> bool:
        # A backward pass needs the old buffer as it was, and a recorded graph should not depend on its spare room.
        tracked = torch.is_grad_enabled() and (key.requires_grad or self.keys.requires_grad)
        return tracked or torch.compiler.is_compiling()

    def map(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replaces what is held by what `function` makes of it; the room is kept."""
        self.keys, self.values = self._mapped(self.keys, function), self._mapped(self.values, function)

    def _mapped(self, buffer: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if self.length == buffer.shape[2]:
            return function(buffer)
        filled = function(buffer[:, :, : self.length])
        if filled.shape[0] == buffer.shape[0] and buffer.is_inference() == torch.is_inference_mode_enabled():
            buffer[:, :, : self.length] = filled  # only what is in use is copied
            return buffer
        return _enlarged(filled, self.length, buffer.shape[2])

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self.length = length


def _enlarged(buffer: Tensor, length: int, room: int) -> Tensor:
    larger = buffer.new_empty(*buffer.shape[:2], room, buffer.shape[3])
    larger[:, :, :length] = buffer[:, :, :length]
    return larger


class Cache:
    """What all caches are, and what they can be asked."""

    preallocated: Any = False
    max_length: Any = None

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of tokens held."""
        raise NotImplementedError

    def reorder(self, beam_idx: Tensor) -> None:
        """Row `i` becomes what row `beam_idx[i]` was."""
        raise NotImplementedError

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The same, by the name that others have for it."""
        self.reorder(beam_idx)

    def batch_select_indices(self, rows: Tensor) -> None:
        """Row `i` becomes what row `rows[i]` was; there may be fewer or more rows than before."""
        self.reorder(rows)

    def get_max_cache_shape(self) -> Any:
        """Tokens there is room for; `None`: any number."""
        return self.max_length


def in_our_order(first: Any, key: Any, value: Any, rest: Any) -> tuple[int, Tensor, Tensor, Any]:
    """The arguments of `update`, also if they came as others order them: key, value, layer, {"cache_position": …}."""
    if not isinstance(first, Tensor):
        return first, key, value, rest
    return value, first, key, rest.get("cache_position") if isinstance(rest, dict) else rest


class KVCache(Cache):
    """Keys and values that grow with the sequence. The first tokens are kept as they come, without a copy; growth
    leaves room for more, so that adding n tokens one by one copies O(n) of them and not O(n²).

    What `update` and indexing return are views: they stay right while tokens are added, not after `crop`.

    Args:
        layers: `(key, value)` per layer to begin with.
    """

    def __init__(self, layers: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        self._layers = [CacheLayer(*pair) for pair in layers]
        self._reserved = 0

    def reserve(self, max_length: int) -> None:
        """Makes the next growth of each layer the last until there are more than `max_length` tokens."""
        self._reserved = max_length
        for layer in self._layers:
            layer.reserved = max_length

    def update(self, layer: int, key: Tensor, value: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens to one layer and returns all that attention is to see.

        `positions` is there for preallocated caches; this one adds at the end.
        """
        layer, key, value, positions = in_our_order(layer, key, value, positions)
        if layer < len(self._layers):
            return self._layers[layer].append(key, value)
        if layer > len(self._layers):
            raise IndexError(f"layer {layer} of a cache that has {len(self._layers)} layers: earlier ones come first")
        self._layers.append(self._new_layer(layer, key, value))
        return key, value

    def _new_layer(self, layer: int, key: Tensor, value: Tensor) -> Any:
        """What holds the first tokens of a layer; other kinds of caches have other layers."""
        return CacheLayer(key, value, self._reserved)

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of tokens held by `layer`; 0 if it holds none yet."""
        return self._layers[layer].length if layer < len(self._layers) else 0

    def key_length(self, num_new: int, window: int | None = None) -> int:
        """Number of keys that `update` will return after `num_new` more tokens, for a layer that sees `window`."""
        return self.get_seq_length() + num_new

    def crop(self, max_length: int) -> None:
        """Forgets all but the first `max_length` tokens; if it is negative, the last `-max_length` ones."""
        for layer in self._layers:
            keep = layer.length + max_length if max_length < 0 else max_length
            layer.crop(max(0, min(layer.length, keep)))

    def reorder(self, beam_idx: Tensor) -> None:
        """Row `i` becomes what row `beam_idx[i]` was: beams that go on from one another."""
        for layer in self._layers:
            layer.map(lambda buffer: buffer.index_select(0, beam_idx.to(buffer.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows."""
        for layer in self._layers:
            layer.map(lambda buffer: buffer.repeat_interleave(repeats, 0))

    def to_legacy(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """A tuple of `(key, value)` per layer."""
        return tuple(self)

    @classmethod
    def from_legacy(cls, layers: Iterable[tuple[Tensor, Tensor]] | None) -> KVCache:
        """A cache that begins with these tensors. They are never written to."""
        return cls(layers or ())

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._layers[layer].filled()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (layer.filled() for layer in self._layers)
