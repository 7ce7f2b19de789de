"""The import path people know; re-exports only."""

from __future__ import annotations

from .pt.heads import find_pruneable_heads_and_indices, prune_conv1d_layer, prune_layer, prune_linear_layer
from .pt.layers import Conv1D

__all__ = ["Conv1D", "find_pruneable_heads_and_indices", "prune_conv1d_layer", "prune_layer", "prune_linear_layer"]
