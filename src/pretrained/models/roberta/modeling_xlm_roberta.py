"""XLM-RoBERTa (arXiv 1911.02116): RoBERTa's modules and parameters under the class names of its checkpoints."""

from __future__ import annotations

from .configuration_roberta import XLMRobertaConfig
from .modeling_roberta import RobertaModel
from .modeling_roberta_heads import RobertaForCausalLM, RobertaForMaskedLM
from .modeling_roberta_tasks import (
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

__all__ = [
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaModel",
]


class XLMRobertaModel(RobertaModel):
    """The blocks with their embeddings and, unless it is left out, the pooler."""

    config_class = XLMRobertaConfig


class XLMRobertaForMaskedLM(RobertaForMaskedLM):
    """XLM-RoBERTa with logits of the token at each place."""

    config_class = XLMRobertaConfig


class XLMRobertaForCausalLM(RobertaForCausalLM):
    """XLM-RoBERTa as a decoder with next-token logits."""

    config_class = XLMRobertaConfig


class XLMRobertaForSequenceClassification(RobertaForSequenceClassification):
    """XLM-RoBERTa with logits, or numbers, for the whole input."""

    config_class = XLMRobertaConfig


class XLMRobertaForTokenClassification(RobertaForTokenClassification):
    """XLM-RoBERTa with logits for each token."""

    config_class = XLMRobertaConfig


class XLMRobertaForQuestionAnswering(RobertaForQuestionAnswering):
    """XLM-RoBERTa with logits of where in the text an answer starts and ends."""

    config_class = XLMRobertaConfig


class XLMRobertaForMultipleChoice(RobertaForMultipleChoice):
    """XLM-RoBERTa with a logit for each of several continuations."""

    config_class = XLMRobertaConfig
