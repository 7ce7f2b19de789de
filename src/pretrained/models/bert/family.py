"""The names of the BERT family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="bert",
    config="configuration_bert:BertConfig",
    pt={
        "AutoModel": "modeling_bert:BertModel",
        "AutoModelForPreTraining": "modeling_bert_heads:BertForPreTraining",
        "AutoModelForMaskedLM": "modeling_bert_heads:BertForMaskedLM",
        "AutoModelForCausalLM": "modeling_bert_heads:BertLMHeadModel",
        "AutoModelForNextSentencePrediction": "modeling_bert_heads:BertForNextSentencePrediction",
        "AutoModelForSequenceClassification": "modeling_bert_tasks:BertForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_bert_tasks:BertForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_bert_tasks:BertForQuestionAnswering",
        "AutoModelForMultipleChoice": "modeling_bert_tasks:BertForMultipleChoice",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_bert:FlaxBertModel",
        "FlaxAutoModelForPreTraining": "modeling_flax_bert_heads:FlaxBertForPreTraining",
        "FlaxAutoModelForMaskedLM": "modeling_flax_bert_heads:FlaxBertForMaskedLM",
        "FlaxAutoModelForCausalLM": "modeling_flax_bert_heads:FlaxBertForCausalLM",
        "FlaxAutoModelForNextSentencePrediction": "modeling_flax_bert_heads:FlaxBertForNextSentencePrediction",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_bert_heads:FlaxBertForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_bert_heads:FlaxBertForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_bert_heads:FlaxBertForQuestionAnswering",
        "FlaxAutoModelForMultipleChoice": "modeling_flax_bert_heads:FlaxBertForMultipleChoice",
    },
    tf={
        "TFAutoModel": "modeling_tf_bert:TFBertModel",
        "TFAutoModelForPreTraining": "modeling_tf_bert_heads:TFBertForPreTraining",
        "TFAutoModelForMaskedLM": "modeling_tf_bert_heads:TFBertForMaskedLM",
        "TFAutoModelForCausalLM": "modeling_tf_bert_heads:TFBertLMHeadModel",
        "TFAutoModelForNextSentencePrediction": "modeling_tf_bert_heads:TFBertForNextSentencePrediction",
        "TFAutoModelForSequenceClassification": "modeling_tf_bert_heads:TFBertForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_bert_heads:TFBertForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_bert_heads:TFBertForQuestionAnswering",
        "TFAutoModelForMultipleChoice": "modeling_tf_bert_heads:TFBertForMultipleChoice",
    },
    names=(
        "modeling_bert:BertPreTrainedModel",
        "modeling_bert:BertLayer",
        "modeling_flax_bert:FlaxBertPreTrainedModel",
        "modeling_tf_bert:TFBertPreTrainedModel",
    ),
)
