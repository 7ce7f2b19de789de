"""XLM-RoBERTa (arXiv 1911.02116) in TensorFlow: RoBERTa's modules under the class names of its checkpoints."""

from __future__ import annotations

from .configuration_roberta import XLMRobertaConfig
from .modeling_tf_roberta import TFRobertaModel
from .modeling_tf_roberta_heads import (
    TFRobertaForCausalLM,
    TFRobertaForMaskedLM,
    TFRobertaForMultipleChoice,
    TFRobertaForQuestionAnswering,
    TFRobertaForSequenceClassification,
    TFRobertaForTokenClassification,
)

__all__ = [
    "TFXLMRobertaForCausalLM",
    "TFXLMRobertaForMaskedLM",
    "TFXLMRobertaForMultipleChoice",
    "TFXLMRobertaForQuestionAnswering",
    "TFXLMRobertaForSequenceClassification",
    "TFXLMRobertaForTokenClassification",
    "TFXLMRobertaModel",
]


class TFXLMRobertaModel(TFRobertaModel):
    """The blocks with their embeddings and, unless it is left out, the pooler."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForMaskedLM(TFRobertaForMaskedLM):
    """XLM-RoBERTa with logits of the token at each place."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForCausalLM(TFRobertaForCausalLM):
    """XLM-RoBERTa as a decoder with next-token logits."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForSequenceClassification(TFRobertaForSequenceClassification):
    """XLM-RoBERTa with logits, or numbers, for the whole input."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForTokenClassification(TFRobertaForTokenClassification):
    """XLM-RoBERTa with logits for each token."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForQuestionAnswering(TFRobertaForQuestionAnswering):
    """XLM-RoBERTa with logits of where in the text an answer starts and ends."""

    config_class = XLMRobertaConfig


class TFXLMRobertaForMultipleChoice(TFRobertaForMultipleChoice):
    """XLM-RoBERTa with a logit for each of several continuations."""

    config_class = XLMRobertaConfig
