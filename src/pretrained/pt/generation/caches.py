"""The cache of one call of generate, as the settings ask for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import InvalidOptionError

__all__ = ["make_cache"]


def make_cache(model: Any, config: Any, ids: Tensor, embeds: Tensor | None) -> Any:
    """A cache of the kind that `cache_implementation` names; `None` leaves it to the model, which makes its own."""
    kind = config.cache_implementation
    if kind in (None, "dynamic", "dynamic_full"):
        return None
    raise InvalidOptionError(f"cache_implementation={kind!r} is not there yet", key="cache_implementation")
