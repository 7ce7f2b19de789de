"""The import path people know; re-exports only."""

from __future__ import annotations

from .configuration import PreTrainedConfig, PretrainedConfig

__all__ = ["PreTrainedConfig", "PretrainedConfig"]
