"""The names of the Phi-3 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="phi3",
    config="configuration_phi3:Phi3Config",
    pt={
        "AutoModel": "modeling_phi3:Phi3Model",
        "AutoModelForCausalLM": "modeling_phi3:Phi3ForCausalLM",
        "AutoModelForSequenceClassification": "modeling_phi3_tasks:Phi3ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_phi3_tasks:Phi3ForTokenClassification",
    },
    names=("modeling_phi3:Phi3PreTrainedModel",),
)
