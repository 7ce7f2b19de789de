"""The cache of one call of generate, as the settings ask for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ...errors import InvalidOptionError, OptionError
from ..kv_cache import EncoderDecoderKVCache, StaticKVCache
from ..kv_cache_kinds import OffloadedKVCache, QuantizedKVCache, SlidingKVCache
from ..kv_cache_names import decoder_layers, windows_of_model

__all__ = ["make_cache"]


def make_cache(model: Any, config: Any, length: int) -> Any:
    """A cache of the kind that `cache_implementation` names, for `length` tokens in all.

    `None` leaves it to the model, which makes a dynamic one; that gets its room after the prompt.

    Raises:
        OptionError: `cache_config` has what this kind does not know. InvalidOptionError: a number out of range.
    """
    kind = config.cache_implementation
    if kind in (None, "dynamic", "dynamic_full"):
        return None
    given = dict(config.cache_config or {})
    if kind == "quantized":
        mine = {"group_size" if k == "q_group_size" else k: v for k, v in given.items() if k not in _OF_OTHERS}
        cache = _made(QuantizedKVCache, mine)
    elif kind.startswith("offloaded"):
        cache = _made(OffloadedKVCache, given)
    elif kind == "static":
        room = max(length, config.max_cache_len or 0)
        cache = StaticKVCache(decoder_layers(model.config), max_length=room, device=model.device)
    else:
        cache = SlidingKVCache(windows_of_model(model))
    return EncoderDecoderKVCache(cache) if model.config.is_encoder_decoder else cache


# Settings of a quantized cache that say which library packs, and how that one wants it.
_OF_OTHERS = frozenset({"backend", "axis_key", "axis_value", "device", "compute_dtype"})


def _made(kind: Callable[..., Any], given: dict[str, Any]) -> Any:
    known = set(inspect.signature(kind).parameters)
    if unknown := sorted(set(given) - known):
        raise OptionError(
            f"cache_config has no {unknown[0]!r:.60}; there is {', '.join(sorted(known))}", key="cache_config"
        )
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidOptionError(
                f"cache_config: {name} must be an integer, found {value!r:.60}", key="cache_config"
            )
    return kind(**given)
