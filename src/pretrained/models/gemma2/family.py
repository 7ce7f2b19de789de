"""The names of the Gemma 2 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="gemma2",
    config="configuration_gemma2:Gemma2Config",
    pt={
        "AutoModel": "modeling_gemma2:Gemma2Model",
        "AutoModelForCausalLM": "modeling_gemma2:Gemma2ForCausalLM",
        "AutoModelForSequenceClassification": "modeling_gemma2_tasks:Gemma2ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_gemma2_tasks:Gemma2ForTokenClassification",
    },
    names=("modeling_gemma2:Gemma2PreTrainedModel",),
)
