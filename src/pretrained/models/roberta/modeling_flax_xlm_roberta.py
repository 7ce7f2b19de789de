"""XLM-RoBERTa (arXiv 1911.02116) in JAX: RoBERTa's modules and parameters under the class names of its checkpoints."""

from __future__ import annotations

from .configuration_roberta import XLMRobertaConfig
from .modeling_flax_roberta import FlaxRobertaModel
from .modeling_flax_roberta_heads import (
    FlaxRobertaForCausalLM,
    FlaxRobertaForMaskedLM,
    FlaxRobertaForMultipleChoice,
    FlaxRobertaForQuestionAnswering,
    FlaxRobertaForSequenceClassification,
    FlaxRobertaForTokenClassification,
)

__all__ = [
    "FlaxXLMRobertaForCausalLM",
    "FlaxXLMRobertaForMaskedLM",
    "FlaxXLMRobertaForMultipleChoice",
    "FlaxXLMRobertaForQuestionAnswering",
    "FlaxXLMRobertaForSequenceClassification",
    "FlaxXLMRobertaForTokenClassification",
    "FlaxXLMRobertaModel",
]


class FlaxXLMRobertaModel(FlaxRobertaModel):
    """The blocks with their embeddings and, unless it is left out, the pooler."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForMaskedLM(FlaxRobertaForMaskedLM):
    """XLM-RoBERTa with logits of the token at each place."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForCausalLM(FlaxRobertaForCausalLM):
    """XLM-RoBERTa as a decoder with next-token logits."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForSequenceClassification(FlaxRobertaForSequenceClassification):
    """XLM-RoBERTa with logits, or numbers, for the whole input."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForTokenClassification(FlaxRobertaForTokenClassification):
    """XLM-RoBERTa with logits for each token."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForQuestionAnswering(FlaxRobertaForQuestionAnswering):
    """XLM-RoBERTa with logits of where in the text an answer starts and ends."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaForMultipleChoice(FlaxRobertaForMultipleChoice):
    """XLM-RoBERTa with a logit for each of several continuations."""

    config_class = XLMRobertaConfig
