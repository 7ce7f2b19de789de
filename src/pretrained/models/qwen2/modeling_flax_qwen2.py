"""Qwen2 (arXiv 2407.10671) in JAX: Llama's blocks with biased queries, keys and values, and sliding windows."""

from __future__ import annotations

from ...flax.decoder import HEAD_ROWS, SHARDING_RULES, Decoder, ScoredTokens, Wiring
from ...flax.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .._rope import rope_parameters
from .._windows import layer_windows
from .configuration_qwen2 import Qwen2Config
from .rules import QUESTION_ANSWERING, RULES

__all__ = [
    "FlaxQwen2ForCausalLM",
    "FlaxQwen2ForQuestionAnswering",
    "FlaxQwen2ForSequenceClassification",
    "FlaxQwen2ForTokenClassification",
    "FlaxQwen2Model",
    "FlaxQwen2Module",
    "FlaxQwen2PreTrainedModel",
]


class FlaxQwen2Module(Decoder):
    """Qwen2's blocks: grouped heads with biases, some of which see the nearest tokens alone."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, Wiring(rope_parameters(config), layer_windows(config), qkv_bias=True))


class FlaxQwen2ForCausalLMModule(LMHead, CausalLM):
    """Qwen2 with next-token logits."""

    inputs_like, base_name = FlaxQwen2Module, "model"


class FlaxQwen2ForSequenceClassificationModule(LastTokenClassification):
    """Qwen2 with logits for the whole input, from its last token."""

    inputs_like, base_name = FlaxQwen2Module, "model"


class FlaxQwen2ForTokenClassificationModule(ScoredTokens):
    """Qwen2 with logits for each token."""

    inputs_like, base_name = FlaxQwen2Module, "model"


class FlaxQwen2ForQuestionAnsweringModule(QuestionAnswering):
    """Qwen2 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = FlaxQwen2Module, "transformer"


class FlaxQwen2PreTrainedModel(FlaxPreTrainedModel):
    """Base of all Qwen2 models in JAX."""

    config: Qwen2Config
    config_class = Qwen2Config
    base_model_prefix = "model"
    _rules = RULES
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _sharding_rules = SHARDING_RULES


class FlaxQwen2Model(FlaxQwen2PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = FlaxQwen2Module
    _input_embeddings = "embed_tokens.weight"


class FlaxQwen2ForCausalLM(FlaxQwen2PreTrainedModel):
    """Qwen2 with next-token logits."""

    module_class = FlaxQwen2ForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class FlaxQwen2ForSequenceClassification(FlaxQwen2PreTrainedModel):
    """Qwen2 with logits for the whole input, taken at its last token."""

    module_class = FlaxQwen2ForSequenceClassificationModule


class FlaxQwen2ForTokenClassification(FlaxQwen2PreTrainedModel):
    """Qwen2 with logits for each token."""

    module_class = FlaxQwen2ForTokenClassificationModule


class FlaxQwen2ForQuestionAnswering(FlaxQwen2PreTrainedModel):
    """Qwen2 with logits of where in the text an answer starts and ends."""

    module_class = FlaxQwen2ForQuestionAnsweringModule
    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING
    _input_embeddings = "transformer.embed_tokens.weight"
