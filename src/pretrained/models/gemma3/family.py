"""The names of the Gemma 3 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="gemma3_text",
    config="configuration_gemma3:Gemma3TextConfig",
    pt={
        "AutoModel": "modeling_gemma3:Gemma3TextModel",
        "AutoModelForCausalLM": "modeling_gemma3:Gemma3ForCausalLM",
        "AutoModelForSequenceClassification": "modeling_gemma3_tasks:Gemma3TextForSequenceClassification",
    },
    names=("modeling_gemma3:Gemma3PreTrainedModel",),
)
