"""The buckets that T5 puts distances between tokens into: what each framework's model looks up alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["bucket_table"]


def bucket_table(num_buckets: int, max_distance: int) -> np.ndarray[Any, Any]:
    """The bucket of each distance into one direction, from 0 to `max_distance`, from where on all have one.

    Half of the buckets are for single distances, the other half for ranges that grow with the logarithm.

    Source: Mesh TensorFlow, `_relative_position_bucket`.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    # In this order, and in float32: at the edges of the ranges another rounding is another bucket. A compiler may
    # choose one, so that it is given the table.
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    ranged = exact + growth.astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(ranged, num_buckets - 1)).astype(np.int32)
