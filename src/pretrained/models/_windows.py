"""Which layers of a decoder see all tokens before them and which only the nearest. No framework is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError

__all__ = ["FULL", "SLIDING", "alternating_types", "layer_windows", "windows_of_types"]

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
    if kinds is None:
        _check_window(window)
        first = config.max_window_layers
        return tuple(window if index >= first else None for index in range(config.num_hidden_layers))
    return windows_of_types(config, kinds, window, "use_sliding_window=True and a sliding_window")


def alternating_types(config: Any, pattern: int) -> tuple[str, ...]:
    """`config.layer_types`; where it has none, every layer whose number, from 1, is a multiple of `pattern` is full."""
    if config.layer_types is not None:
        return tuple(config.layer_types)
    return tuple(SLIDING if index % pattern else FULL for index in range(1, config.num_hidden_layers + 1))


def windows_of_types(
    config: Any, kinds: Sequence[Any], window: int | None, needed: str = "a sliding_window"
) -> tuple[int | None, ...]:
    """The window of each layer from its type, `window` for the sliding ones; `None`: all tokens.

    Raises:
        ConfigError: as `layer_windows`; `needed` says what a sliding layer needs.
    """
    _check_window(window)
    if len(kinds) != config.num_hidden_layers:
        raise ConfigError(
            f"layer_types must name one type for each of num_hidden_layers={config.num_hidden_layers} layers, found "
            f"{len(kinds)}; set layer_types=None to derive them",
            key="layer_types",
        )
    return tuple(_window_of(kind, window, needed) for kind in kinds)


def _check_window(window: int | None) -> None:
    if window is not None and window < 1:
        raise ConfigError(f"sliding_window must be positive, found {window}", key="sliding_window", value=window)


def _window_of(kind: Any, window: int | None, needed: str) -> int | None:
    if kind not in (FULL, SLIDING):
        raise ConfigError(
            f"layer_types holds {kind!r:.80}, which is not known. Known: {FULL}, {SLIDING}.", key="layer_types"
        )
    if kind == SLIDING and window is None:
        raise ConfigError(
            f"layer_types asks for {SLIDING}, which needs {needed}",
            key="sliding_window",
        )
    return window if kind == SLIDING else None
