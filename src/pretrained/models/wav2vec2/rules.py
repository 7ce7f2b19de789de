"""Renames between a Wav2Vec2 checkpoint and the modules here: none, the names are those on disk.

Releases before torch 2.1 wrote `weight_g` and `weight_v` for the two parts of the positional convolution; every load
knows these older spellings. A save writes the newer ones.
"""

from __future__ import annotations

__all__ = ["RULES"]

RULES: tuple = ()
