"""The import path people know; re-exports only."""

from __future__ import annotations

from .tf.outputs import (
    TFBaseModelOutput,
    TFBaseModelOutputWithPast,
    TFBaseModelOutputWithPastAndCrossAttentions,
    TFBaseModelOutputWithPooling,
    TFBaseModelOutputWithPoolingAndCrossAttentions,
    TFCausalLMOutput,
    TFCausalLMOutputWithCrossAttentions,
    TFMaskedLMOutput,
    TFModelOutput,
    TFMultipleChoiceModelOutput,
    TFNextSentencePredictorOutput,
    TFQuestionAnsweringModelOutput,
    TFSeq2SeqLMOutput,
    TFSeq2SeqModelOutput,
    TFSequenceClassifierOutput,
    TFTokenClassifierOutput,
)

__all__ = [
    "TFBaseModelOutput",
    "TFBaseModelOutputWithPast",
    "TFBaseModelOutputWithPastAndCrossAttentions",
    "TFBaseModelOutputWithPooling",
    "TFBaseModelOutputWithPoolingAndCrossAttentions",
    "TFCausalLMOutput",
    "TFCausalLMOutputWithCrossAttentions",
    "TFMaskedLMOutput",
    "TFModelOutput",
    "TFMultipleChoiceModelOutput",
    "TFNextSentencePredictorOutput",
    "TFQuestionAnsweringModelOutput",
    "TFSeq2SeqLMOutput",
    "TFSeq2SeqModelOutput",
    "TFSequenceClassifierOutput",
    "TFTokenClassifierOutput",
]
