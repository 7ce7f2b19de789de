"""What generation in JAX returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..outputs import FlaxModelOutput

__all__ = ["FlaxBeamSearchOutput", "FlaxGreedySearchOutput", "FlaxSampleOutput"]


@dataclass(eq=False)
class FlaxGreedySearchOutput(FlaxModelOutput):
    """`sequences` `(batch, max_length)`, padded behind their ends."""

    sequences: Any = None


@dataclass(eq=False)
class FlaxSampleOutput(FlaxModelOutput):
    """`sequences` `(batch * returned, max_length)`, padded behind their ends."""

    sequences: Any = None


@dataclass(eq=False)
class FlaxBeamSearchOutput(FlaxModelOutput):
    """`sequences` `(batch * returned, max_length)` and `scores` `(batch * returned,)`, their log-probabilities."""

    sequences: Any = None
    scores: Any = None
