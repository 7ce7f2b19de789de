"""Llama (arXiv 2302.13971, 2307.09288, 2407.21783) in JAX, as `flax.decoder` has the blocks, and its heads."""

from __future__ import annotations

from ...errors import ConfigError
from ...flax.decoder import HEAD_ROWS, SHARDING_RULES, Decoder, Wiring
from ...flax.headed import CausalLM, LastTokenClassification, LMHead
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .._rope import rope_parameters
from .configuration_llama import LlamaConfig

__all__ = [
    "FlaxLlamaForCausalLM",
    "FlaxLlamaForSequenceClassification",
    "FlaxLlamaModel",
    "FlaxLlamaModule",
    "FlaxLlamaPreTrainedModel",
]


class FlaxLlamaModule(Decoder):
    """Llama's blocks: grouped heads, with biases where the config says so."""

    def __init__(self, config: ModuleConfig) -> None:
        if (config.pretraining_tp or 1) > 1:
            message = f"pretraining_tp={config.pretraining_tp} is not supported; 1 gives the same up to rounding"
            raise ConfigError(message, key="pretraining_tp")
        rope, bias = rope_parameters(config), config.attention_bias
        super().__init__(config, Wiring(rope, qkv_bias=bias, out_bias=bias, mlp_bias=config.mlp_bias))


class FlaxLlamaForCausalLMModule(LMHead, CausalLM):
    """Llama with next-token logits."""

    inputs_like, base_name = FlaxLlamaModule, "model"


class FlaxLlamaForSequenceClassificationModule(LastTokenClassification):
    """Llama with logits for the whole input, from its last token."""

    inputs_like, base_name = FlaxLlamaModule, "model"


class FlaxLlamaPreTrainedModel(FlaxPreTrainedModel):
    """Base of all Llama models in JAX."""

    config: LlamaConfig
    config_class = LlamaConfig
    base_model_prefix = "model"
    # Releases before 4.32 saved this buffer, once in each layer.
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _sharding_rules = SHARDING_RULES


class FlaxLlamaModel(FlaxLlamaPreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = FlaxLlamaModule
    _input_embeddings = "embed_tokens.weight"


class FlaxLlamaForCausalLM(FlaxLlamaPreTrainedModel):
    """Llama with next-token logits."""

    module_class = FlaxLlamaForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class FlaxLlamaForSequenceClassification(FlaxLlamaPreTrainedModel):
    """Llama with logits for the whole input, taken at its last token."""

    module_class = FlaxLlamaForSequenceClassificationModule
