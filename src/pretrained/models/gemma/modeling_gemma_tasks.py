"""Gemma with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_gemma import GemmaConfig
from .modeling_gemma import GemmaModel, GemmaPreTrainedModel

__all__ = ["GemmaForSequenceClassification", "GemmaForTokenClassification"]


class GemmaForSequenceClassification(decoder_heads.SequenceClassification, GemmaPreTrainedModel):
    """Gemma with logits for the whole input, taken at its last token."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(config)
        self.model = GemmaModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class GemmaForTokenClassification(decoder_heads.TokenClassification, GemmaPreTrainedModel):
    """Gemma with logits for each token."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__(config)
        self.model = GemmaModel(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
