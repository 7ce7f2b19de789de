"""What generation in TensorFlow returns with `return_dict_in_generate=True`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..outputs import TFModelOutput

__all__ = [
    "TFBeamSampleOutput", "TFBeamSearchOutput", "TFContrastiveSearchOutput", "TFGreedySearchOutput", "TFSampleOutput",
]  # fmt: skip


@dataclass(eq=False)
class TFGreedySearchOutput(TFModelOutput):
    """`sequences` `(batch, length)`, padded behind their ends."""

    sequences: Any = None


@dataclass(eq=False)
class TFSampleOutput(TFModelOutput):
    """`sequences` `(batch * returned, length)`, padded behind their ends."""

    sequences: Any = None


@dataclass(eq=False)
class TFContrastiveSearchOutput(TFModelOutput):
    """`sequences` `(batch, length)`, padded behind their ends."""

    sequences: Any = None


@dataclass(eq=False)
class TFBeamSearchOutput(TFModelOutput):
    """`sequences` `(batch * returned, length)`, and their log-probabilities by length `(batch * returned,)`."""

    sequences: Any = None
    sequences_scores: Any = None


@dataclass(eq=False)
class TFBeamSampleOutput(TFModelOutput):
    """The same of drawn beams."""

    sequences: Any = None
    sequences_scores: Any = None
