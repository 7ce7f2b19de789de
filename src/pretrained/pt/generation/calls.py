"""One call of generate as the ways to decode are given it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .logits import LogitsProcessorList
from .record import Record
from .steps import Steps, Text
from .stopping import StoppingCriteriaList

__all__ = ["Call"]


@dataclass
class Call:
    """What there is to decode with.

    Attributes:
        model: the model.
        config: the settings, all filled in.
        ids: `(batch, seq)`, the prompt; an encoder–decoder's is what its decoder starts from.
        steps: runs the model.
        processors: applied to the scores of each step.
        criteria: say when a row is done.
        record: collects what is to be returned.
        eos: `(ends,)` token ids that end a row, if any do.
        pad_id: stands behind the end of a row.
        num_copies: rows that each row of the batch becomes.
        streamer: is given each token.
        generator: of random numbers.
        extra: what only some ways to decode take.
    """

    model: Any
    config: Any
    ids: Tensor
    steps: Steps
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    record: Record
    eos: Tensor | None = None
    pad_id: int | None = None
    num_copies: int = 1
    streamer: Any = None
    generator: torch.Generator | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def pad(self) -> int:
        """What stands behind the end of a row; 0 if nobody said."""
        return self.pad_id or 0

    def begin(self, times: int = 1) -> tuple[Text, Any]:
        """The text so far, each row `times` times, and the output of the prompt's last token."""
        ids, outputs = self.steps.begin(self.ids, times, self.config.prefill_chunk_size)
        return Text(ids, self.config.max_length), outputs
