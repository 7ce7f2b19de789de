"""Mistral with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_mistral import MistralConfig
from .modeling_mistral import MistralModel, MistralPreTrainedModel

__all__ = ["MistralForQuestionAnswering", "MistralForSequenceClassification", "MistralForTokenClassification"]


class MistralForSequenceClassification(decoder_heads.SequenceClassification, MistralPreTrainedModel):
    """Mistral with logits for the whole input, taken at its last token."""

    def __init__(self, config: MistralConfig) -> None:
        super().__init__(config)
        self.model = MistralModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class MistralForTokenClassification(decoder_heads.TokenClassification, MistralPreTrainedModel):
    """Mistral with logits for each token."""

    def __init__(self, config: MistralConfig) -> None:
        super().__init__(config)
        self.model = MistralModel(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class MistralForQuestionAnswering(decoder_heads.QuestionAnswering, MistralPreTrainedModel):
    """Mistral with logits of where in the text an answer starts and ends."""

    def __init__(self, config: MistralConfig) -> None:
        super().__init__(config)
        self.model = MistralModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()
