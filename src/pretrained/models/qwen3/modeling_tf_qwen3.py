"""Qwen3 without experts (arXiv 2505.09388) in TensorFlow: Llama's blocks; each head normalises queries and keys."""

from __future__ import annotations

from ...module_config import ModuleConfig
from ...tf.decoder import HEAD_ROWS, Decoder, ScoredTokens, Wiring
from ...tf.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...tf.modeling import TFPreTrainedModel
from .._rope import rope_parameters
from .._windows import layer_windows
from .configuration_qwen3 import Qwen3Config
from .rules import QUESTION_ANSWERING, RULES

__all__ = [
    "TFQwen3ForCausalLM",
    "TFQwen3ForQuestionAnswering",
    "TFQwen3ForSequenceClassification",
    "TFQwen3ForTokenClassification",
    "TFQwen3Model",
    "TFQwen3Module",
    "TFQwen3PreTrainedModel",
]


class TFQwen3Module(Decoder):
    """Qwen3's blocks: grouped heads that are normalised, some of which see the nearest tokens alone."""

    def __init__(self, config: ModuleConfig) -> None:
        rope, bias = rope_parameters(config), config.attention_bias
        super().__init__(config, Wiring(rope, layer_windows(config), qkv_bias=bias, out_bias=bias, head_norms=True))


class TFQwen3ForCausalLMModule(LMHead, CausalLM):
    """Qwen3 with next-token logits."""

    inputs_like, base_name = TFQwen3Module, "model"


class TFQwen3ForSequenceClassificationModule(LastTokenClassification):
    """Qwen3 with logits for the whole input, from its last token."""

    inputs_like, base_name = TFQwen3Module, "model"


class TFQwen3ForTokenClassificationModule(ScoredTokens):
    """Qwen3 with logits for each token."""

    inputs_like, base_name = TFQwen3Module, "model"


class TFQwen3ForQuestionAnsweringModule(QuestionAnswering):
    """Qwen3 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = TFQwen3Module, "transformer"


class TFQwen3PreTrainedModel(TFPreTrainedModel):
    """Base of all Qwen3 models in TensorFlow."""

    config: Qwen3Config
    config_class = Qwen3Config
    base_model_prefix = "model"
    _rules = RULES
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _keras_list_mark = "."


class TFQwen3Model(TFQwen3PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = TFQwen3Module
    _input_embeddings = "embed_tokens.weight"


class TFQwen3ForCausalLM(TFQwen3PreTrainedModel):
    """Qwen3 with next-token logits."""

    module_class = TFQwen3ForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class TFQwen3ForSequenceClassification(TFQwen3PreTrainedModel):
    """Qwen3 with logits for the whole input, taken at its last token."""

    module_class = TFQwen3ForSequenceClassificationModule


class TFQwen3ForTokenClassification(TFQwen3PreTrainedModel):
    """Qwen3 with logits for each token."""

    module_class = TFQwen3ForTokenClassificationModule


class TFQwen3ForQuestionAnswering(TFQwen3PreTrainedModel):
    """Qwen3 with logits of where in the text an answer starts and ends."""

    module_class = TFQwen3ForQuestionAnsweringModule
    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING
    _input_embeddings = "transformer.embed_tokens.weight"
