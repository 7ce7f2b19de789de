"""Weights that follow from a parameter's name, so that cases of many shapes need no file. Needs numpy alone."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """Float32 values of a parameter: scales near 1, all else near 0. numpy keeps `RandomState` as it is."""
    values = 0.25 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    is_scale = name.endswith("original0") or (name.endswith(".weight") and len(shape) == 1)
    return (values + is_scale).astype(np.float32)
