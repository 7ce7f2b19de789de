"""The names of the Qwen3 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="qwen3",
    config="configuration_qwen3:Qwen3Config",
    pt={
        "AutoModel": "modeling_qwen3:Qwen3Model",
        "AutoModelForCausalLM": "modeling_qwen3:Qwen3ForCausalLM",
        "AutoModelForSequenceClassification": "modeling_qwen3_tasks:Qwen3ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_qwen3_tasks:Qwen3ForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_qwen3_tasks:Qwen3ForQuestionAnswering",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_qwen3:FlaxQwen3Model",
        "FlaxAutoModelForCausalLM": "modeling_flax_qwen3:FlaxQwen3ForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_qwen3:FlaxQwen3ForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_qwen3:FlaxQwen3ForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_qwen3:FlaxQwen3ForQuestionAnswering",
    },
    tf={
        "TFAutoModel": "modeling_tf_qwen3:TFQwen3Model",
        "TFAutoModelForCausalLM": "modeling_tf_qwen3:TFQwen3ForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_qwen3:TFQwen3ForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_qwen3:TFQwen3ForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_qwen3:TFQwen3ForQuestionAnswering",
    },
    names=(
        "modeling_qwen3:Qwen3PreTrainedModel",
        "modeling_flax_qwen3:FlaxQwen3PreTrainedModel",
        "modeling_tf_qwen3:TFQwen3PreTrainedModel",
    ),
)
