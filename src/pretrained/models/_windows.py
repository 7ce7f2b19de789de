"""Which layers of a decoder see all tokens before them and which only the nearest. No framework is imported here."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError

__all__ = ["layer_windows"]

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_windows(config: Any) -> tuple[int | None, ...]:
    """How many tokens each layer's attention sees, its own included; `None`: all.

    Releases 4.x write `use_sliding_window` and `max_window_layers`, the first layer that has a window; releases 5.x
    may write `layer_types`, which then decides. The config stays as it was read.

    Raises:
        ConfigError: `layer_types` has a type nobody knows or another length than there are layers, or asks for a
            window where none is given.
    """
    window, kinds = config.sliding_window if config.use_sliding_window else None, config.layer_types
    if window is not None and window < 1:
        raise ConfigError(f"sliding_window must be positive, found {window}", key="sliding_window", value=window)
    if kinds is None:
        first = config.max_window_layers
        return tuple(window if index >= first else None for index in range(config.num_hidden_layers))
    if len(kinds) != config.num_hidden_layers:
        raise ConfigError(
            f"layer_types must name one type for each of num_hidden_layers={config.num_hidden_layers} layers, found "
            f"{len(kinds)}; set layer_types=None to derive them",
            key="layer_types",
        )
    return tuple(_window_of(kind, window) for kind in kinds)


def _window_of(kind: Any, window: int | None) -> int | None:
    if kind not in (FULL, SLIDING):
        raise ConfigError(
            f"layer_types holds {kind!r:.80}, which is not known. Known: {FULL}, {SLIDING}.", key="layer_types"
        )
    if kind == SLIDING and window is None:
        raise ConfigError(
            f"layer_types asks for {SLIDING}, which needs use_sliding_window=True and a sliding_window",
            key="sliding_window",
        )
    return window if kind == SLIDING else None
