"""The names of the Qwen3-MoE family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="qwen3_moe",
    config="configuration_qwen3_moe:Qwen3MoeConfig",
    pt={
        "AutoModel": "modeling_qwen3_moe:Qwen3MoeModel",
        "AutoModelForCausalLM": "modeling_qwen3_moe:Qwen3MoeForCausalLM",
        "AutoModelForSequenceClassification": "modeling_qwen3_moe_tasks:Qwen3MoeForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_qwen3_moe_tasks:Qwen3MoeForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_qwen3_moe_tasks:Qwen3MoeForQuestionAnswering",
    },
    names=("modeling_qwen3_moe:Qwen3MoePreTrainedModel",),
)
