"""The names of the Qwen2 family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="qwen2",
    config="configuration_qwen2:Qwen2Config",
    pt={
        "AutoModel": "modeling_qwen2:Qwen2Model",
        "AutoModelForCausalLM": "modeling_qwen2:Qwen2ForCausalLM",
        "AutoModelForSequenceClassification": "modeling_qwen2_tasks:Qwen2ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_qwen2_tasks:Qwen2ForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_qwen2_tasks:Qwen2ForQuestionAnswering",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_qwen2:FlaxQwen2Model",
        "FlaxAutoModelForCausalLM": "modeling_flax_qwen2:FlaxQwen2ForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_qwen2:FlaxQwen2ForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_qwen2:FlaxQwen2ForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_qwen2:FlaxQwen2ForQuestionAnswering",
    },
    tf={
        "TFAutoModel": "modeling_tf_qwen2:TFQwen2Model",
        "TFAutoModelForCausalLM": "modeling_tf_qwen2:TFQwen2ForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_qwen2:TFQwen2ForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_qwen2:TFQwen2ForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_qwen2:TFQwen2ForQuestionAnswering",
    },
    names=(
        "modeling_qwen2:Qwen2PreTrainedModel",
        "modeling_flax_qwen2:FlaxQwen2PreTrainedModel",
        "modeling_tf_qwen2:TFQwen2PreTrainedModel",
    ),
)
