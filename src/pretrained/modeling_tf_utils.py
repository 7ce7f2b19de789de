"""The import path people know; re-exports only."""

from __future__ import annotations

from .tf.modeling import TFPreTrainedModel

__all__ = ["TFPreTrainedModel"]
