"""Llama (arXiv 2302.13971, 2307.09288, 2407.21783) in TensorFlow, as `tf.decoder` has the blocks, and its heads."""

from __future__ import annotations

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf.decoder import HEAD_ROWS, Decoder, Wiring
from ...tf.headed import CausalLM, LastTokenClassification, LMHead
from ...tf.modeling import TFPreTrainedModel
from .._rope import rope_parameters
from .configuration_llama import LlamaConfig

__all__ = [
    "TFLlamaForCausalLM",
    "TFLlamaForSequenceClassification",
    "TFLlamaModel",
    "TFLlamaModule",
    "TFLlamaPreTrainedModel",
]


class TFLlamaModule(Decoder):
    """Llama's blocks: grouped heads, with biases where the config says so."""

    def __init__(self, config: ModuleConfig) -> None:
        if (config.pretraining_tp or 1) > 1:
            message = f"pretraining_tp={config.pretraining_tp} is not supported; 1 gives the same up to rounding"
            raise ConfigError(message, key="pretraining_tp")
        rope, bias = rope_parameters(config), config.attention_bias
        super().__init__(config, Wiring(rope, qkv_bias=bias, out_bias=bias, mlp_bias=config.mlp_bias))


class TFLlamaForCausalLMModule(LMHead, CausalLM):
    """Llama with next-token logits."""

    inputs_like, base_name = TFLlamaModule, "model"


class TFLlamaForSequenceClassificationModule(LastTokenClassification):
    """Llama with logits for the whole input, from its last token."""

    inputs_like, base_name = TFLlamaModule, "model"


class TFLlamaPreTrainedModel(TFPreTrainedModel):
    """Base of all Llama models in TensorFlow."""

    config: LlamaConfig
    config_class = LlamaConfig
    base_model_prefix = "model"
    # Releases before 4.32 saved this buffer, once in each layer.
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _keras_list_mark = "."


class TFLlamaModel(TFLlamaPreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = TFLlamaModule
    _input_embeddings = "embed_tokens.weight"


class TFLlamaForCausalLM(TFLlamaPreTrainedModel):
    """Llama with next-token logits."""

    module_class = TFLlamaForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class TFLlamaForSequenceClassification(TFLlamaPreTrainedModel):
    """Llama with logits for the whole input, taken at its last token."""

    module_class = TFLlamaForSequenceClassificationModule
