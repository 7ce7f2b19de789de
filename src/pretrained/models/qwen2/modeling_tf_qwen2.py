"""Qwen2 (arXiv 2407.10671) in TensorFlow: Llama's blocks with biased queries, keys and values, and sliding windows."""

from __future__ import annotations

from ...module_config import ModuleConfig
from ...tf.decoder import HEAD_ROWS, Decoder, ScoredTokens, Wiring
from ...tf.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...tf.modeling import TFPreTrainedModel
from .._rope import rope_parameters
from .._windows import layer_windows
from .configuration_qwen2 import Qwen2Config
from .rules import QUESTION_ANSWERING, RULES

__all__ = [
    "TFQwen2ForCausalLM",
    "TFQwen2ForQuestionAnswering",
    "TFQwen2ForSequenceClassification",
    "TFQwen2ForTokenClassification",
    "TFQwen2Model",
    "TFQwen2Module",
    "TFQwen2PreTrainedModel",
]


class TFQwen2Module(Decoder):
    """Qwen2's blocks: grouped heads with biases, some of which see the nearest tokens alone."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, Wiring(rope_parameters(config), layer_windows(config), qkv_bias=True))


class TFQwen2ForCausalLMModule(LMHead, CausalLM):
    """Qwen2 with next-token logits."""

    inputs_like, base_name = TFQwen2Module, "model"


class TFQwen2ForSequenceClassificationModule(LastTokenClassification):
    """Qwen2 with logits for the whole input, from its last token."""

    inputs_like, base_name = TFQwen2Module, "model"


class TFQwen2ForTokenClassificationModule(ScoredTokens):
    """Qwen2 with logits for each token."""

    inputs_like, base_name = TFQwen2Module, "model"


class TFQwen2ForQuestionAnsweringModule(QuestionAnswering):
    """Qwen2 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = TFQwen2Module, "transformer"


class TFQwen2PreTrainedModel(TFPreTrainedModel):
    """Base of all Qwen2 models in TensorFlow."""

    config: Qwen2Config
    config_class = Qwen2Config
    base_model_prefix = "model"
    _rules = RULES
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _keras_list_mark = "."


class TFQwen2Model(TFQwen2PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = TFQwen2Module
    _input_embeddings = "embed_tokens.weight"


class TFQwen2ForCausalLM(TFQwen2PreTrainedModel):
    """Qwen2 with next-token logits."""

    module_class = TFQwen2ForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class TFQwen2ForSequenceClassification(TFQwen2PreTrainedModel):
    """Qwen2 with logits for the whole input, taken at its last token."""

    module_class = TFQwen2ForSequenceClassificationModule


class TFQwen2ForTokenClassification(TFQwen2PreTrainedModel):
    """Qwen2 with logits for each token."""

    module_class = TFQwen2ForTokenClassificationModule


class TFQwen2ForQuestionAnswering(TFQwen2PreTrainedModel):
    """Qwen2 with logits of where in the text an answer starts and ends."""

    module_class = TFQwen2ForQuestionAnsweringModule
    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING
    _input_embeddings = "transformer.embed_tokens.weight"
