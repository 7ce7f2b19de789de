"""Qwen3 without experts (arXiv 2505.09388) in JAX: Llama's blocks; queries and keys are normalised in each head."""

from __future__ import annotations

from ...flax.decoder import HEAD_ROWS, SHARDING_RULES, Decoder, ScoredTokens, Wiring
from ...flax.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .._rope import rope_parameters
from .._windows import layer_windows
from .configuration_qwen3 import Qwen3Config
from .rules import QUESTION_ANSWERING, RULES

__all__ = [
    "FlaxQwen3ForCausalLM",
    "FlaxQwen3ForQuestionAnswering",
    "FlaxQwen3ForSequenceClassification",
    "FlaxQwen3ForTokenClassification",
    "FlaxQwen3Model",
    "FlaxQwen3Module",
    "FlaxQwen3PreTrainedModel",
]


class FlaxQwen3Module(Decoder):
    """Qwen3's blocks: grouped heads that are normalised, some of which see the nearest tokens alone."""

    def __init__(self, config: ModuleConfig) -> None:
        rope, bias = rope_parameters(config), config.attention_bias
        super().__init__(config, Wiring(rope, layer_windows(config), qkv_bias=bias, out_bias=bias, head_norms=True))


class FlaxQwen3ForCausalLMModule(LMHead, CausalLM):
    """Qwen3 with next-token logits."""

    inputs_like, base_name = FlaxQwen3Module, "model"


class FlaxQwen3ForSequenceClassificationModule(LastTokenClassification):
    """Qwen3 with logits for the whole input, from its last token."""

    inputs_like, base_name = FlaxQwen3Module, "model"


class FlaxQwen3ForTokenClassificationModule(ScoredTokens):
    """Qwen3 with logits for each token."""

    inputs_like, base_name = FlaxQwen3Module, "model"


class FlaxQwen3ForQuestionAnsweringModule(QuestionAnswering):
    """Qwen3 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = FlaxQwen3Module, "transformer"


class FlaxQwen3PreTrainedModel(FlaxPreTrainedModel):
    """Base of all Qwen3 models in JAX."""

    config: Qwen3Config
    config_class = Qwen3Config
    base_model_prefix = "model"
    _rules = RULES
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _sharding_rules = SHARDING_RULES


class FlaxQwen3Model(FlaxQwen3PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = FlaxQwen3Module
    _input_embeddings = "embed_tokens.weight"


class FlaxQwen3ForCausalLM(FlaxQwen3PreTrainedModel):
    """Qwen3 with next-token logits."""

    module_class = FlaxQwen3ForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class FlaxQwen3ForSequenceClassification(FlaxQwen3PreTrainedModel):
    """Qwen3 with logits for the whole input, taken at its last token."""

    module_class = FlaxQwen3ForSequenceClassificationModule


class FlaxQwen3ForTokenClassification(FlaxQwen3PreTrainedModel):
    """Qwen3 with logits for each token."""

    module_class = FlaxQwen3ForTokenClassificationModule


class FlaxQwen3ForQuestionAnswering(FlaxQwen3PreTrainedModel):
    """Qwen3 with logits of where in the text an answer starts and ends."""

    module_class = FlaxQwen3ForQuestionAnsweringModule
    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING
    _input_embeddings = "transformer.embed_tokens.weight"
