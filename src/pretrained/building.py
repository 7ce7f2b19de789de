"""Whether this thread is building a model that a checkpoint is going to fill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["building", "is_loading"]

_state = threading.local()


def is_loading() -> bool:
    """Whether this thread is building a model that a checkpoint is going to fill."""
    return getattr(_state, "depth", 0) > 0


@contextmanager
def building() -> Iterator[None]:
    """While this lasts, constructors in this thread draw nothing."""
    _state.depth = getattr(_state, "depth", 0) + 1
    try:
        yield
    finally:
        _state.depth -= 1
