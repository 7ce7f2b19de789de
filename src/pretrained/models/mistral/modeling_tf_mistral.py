"""Mistral (arXiv 2310.06825) in TensorFlow: Llama's blocks with a sliding window that is the same in all layers."""

from __future__ import annotations

from ...module_config import ModuleConfig
from ...tf.decoder import HEAD_ROWS, Decoder, ScoredTokens, Wiring
from ...tf.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...tf.modeling import TFPreTrainedModel
from .._rope import rope_parameters
from .configuration_mistral import MistralConfig

__all__ = [
    "TFMistralForCausalLM",
    "TFMistralForQuestionAnswering",
    "TFMistralForSequenceClassification",
    "TFMistralForTokenClassification",
    "TFMistralModel",
    "TFMistralModule",
    "TFMistralPreTrainedModel",
]


class TFMistralModule(Decoder):
    """Mistral's blocks: grouped heads that see the nearest tokens."""

    def __init__(self, config: ModuleConfig) -> None:
        windows = [config.sliding_window] * config.num_hidden_layers
        super().__init__(config, Wiring(rope_parameters(config), windows))


class TFMistralForCausalLMModule(LMHead, CausalLM):
    """Mistral with next-token logits."""

    inputs_like, base_name = TFMistralModule, "model"


class TFMistralForSequenceClassificationModule(LastTokenClassification):
    """Mistral with logits for the whole input, from its last token."""

    inputs_like, base_name = TFMistralModule, "model"


class TFMistralForTokenClassificationModule(ScoredTokens):
    """Mistral with logits for each token."""

    inputs_like, base_name = TFMistralModule, "model"


class TFMistralForQuestionAnsweringModule(QuestionAnswering):
    """Mistral with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = TFMistralModule, "model"


class TFMistralPreTrainedModel(TFPreTrainedModel):
    """Base of all Mistral models in TensorFlow."""

    config: MistralConfig
    config_class = MistralConfig
    base_model_prefix = "model"
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _keras_list_mark = "."


class TFMistralModel(TFMistralPreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = TFMistralModule
    _input_embeddings = "embed_tokens.weight"


class TFMistralForCausalLM(TFMistralPreTrainedModel):
    """Mistral with next-token logits."""

    module_class = TFMistralForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class TFMistralForSequenceClassification(TFMistralPreTrainedModel):
    """Mistral with logits for the whole input, taken at its last token."""

    module_class = TFMistralForSequenceClassificationModule


class TFMistralForTokenClassification(TFMistralPreTrainedModel):
    """Mistral with logits for each token."""

    module_class = TFMistralForTokenClassificationModule


class TFMistralForQuestionAnswering(TFMistralPreTrainedModel):
    """Mistral with logits of where in the text an answer starts and ends."""

    module_class = TFMistralForQuestionAnsweringModule
