"""The import path people know; re-exports only."""

from __future__ import annotations

from .pt import outputs
from .pt.outputs import *  # noqa: F403  # a re-export is what the file is for

__all__ = outputs.__all__
