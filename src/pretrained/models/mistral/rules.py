"""Renames between a Mistral checkpoint and the modules here: none, the names are those on disk."""

from __future__ import annotations

__all__ = ["RULES"]

RULES: tuple = ()
