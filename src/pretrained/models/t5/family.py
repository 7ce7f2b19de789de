"""The names of the T5 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="t5",
    config="configuration_t5:T5Config",
    pt={
        "AutoModel": "modeling_t5:T5Model",
        "AutoModelForPreTraining": "modeling_t5_heads:T5ForConditionalGeneration",
        "AutoModelForSeq2SeqLM": "modeling_t5_heads:T5ForConditionalGeneration",
        "AutoModelForSequenceClassification": "modeling_t5_tasks:T5ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_t5_tasks:T5ForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_t5_tasks:T5ForQuestionAnswering",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_t5:FlaxT5Model",
        "FlaxAutoModelForPreTraining": "modeling_flax_t5:FlaxT5ForConditionalGeneration",
        "FlaxAutoModelForSeq2SeqLM": "modeling_flax_t5:FlaxT5ForConditionalGeneration",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_t5_tasks:FlaxT5ForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_t5_tasks:FlaxT5ForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_t5_tasks:FlaxT5ForQuestionAnswering",
    },
    tf={
        "TFAutoModel": "modeling_tf_t5:TFT5Model",
        "TFAutoModelForPreTraining": "modeling_tf_t5:TFT5ForConditionalGeneration",
        "TFAutoModelForSeq2SeqLM": "modeling_tf_t5:TFT5ForConditionalGeneration",
        "TFAutoModelForSequenceClassification": "modeling_tf_t5_tasks:TFT5ForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_t5_tasks:TFT5ForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_t5_tasks:TFT5ForQuestionAnswering",
    },
    names=(
        "modeling_t5:T5PreTrainedModel",
        "modeling_t5:T5EncoderModel",
        "modeling_flax_t5:FlaxT5PreTrainedModel",
        "modeling_flax_t5:FlaxT5EncoderModel",
        "modeling_tf_t5:TFT5PreTrainedModel",
        "modeling_tf_t5:TFT5EncoderModel",
    ),
)
