"""The names of the Llama family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="llama",
    config="configuration_llama:LlamaConfig",
    pt={
        "AutoModel": "modeling_llama:LlamaModel",
        "AutoModelForCausalLM": "modeling_llama:LlamaForCausalLM",
        "AutoModelForSequenceClassification": "modeling_llama:LlamaForSequenceClassification",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_llama:FlaxLlamaModel",
        "FlaxAutoModelForCausalLM": "modeling_flax_llama:FlaxLlamaForCausalLM",
        "FlaxAutoModelForSequenceClassification": "modeling_flax_llama:FlaxLlamaForSequenceClassification",
    },
    tf={
        "TFAutoModel": "modeling_tf_llama:TFLlamaModel",
        "TFAutoModelForCausalLM": "modeling_tf_llama:TFLlamaForCausalLM",
        "TFAutoModelForSequenceClassification": "modeling_tf_llama:TFLlamaForSequenceClassification",
    },
    names=(
        "modeling_llama:LlamaPreTrainedModel",
        "modeling_flax_llama:FlaxLlamaPreTrainedModel",
        "modeling_tf_llama:TFLlamaPreTrainedModel",
    ),
)
