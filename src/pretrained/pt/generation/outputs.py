"""What generate returns with `return_dict_in_generate=True`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..outputs import ModelOutput, TensorTuple

__all__ = [
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
]

# Of each step one entry, in tuples: `scores` `(batch * beams, vocab)` after the processors, `logits` before them,
# attentions and hidden states as forward returns them for all layers. Sequences are `(batch * returned, seq)`.


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """Of a decoder, without beams."""

    sequences: Tensor | None = None
    scores: TensorTuple | None = None
    logits: TensorTuple | None = None
    attentions: tuple[TensorTuple, ...] | None = None
    hidden_states: tuple[TensorTuple, ...] | None = None
    past_key_values: Any = None


@dataclass(eq=False)
class GenerateEncoderDecoderOutput(ModelOutput):
    """Of an encoder and decoder, without beams."""

    sequences: Tensor | None = None
    scores: TensorTuple | None = None
    logits: TensorTuple | None = None
    encoder_attentions: TensorTuple | None = None
    encoder_hidden_states: TensorTuple | None = None
    decoder_attentions: tuple[TensorTuple, ...] | None = None
    cross_attentions: tuple[TensorTuple, ...] | None = None
    decoder_hidden_states: tuple[TensorTuple, ...] | None = None
    past_key_values: Any = None


@dataclass(eq=False)
class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Of a decoder, with beams: `beam_indices` `(batch * returned, new)` says which row each token came from."""

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    scores: TensorTuple | None = None
    logits: TensorTuple | None = None
    beam_indices: Tensor | None = None
    attentions: tuple[TensorTuple, ...] | None = None
    hidden_states: tuple[TensorTuple, ...] | None = None
    past_key_values: Any = None


@dataclass(eq=False)
class GenerateBeamEncoderDecoderOutput(ModelOutput):
    """Of an encoder and decoder, with beams."""

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    scores: TensorTuple | None = None
    logits: TensorTuple | None = None
    beam_indices: Tensor | None = None
    encoder_attentions: TensorTuple | None = None
    encoder_hidden_states: TensorTuple | None = None
    decoder_attentions: tuple[TensorTuple, ...] | None = None
    cross_attentions: tuple[TensorTuple, ...] | None = None
    decoder_hidden_states: tuple[TensorTuple, ...] | None = None
    past_key_values: Any = None
