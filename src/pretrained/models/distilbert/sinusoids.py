"""Positions as sines and cosines, for every framework."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["sinusoid_table"]


def sinusoid_table(num_positions: int, dim: int) -> NDArray[Any]:
    """A table `(positions, dim)` of sines in the even channels and cosines in the odd ones (arXiv 1706.03762)."""
    # In float64: at the last positions of a long table float32 angles are wrong in the fourth digit.
    places = np.arange(num_positions, dtype=np.float64)[:, None]
    channels = np.arange(dim, dtype=np.float64)
    is_odd = channels % 2
    angles = places / 10000.0 ** ((channels - is_odd) / dim)
    return np.where(is_odd.astype(bool), np.cos(angles), np.sin(angles)).astype(np.float32)
