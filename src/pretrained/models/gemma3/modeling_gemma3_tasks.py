"""Gemma 3 with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_gemma3 import Gemma3TextConfig
from .modeling_gemma3 import Gemma3PreTrainedModel, Gemma3TextModel

__all__ = ["Gemma3TextForSequenceClassification"]


class Gemma3TextForSequenceClassification(decoder_heads.SequenceClassification, Gemma3PreTrainedModel):
    """Gemma 3 with logits for the whole input, taken at its last token."""

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__(config)
        self.model = Gemma3TextModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()
