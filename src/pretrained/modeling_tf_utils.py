"""The import path people know; re-exports only."""

from __future__ import annotations

from .tf.generation.mixin import TFGenerationMixin
from .tf.modeling import TFPreTrainedModel

__all__ = ["TFGenerationMixin", "TFPreTrainedModel"]
