"""The names of the DistilBERT family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="distilbert",
    config="configuration_distilbert:DistilBertConfig",
    pt={
        "AutoModel": "modeling_distilbert:DistilBertModel",
        "AutoModelForPreTraining": "modeling_distilbert_heads:DistilBertForMaskedLM",
        "AutoModelForMaskedLM": "modeling_distilbert_heads:DistilBertForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_distilbert_heads:DistilBertForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_distilbert_heads:DistilBertForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_distilbert_heads:DistilBertForQuestionAnswering",
        "AutoModelForMultipleChoice": "modeling_distilbert_heads:DistilBertForMultipleChoice",
    },
    names=("modeling_distilbert:DistilBertPreTrainedModel",),
)
