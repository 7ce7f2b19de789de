"""Phi-3 with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_phi3 import Phi3Config
from .modeling_phi3 import Phi3Model, Phi3PreTrainedModel

__all__ = ["Phi3ForSequenceClassification", "Phi3ForTokenClassification"]


class Phi3ForSequenceClassification(decoder_heads.SequenceClassification, Phi3PreTrainedModel):
    """Phi-3 with logits for the whole input, taken at its last token."""

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.model = Phi3Model(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class Phi3ForTokenClassification(decoder_heads.TokenClassification, Phi3PreTrainedModel):
    """Phi-3 with logits for each token."""

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.model = Phi3Model(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
