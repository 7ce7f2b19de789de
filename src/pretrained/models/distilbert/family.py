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
    flax={
        "FlaxAutoModel": "modeling_flax_distilbert:FlaxDistilBertModel",
        "FlaxAutoModelForPreTraining": "modeling_flax_distilbert_heads:FlaxDistilBertForMaskedLM",
        "FlaxAutoModelForMaskedLM": "modeling_flax_distilbert_heads:FlaxDistilBertForMaskedLM",
        "FlaxAutoModelForSequenceClassification": (
            "modeling_flax_distilbert_heads:FlaxDistilBertForSequenceClassification"
        ),
        "FlaxAutoModelForTokenClassification": "modeling_flax_distilbert_heads:FlaxDistilBertForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_distilbert_heads:FlaxDistilBertForQuestionAnswering",
        "FlaxAutoModelForMultipleChoice": "modeling_flax_distilbert_heads:FlaxDistilBertForMultipleChoice",
    },
    tf={
        "TFAutoModel": "modeling_tf_distilbert:TFDistilBertModel",
        "TFAutoModelForPreTraining": "modeling_tf_distilbert_heads:TFDistilBertForMaskedLM",
        "TFAutoModelForMaskedLM": "modeling_tf_distilbert_heads:TFDistilBertForMaskedLM",
        "TFAutoModelForSequenceClassification": ("modeling_tf_distilbert_heads:TFDistilBertForSequenceClassification"),
        "TFAutoModelForTokenClassification": "modeling_tf_distilbert_heads:TFDistilBertForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_distilbert_heads:TFDistilBertForQuestionAnswering",
        "TFAutoModelForMultipleChoice": "modeling_tf_distilbert_heads:TFDistilBertForMultipleChoice",
    },
    names=(
        "modeling_distilbert:DistilBertPreTrainedModel",
        "modeling_flax_distilbert:FlaxDistilBertPreTrainedModel",
        "modeling_tf_distilbert:TFDistilBertPreTrainedModel",
    ),
)
