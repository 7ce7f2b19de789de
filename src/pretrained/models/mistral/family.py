"""The names of the Mistral family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="mistral",
    config="configuration_mistral:MistralConfig",
    pt={
        "AutoModel": "modeling_mistral:MistralModel",
        "AutoModelForCausalLM": "modeling_mistral:MistralForCausalLM",
        "AutoModelForSequenceClassification": "modeling_mistral_tasks:MistralForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_mistral_tasks:MistralForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_mistral_tasks:MistralForQuestionAnswering",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_mistral:FlaxMistralModel",
        "FlaxAutoModelForCausalLM": "modeling_flax_mistral:FlaxMistralForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_mistral:FlaxMistralForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_mistral:FlaxMistralForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_mistral:FlaxMistralForQuestionAnswering",
    },
    tf={
        "TFAutoModel": "modeling_tf_mistral:TFMistralModel",
        "TFAutoModelForCausalLM": "modeling_tf_mistral:TFMistralForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_mistral:TFMistralForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_mistral:TFMistralForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_mistral:TFMistralForQuestionAnswering",
    },
    names=(
        "modeling_mistral:MistralPreTrainedModel",
        "modeling_flax_mistral:FlaxMistralPreTrainedModel",
        "modeling_tf_mistral:TFMistralPreTrainedModel",
    ),
)
