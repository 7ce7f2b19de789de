"""The names of the GPT-2 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="gpt2",
    config="configuration_gpt2:GPT2Config",
    pt={
        "AutoModel": "modeling_gpt2:GPT2Model",
        "AutoModelForPreTraining": "modeling_gpt2_heads:GPT2LMHeadModel",
        "AutoModelForCausalLM": "modeling_gpt2_heads:GPT2LMHeadModel",
        "AutoModelForSequenceClassification": "modeling_gpt2_tasks:GPT2ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_gpt2_tasks:GPT2ForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_gpt2_tasks:GPT2ForQuestionAnswering",
    },
    names=("modeling_gpt2:GPT2PreTrainedModel", "modeling_gpt2_heads:GPT2DoubleHeadsModel"),
)
