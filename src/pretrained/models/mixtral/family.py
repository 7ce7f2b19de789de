"""The names of the Mixtral family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="mixtral",
    config="configuration_mixtral:MixtralConfig",
    pt={
        "AutoModel": "modeling_mixtral:MixtralModel",
        "AutoModelForCausalLM": "modeling_mixtral:MixtralForCausalLM",
        "AutoModelForSequenceClassification": "modeling_mixtral_tasks:MixtralForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_mixtral_tasks:MixtralForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_mixtral_tasks:MixtralForQuestionAnswering",
    },
    names=("modeling_mixtral:MixtralPreTrainedModel",),
)
