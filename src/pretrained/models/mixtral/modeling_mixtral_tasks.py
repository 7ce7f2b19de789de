"""Mixtral with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_mixtral import MixtralConfig
from .modeling_mixtral import MixtralModel, MixtralPreTrainedModel

__all__ = ["MixtralForQuestionAnswering", "MixtralForSequenceClassification", "MixtralForTokenClassification"]


class MixtralForSequenceClassification(decoder_heads.SequenceClassification, MixtralPreTrainedModel):
    """Mixtral with logits for the whole input, taken at its last token."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.model = MixtralModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class MixtralForTokenClassification(decoder_heads.TokenClassification, MixtralPreTrainedModel):
    """Mixtral with logits for each token."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.model = MixtralModel(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class MixtralForQuestionAnswering(decoder_heads.QuestionAnswering, MixtralPreTrainedModel):
    """Mixtral with logits of where in the text an answer starts and ends."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.model = MixtralModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()
