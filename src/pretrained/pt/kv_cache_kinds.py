"""Caches that hold less, or hold it elsewhere: windows that slide, numbers of few bits, layers that wait on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidOptionError
from .kv_cache_growing import CacheLayer, KVCache, in_our_order

__all__ = ["OffloadedKVCache", "QuantizedKVCache", "SlidingKVCache"]


class _SlidingLayer(CacheLayer):
    """The last `window - 1` tokens of a layer whose attention sees `window`; `total` is how many there were."""

    __slots__ = ("start", "total", "window")

    def __init__(self, keys: Tensor, values: Tensor, window: int) -> None:
        self.window, self.total = window, keys.shape[2]
        kept = min(window - 1, self.total)
        room = (0, 0, 0, max(window, 1))  # as much again before what is kept has to move to the front
        pad = torch.nn.functional.pad
        super().__init__(pad(keys[:, :, self.total - kept :], room), pad(values[:, :, self.total - kept :], room))
        self.start, self.length = 0, kept

    def filled(self) -> tuple[Tensor, Tensor]:
        """The tokens that later ones see."""
        end = self.start + self.length
        return self.keys[:, :, self.start : end], self.values[:, :, self.start : end]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens; returns all that the first of them sees, and what came after."""
        new, end = key.shape[2], self.start + self.length
        if end + new > self.keys.shape[2] or self._must_copy(key):
            old_keys, old_values = self.filled()
            keys, values = torch.cat((old_keys, key), 2), torch.cat((old_values, value), 2)
            total = self.total + new
            self.__init__(keys, values, self.window)  # type: ignore[misc]
            self.total = total
            return keys, values
        self.keys[:, :, end : end + new] = key
        self.values[:, :, end : end + new] = value
        seen = slice(self.start, end + new)
        self.total += new
        self.length = min(self.window - 1, self.length + new)
        self.start = end + new - self.length
        return self.keys[:, :, seen], self.values[:, :, seen]

    def map(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replaces what is held by what `function` makes of it."""
        self.keys, self.values = function(self.keys), function(self.values)

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens.

        Raises:
            InvalidOptionError: tokens that would be seen again are gone.
        """
        back = self.total - length
        if back and self.length < min(self.total, self.window - 1 + back):
            raise InvalidOptionError(
                f"a sliding cache of {self.window} tokens cannot go back to {length} from {self.total}: what came "
                "before is forgotten; use a dynamic cache",
                key="cache_implementation",
            )
        self.length, self.total = self.length - back, length


class SlidingKVCache(KVCache):
    """A cache whose layers with a window hold only what the window shows.

    Args:
        windows: of each layer, how many tokens its attention sees, its own included; `None`: all.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        super().__init__()
        self.windows = tuple(windows)

    def _new_layer(self, layer: int, key: Tensor, value: Tensor) -> CacheLayer:
        window = self.windows[layer] if layer < len(self.windows) else None
        return super()._new_layer(layer, key, value) if window is None else _SlidingLayer(key, value, window)

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of tokens there were."""
        if layer >= len(self._layers):
            return 0
        found = self._layers[layer]
        return found.total if isinstance(found, _SlidingLayer) else found.length

    def key_length(self, num_new: int, window: int | None = None) -> int:
        """Number of keys that `update` will return after `num_new` more tokens, for a layer that sees `window`."""
        past = self.get_seq_length()
        return num_new + (past if window is None or window not in self.windows else min(past, window - 1))

    def crop(self, max_length: int) -> None:
        """Forgets all but the first `max_length` tokens; if it is negative, the last `-max_length` ones."""
        for place, layer in enumerate(self._layers):
            held = self.get_seq_length(place)
            layer.crop(max(0, min(held, held + max_length if max_length < 0 else max_length)))


class _QuantizedLayer(CacheLayer):
    """Old tokens as integers of `nbits` with a scale for each group of channels, the newest ones as they came."""

    __slots__ = ("group", "nbits", "old", "recent")

    def __init__(self, keys: Tensor, values: Tensor, nbits: int, group: int, recent: int) -> None:
        self.nbits, self.group, self.recent = nbits, min(group, keys.shape[3]), recent
        self.old: list[list[tuple[Tensor, Tensor, Tensor]]] = [[], []]
        super().__init__(keys, values)
        self._settle()

    def _settle(self) -> None:
        """Packs what is held as it came, once there is more of it than `recent`."""
        if self.keys.shape[2] > self.recent:
            for parts, buffer in zip(self.old, (self.keys, self.values), strict=True):
                parts.append(_packed(buffer, self.nbits, self.group))
            self.keys, self.values = self.keys[:, :, :0].clone(), self.values[:, :, :0].clone()

    def filled(self) -> tuple[Tensor, Tensor]:
        """All tokens, the old ones unpacked."""
        found = []
        for parts, buffer in zip(self.old, (self.keys, self.values), strict=True):
            unpacked = [_unpacked(part, self.nbits, buffer) for part in parts]
            found.append(torch.cat((*unpacked, buffer), 2) if unpacked else buffer)
        return found[0], found[1]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens and returns all of them."""
        self.keys, self.values = torch.cat((self.keys, key), 2), torch.cat((self.values, value), 2)
        self.length += key.shape[2]
        seen = self.filled()
        self._settle()
        return seen

    def map(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replaces what is held by what `function` makes of it."""
        self.keys, self.values = function(self.keys), function(self.values)
        mapped = [[(function(a), function(b), function(c)) for a, b, c in parts] for parts in self.old]
        self.old = mapped

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        keys, values = (part[:, :, :length] for part in self.filled())
        self.old, self.length = [[], []], length
        self.keys, self.values = keys, values
        self._settle()


def _packed(x: Tensor, nbits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """`x` `(batch, heads, seq, head_dim)` as integers, `8 / nbits` of them to a byte, with scales and least values."""
    grouped = x.float().unflatten(-1, (-1, group))
    least = grouped.amin(-1, keepdim=True)
    scale = ((grouped.amax(-1, keepdim=True) - least) / (2**nbits - 1)).clamp(min=1e-8)
    whole = ((grouped - least) / scale).round().to(torch.uint8).flatten(-2)
    per_byte = 8 // nbits
    parts = whole.unflatten(-1, (-1, per_byte)).unbind(-1)
    packed = parts[0].clone()
    for place, part in enumerate(parts[1:], 1):
        packed |= part << (nbits * place)
    return packed, scale.to(x.dtype), least.to(x.dtype)


def _unpacked(part: tuple[Tensor, Tensor, Tensor], nbits: int, like: Tensor) -> Tensor:
    packed, scale, least = part
    mask = 2**nbits - 1
    whole = torch.stack([(packed >> (nbits * place)) & mask for place in range(8 // nbits)], -1).flatten(-2)
    groups = whole.unflatten(-1, (scale.shape[-2], -1)).to(like.dtype)
    return (groups * scale + least).flatten(-2)


class QuantizedKVCache(KVCache):
    """A cache that holds all but the newest tokens in few bits (after KIVI, arXiv 2402.02750): less memory, more time.

    Args:
        nbits: 2, 4 or 8.
        group_size: channels of a head that share a scale.
        residual_length: tokens that stay as they are until they are packed together.

    Raises:
        InvalidOptionError: a number that there is not.
    """

    def __init__(self, nbits: int = 4, group_size: int = 64, residual_length: int = 128) -> None:
        super().__init__()
        if nbits not in (2, 4, 8):
            raise InvalidOptionError(f"nbits must be 2, 4 or 8, found {nbits!r:.40}", key="cache_config")
        if group_size < 1 or residual_length < 0:
            raise InvalidOptionError(
                f"group_size must be positive and residual_length not negative, found {group_size} and "
                f"{residual_length}",
                key="cache_config",
            )
        self.nbits, self.group_size, self.residual_length = nbits, group_size, residual_length

    def _new_layer(self, layer: int, key: Tensor, value: Tensor) -> CacheLayer:
        group = min(self.group_size, key.shape[3])
        if key.shape[3] % group or key.shape[3] % (8 // self.nbits):
            raise InvalidOptionError(
                f"group_size={self.group_size} does not divide heads of {key.shape[3]} channels", key="cache_config"
            )
        return _QuantizedLayer(key, value, self.nbits, group, self.residual_length)


class OffloadedKVCache(KVCache):
    """A cache whose layers wait on the CPU until it is their turn; the next one is fetched while one is computed.

    Args:
        layers: `(key, value)` per layer to begin with.
    """

    def __init__(self, layers: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        super().__init__(layers)
        self._stream: Any = None

    def update(self, layer: int, key: Tensor, value: Tensor, positions: Any = None) -> tuple[Tensor, Tensor]:
        """Adds tokens to one layer, which comes to the device of `key`, and sends the one before it away."""
        layer, key, value, _ = in_our_order(layer, key, value, positions)
        device = key.device
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)
        if layer < len(self._layers):
            self._fetch(layer, device)
            if self._stream is not None:
                torch.cuda.current_stream(device).wait_stream(self._stream)
        seen = super().update(layer, key, value)
        if device.type != "cpu" and len(self._layers) > 1:
            self._send_away(layer - 1)
            if layer + 1 < len(self._layers):
                self._fetch(layer + 1, device)
        return seen

    def _fetch(self, layer: int, device: torch.device) -> None:
        found = self._layers[layer]
        if found.keys.device == device:
            return
        if self._stream is None:
            found.map(lambda buffer: buffer.to(device))
            return
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            found.map(lambda buffer: buffer.to(device, non_blocking=True))

    def _send_away(self, layer: int) -> None:
        found = self._layers[layer]
        found.keys, found.values = found.filled()
        found.map(lambda buffer: buffer.cpu())
