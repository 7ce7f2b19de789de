"""The import path people know; re-exports only."""

from __future__ import annotations

from .pt.embeddings import EmbeddingAccessMixin
from .pt.heads import find_pruneable_heads_and_indices, prune_conv1d_layer, prune_layer, prune_linear_layer
from .pt.modeling import PreTrainedModel
from .pt.module_utils import ModuleUtilsMixin

__all__ = [
    "EmbeddingAccessMixin",
    "ModuleUtilsMixin",
    "PreTrainedModel",
    "find_pruneable_heads_and_indices",
    "prune_conv1d_layer",
    "prune_layer",
    "prune_linear_layer",
]
