"""The import path people know; re-exports only."""

from __future__ import annotations

from .flax.generation.mixin import FlaxGenerationMixin
from .flax.modeling import FlaxPreTrainedModel

__all__ = ["FlaxGenerationMixin", "FlaxPreTrainedModel"]
