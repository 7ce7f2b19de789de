"""Keys and values of past tokens, so that a decoder computes only the new ones.

All tensors are `(batch, heads, seq, head_dim)`, with as many heads as the keys have. A cache is also a sequence of
`(key, value)` per layer, which is what releases before 4.36 passed around; `from_legacy` and `to_legacy` convert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .kv_cache_growing import Cache, KVCache, in_our_order

__all__ = [
    "Cache",
    "EncoderDecoderKVCache",
    "KVCache",
    "StaticKVCache",
    "as_cache",
    "extended",
    "like_given",
    "next_positions",
    "of_encoder",
]


class StaticKVCache(Cache):
    """Keys and values in buffers of full length from the start: shapes never change, so a compiled step is compiled
    once. Attention sees the whole buffers, and the mask hides what is unused.

    Args:
        num_layers: layers of the decoder.
        batch: rows; like the two that follow it may be left to the first tokens, which then make the buffers.
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
        batch: int | None = None,
        num_heads: int | None = None,
        max_length: int = 0,
        head_dim: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        self.max_length = max_length
        self._num_layers = num_layers
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        # A tensor, because a Python number that changes at every step would be a new graph at every step.
        self._lengths = torch.zeros(num_layers, dtype=torch.int64, device=device)
        if batch is not None and num_heads is not None and head_dim is not None:
            for _ in range(num_layers):
                self._allocate(torch.empty(batch, num_heads, 0, head_dim, dtype=dtype, device=device))

    def _allocate(self, like: Tensor) -> None:
        shape = (*like.shape[:2], self.max_length, like.shape[3])
        self._keys.append(like.new_zeros(shape))
        self._values.append(like.new_zeros(shape))

    def buffers(self) -> tuple[Tensor, ...]:
        """All tensors that it holds."""
        return (*self._keys, *self._values, self._lengths)

    def update(self, layer: int, key: Tensor, value: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Writes new tokens at `positions` `(new,)`, by default after the last ones, and returns the whole buffers."""
        layer, key, value, positions = in_our_order(layer, key, value, positions)
        if layer == len(self._keys):
            self._allocate(key)
            self._lengths = self._lengths.to(key.device)
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

    def key_length(self, num_new: int, window: int | None = None) -> int:
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

    def batch_select_indices(self, rows: Tensor) -> None:
        """Row `i` becomes what row `rows[i]` was; there may be fewer or more rows than before."""
        self._keys = [buffer.index_select(0, rows.to(buffer.device)) for buffer in self._keys]
        self._values = [buffer.index_select(0, rows.to(buffer.device)) for buffer in self._values]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows."""
        self._keys = [buffer.repeat_interleave(repeats, 0) for buffer in self._keys]
        self._values = [buffer.repeat_interleave(repeats, 0) for buffer in self._values]

    def __len__(self) -> int:
        return self._num_layers

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length(layer)
        return self._keys[layer][:, :, :length], self._values[layer][:, :, :length]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[layer] for layer in range(len(self._keys)))


class EncoderDecoderKVCache(Cache):
    """The cache of a decoder that attends to itself and to an encoder; the encoder's keys are computed once.

    Args:
        self_attention: cache of the decoder's own tokens.
        cross_attention: cache of the encoder's.
    """

    def __init__(self, self_attention: Any = None, cross_attention: KVCache | None = None) -> None:
        self.self_attention = KVCache() if self_attention is None else self_attention
        self.cross_attention = KVCache() if cross_attention is None else cross_attention

    @property
    def preallocated(self) -> bool:
        """Whether the decoder's own part has its full length from the start."""
        return bool(self.self_attention.preallocated)

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of decoder tokens held."""
        length: int = self.self_attention.get_seq_length(layer)
        return length

    def key_length(self, num_new: int, window: int | None = None) -> int:
        """Number of keys self-attention will see after `num_new` more tokens."""
        length: int = self.self_attention.key_length(num_new, window)  # int() of it would fix an exported graph's size
        return length

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

    def batch_select_indices(self, rows: Tensor) -> None:
        """Row `i` becomes what row `rows[i]` was; there may be fewer or more rows than before."""
        self.self_attention.batch_select_indices(rows)
        self.cross_attention.batch_select_indices(rows)

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
