"""Keys and values of past tokens, so that a decoder computes only the new ones.

All tensors are `(batch, heads, seq, head_dim)`, with as many heads as the keys have. A cache is also a sequence of
`(key, value)` per layer, which is what releases before 4.36 passed around; `from_legacy` and `to_legacy` convert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = [
    "EncoderDecoderKVCache",
    "KVCache",
    "StaticKVCache",
    "as_cache",
    "extended",
    "like_given",
    "next_positions",
    "of_encoder",
]

BLOCK = 64  # tokens of spare room when a layer first grows; later it grows by half of what it holds


class _Layer:
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
        self.keys, self.values = function(self.keys), function(self.values)


def _enlarged(buffer: Tensor, length: int, room: int) -> Tensor:
    larger = buffer.new_empty(*buffer.shape[:2], room, buffer.shape[3])
    larger[:, :, :length] = buffer[:, :, :length]
    return larger


class KVCache:
    """Keys and values that grow with the sequence. The first tokens are kept as they come, without a copy; growth
    leaves room for more, so that adding n tokens one by one copies O(n) of them and not O(n²).

    What `update` and indexing return are views: they stay right while tokens are added, not after `crop`.

    Args:
        layers: `(key, value)` per layer to begin with.
    """

    preallocated = False

    def __init__(self, layers: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        self._layers = [_Layer(*pair) for pair in layers]
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
        if layer < len(self._layers):
            return self._layers[layer].append(key, value)
        if layer > len(self._layers):
            raise IndexError(f"layer {layer} of a cache that has {len(self._layers)} layers: earlier ones come first")
        self._layers.append(_Layer(key, value, self._reserved))
        return key, value

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of tokens held by `layer`; 0 if it holds none yet."""
        return self._layers[layer].length if layer < len(self._layers) else 0

    def key_length(self, num_new: int) -> int:
        """Number of keys that `update` will return after `num_new` more tokens."""
        return self.get_seq_length() + num_new

    def crop(self, max_length: int) -> None:
        """Forgets all but the first `max_length` tokens; if it is negative, the last `-max_length` ones."""
        for layer in self._layers:
            keep = layer.length + max_length if max_length < 0 else max_length
            layer.length = max(0, min(layer.length, keep))

    def reorder(self, beam_idx: Tensor) -> None:
        """Row `i` becomes what row `beam_idx[i]` was: beams that go on from one another."""
        for layer in self._layers:
            layer.map(lambda buffer: buffer.index_select(0, beam_idx.to(buffer.device)))

    reorder_cache = reorder
    batch_select_indices = reorder

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


class StaticKVCache:
    """Keys and values in buffers of full length from the start: shapes never change, so a compiled step is compiled
    once. Attention sees the whole buffers, and the mask hides what is unused.

    Args:
        num_layers: layers of the decoder.
        batch: rows.
        num_heads: heads of the keys.
        max_length: tokens there is room for.
        head_dim: size of a head.
        dtype: of the keys and values.
        device: where they are.
    """

    preallocated = True

    def __init__(
        self,
        num_layers: int,
        batch: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (batch, num_heads, max_length, head_dim)
        self.max_length = max_length
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        # A tensor, because a Python number that changes at every step would be a new graph at every step.
        self._lengths = torch.zeros(num_layers, dtype=torch.int64, device=device)

    def update(self, layer: int, key: Tensor, value: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Writes new tokens at `positions` `(new,)`, by default after the last ones, and returns the whole buffers."""
        if positions is None:
            start = self.get_seq_length(layer)
            if start + key.shape[2] > self.max_length:
                raise IndexError(f"{start + key.shape[2]} tokens do not fit a cache for {self.max_length}")
            positions = torch.arange(start, start + key.shape[2], device=key.device)
        self._keys[layer].index_copy_(2, positions, key)
        self._values[layer].index_copy_(2, positions, value)
        self._lengths[layer] = positions[-1] + 1
        return self._keys[layer], self._values[layer]

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of tokens held. It is read back from the device: a compiled step passes `cache_position` instead."""
        return int(self._lengths[layer])

    def key_length(self, num_new: int) -> int:
        """Number of keys that `update` returns: always the full length."""
        return self.max_length

    def crop(self, max_length: int) -> None:
        """Forgets all but the first `max_length` tokens; if it is negative, the last `-max_length` ones."""
        keep = self._lengths + max_length if max_length < 0 else self._lengths.clamp(max=max_length)
        self._lengths.copy_(keep.clamp(min=0))

    def reset(self) -> None:
        """Forgets all tokens; the buffers are kept."""
        self._lengths.zero_()

    def reorder(self, beam_idx: Tensor) -> None:
        """Row `i` becomes what row `beam_idx[i]` was, in place."""
        for buffer in (*self._keys, *self._values):
            buffer.copy_(buffer.index_select(0, beam_idx.to(buffer.device)))

    reorder_cache = reorder

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length(layer)
        return self._keys[layer][:, :, :length], self._values[layer][:, :, :length]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[layer] for layer in range(len(self)))


class EncoderDecoderKVCache:
    """The cache of a decoder that attends to itself and to an encoder; the encoder's keys are computed once.

    Args:
        self_attention: cache of the decoder's own tokens.
        cross_attention: cache of the encoder's.
    """

    def __init__(self, self_attention: KVCache | None = None, cross_attention: KVCache | None = None) -> None:
        self.self_attention = KVCache() if self_attention is None else self_attention
        self.cross_attention = KVCache() if cross_attention is None else cross_attention

    @property
    def preallocated(self) -> bool:
        """Whether the decoder's own part has its full length from the start."""
        return self.self_attention.preallocated

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of decoder tokens held."""
        return self.self_attention.get_seq_length(layer)

    def key_length(self, num_new: int) -> int:
        """Number of keys self-attention will see after `num_new` more tokens."""
        return self.self_attention.key_length(num_new)

    def reserve(self, max_length: int) -> None:
        """Makes room for decoder tokens, as `KVCache.reserve` does."""
        if isinstance(self.self_attention, KVCache):
            self.self_attention.reserve(max_length)

    def crop(self, max_length: int) -> None:
        """Forgets decoder tokens, as `KVCache.crop` does; the encoder's stay."""
        self.self_attention.crop(max_length)

    def reorder(self, beam_idx: Tensor) -> None:
        """Row `i` becomes what row `beam_idx[i]` was."""
        self.self_attention.reorder(beam_idx)
        self.cross_attention.reorder(beam_idx)

    reorder_cache = reorder
    batch_select_indices = reorder

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows."""
        self.self_attention.batch_repeat_interleave(repeats)
        self.cross_attention.batch_repeat_interleave(repeats)

    def to_legacy(self) -> tuple[tuple[Tensor, ...], ...]:
        """A tuple of `(key, value, cross key, cross value)` per layer; without the last two if there are none."""
        return tuple(self)

    @classmethod
    def from_legacy(cls, layers: Sequence[tuple[Tensor, ...]] | None) -> EncoderDecoderKVCache:
        """A cache that begins with these tensors, two or four per layer."""
        layers = layers or ()
        return cls(
            KVCache([(entry[0], entry[1]) for entry in layers]),
            KVCache([(entry[2], entry[3]) for entry in layers if len(entry) == 4]),
        )

    def __len__(self) -> int:
        return len(self.self_attention)

    def __getitem__(self, layer: int) -> tuple[Tensor, ...]:
        crossed = self.cross_attention[layer] if layer < len(self.cross_attention) else ()
        return (*self.self_attention[layer], *crossed)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self[layer] for layer in range(len(self)))


def as_cache(past: Any, crossed: bool = False) -> Any:
    """What a caller passed as `past_key_values`, as a cache: caches as they are, legacy tuples wrapped.

    With `crossed` it is an encoder–decoder cache.
    """
    if past is None or isinstance(past, tuple | list):
        return EncoderDecoderKVCache.from_legacy(past) if crossed else KVCache.from_legacy(past)
    if crossed and not isinstance(past, EncoderDecoderKVCache):
        return EncoderDecoderKVCache(past)
    return past


def like_given(cache: Any, given: Any) -> Any:
    """`cache` as legacy tuples if such were `given`, and as it is otherwise."""
    return cache.to_legacy() if isinstance(given, tuple | list) else cache


def next_positions(cache: Any, num_new: int, device: torch.device) -> Tensor:
    """`(new,)` places of new tokens after those that `cache` holds; it may be `None`."""
    past = 0 if cache is None else cache.get_seq_length()
    return torch.arange(past, past + num_new, device=device)


def extended(
    past: Any, layer: int, key: Tensor, value: Tensor, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keys and values that a decoder's self-attention is to see: the new ones, after those of `past` if any."""
    if isinstance(past, EncoderDecoderKVCache):
        past = past.self_attention
    return (key, value) if past is None else past.update(layer, key, value, positions)


def of_encoder(past: Any, layer: int, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Keys and values of an encoder's output, computed once for all steps that share the cache `past`, if any."""
    if past is not None and layer < len(past.cross_attention):
        return past.cross_attention[layer]
    key, value = compute()
    return (key, value) if past is None else past.cross_attention.update(layer, key, value)


def _tensors_of(cache: KVCache) -> tuple[list[Tensor], int]:
    return [tensor for pair in cache for tensor in pair], len(cache)


def _parts_of(pair: EncoderDecoderKVCache) -> tuple[list[KVCache], None]:
    return [pair.self_attention, pair.cross_attention], None


def _numbered(flatten: Callable[[Any], tuple[list[Any], Any]]) -> Callable[[Any], tuple[list[tuple[Any, Any]], Any]]:
    """`flatten` with the place of each part beside it."""

    def flatten_with_keys(cache: Any) -> tuple[list[tuple[Any, Any]], Any]:
        parts, context = flatten(cache)
        return [(pytree.SequenceKey(place), part) for place, part in enumerate(parts)], context

    return flatten_with_keys


# Export looks into inputs and outputs only if it knows how to take them apart.
pytree.register_pytree_node(
    KVCache,
    _tensors_of,
    lambda tensors, _: KVCache(zip(*[iter(tensors)] * 2, strict=True)),
    flatten_with_keys_fn=_numbered(_tensors_of),
    serialized_type_name="pretrained.pt.kv_cache.KVCache",
)
pytree.register_pytree_node(
    EncoderDecoderKVCache,
    _parts_of,
    lambda parts, _: EncoderDecoderKVCache(*parts),
    flatten_with_keys_fn=_numbered(_parts_of),
    serialized_type_name="pretrained.pt.kv_cache.EncoderDecoderKVCache",
)
