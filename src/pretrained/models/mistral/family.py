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
    names=("modeling_mistral:MistralPreTrainedModel",),
)
