"""The import path people know; re-exports only."""

from __future__ import annotations

from .pt.modeling import PreTrainedModel
from .pt.module_utils import ModuleUtilsMixin

__all__ = ["ModuleUtilsMixin", "PreTrainedModel"]
