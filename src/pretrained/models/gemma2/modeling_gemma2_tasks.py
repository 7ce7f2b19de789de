"""Gemma 2 with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_gemma2 import Gemma2Config
from .modeling_gemma2 import Gemma2Model, Gemma2PreTrainedModel

__all__ = ["Gemma2ForSequenceClassification", "Gemma2ForTokenClassification"]


class Gemma2ForSequenceClassification(decoder_heads.SequenceClassification, Gemma2PreTrainedModel):
    """Gemma 2 with logits for the whole input, taken at its last token."""

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class Gemma2ForTokenClassification(decoder_heads.TokenClassification, Gemma2PreTrainedModel):
    """Gemma 2 with logits for each token."""

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
