"""The names of the Gemma family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="gemma",
    config="configuration_gemma:GemmaConfig",
    pt={
        "AutoModel": "modeling_gemma:GemmaModel",
        "AutoModelForCausalLM": "modeling_gemma:GemmaForCausalLM",
        "AutoModelForSequenceClassification": "modeling_gemma_tasks:GemmaForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_gemma_tasks:GemmaForTokenClassification",
    },
    names=("modeling_gemma:GemmaPreTrainedModel",),
)
