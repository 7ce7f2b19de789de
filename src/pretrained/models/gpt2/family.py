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
    flax={
        "FlaxAutoModel": "modeling_flax_gpt2:FlaxGPT2Model",
        "FlaxAutoModelForPreTraining": "modeling_flax_gpt2_heads:FlaxGPT2LMHeadModel",
        "FlaxAutoModelForCausalLM": "modeling_flax_gpt2_heads:FlaxGPT2LMHeadModel",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_gpt2_heads:FlaxGPT2ForSequenceClassification",
        "FlaxAutoModelForTokenClassification": "modeling_flax_gpt2_heads:FlaxGPT2ForTokenClassification",
        "FlaxAutoModelForQuestionAnswering": "modeling_flax_gpt2_heads:FlaxGPT2ForQuestionAnswering",
    },
    tf={
        "TFAutoModel": "modeling_tf_gpt2:TFGPT2Model",
        "TFAutoModelForPreTraining": "modeling_tf_gpt2_heads:TFGPT2LMHeadModel",
        "TFAutoModelForCausalLM": "modeling_tf_gpt2_heads:TFGPT2LMHeadModel",
        "TFAutoModelForSequenceClassification": "modeling_tf_gpt2_heads:TFGPT2ForSequenceClassification",
        "TFAutoModelForTokenClassification": "modeling_tf_gpt2_heads:TFGPT2ForTokenClassification",
        "TFAutoModelForQuestionAnswering": "modeling_tf_gpt2_heads:TFGPT2ForQuestionAnswering",
    },
    names=(
        "modeling_gpt2:GPT2PreTrainedModel",
        "modeling_gpt2_heads:GPT2DoubleHeadsModel",
        "modeling_flax_gpt2:FlaxGPT2PreTrainedModel",
        "modeling_flax_gpt2_heads:FlaxGPT2DoubleHeadsModel",
        "modeling_tf_gpt2:TFGPT2PreTrainedModel",
        "modeling_tf_gpt2_heads:TFGPT2DoubleHeadsModel",
    ),
)
