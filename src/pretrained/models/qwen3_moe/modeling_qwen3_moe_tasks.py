"""Qwen3-MoE with the heads it is fine-tuned with."""

from __future__ import annotations

from torch import nn

from ...pt import decoder_heads
from .configuration_qwen3_moe import Qwen3MoeConfig
from .modeling_qwen3_moe import Qwen3MoeModel, Qwen3MoePreTrainedModel
from .rules import QUESTION_ANSWERING

__all__ = ["Qwen3MoeForQuestionAnswering", "Qwen3MoeForSequenceClassification", "Qwen3MoeForTokenClassification"]


class Qwen3MoeForSequenceClassification(decoder_heads.SequenceClassification, Qwen3MoePreTrainedModel):
    """Qwen3-MoE with logits for the whole input, taken at its last token."""

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__(config)
        self.model = Qwen3MoeModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class Qwen3MoeForTokenClassification(decoder_heads.TokenClassification, Qwen3MoePreTrainedModel):
    """Qwen3-MoE with logits for each token."""

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__(config)
        self.model = Qwen3MoeModel(config)
        self.dropout = decoder_heads.token_dropout(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class Qwen3MoeForQuestionAnswering(decoder_heads.QuestionAnswering, Qwen3MoePreTrainedModel):
    """Qwen3-MoE with logits of where in the text an answer starts and ends."""

    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__(config)
        self.transformer = Qwen3MoeModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()
