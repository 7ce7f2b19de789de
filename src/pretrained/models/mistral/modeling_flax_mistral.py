"""Mistral (arXiv 2310.06825) in JAX: Llama's blocks with a sliding window that is the same in all layers."""

from __future__ import annotations

from ...flax.decoder import HEAD_ROWS, SHARDING_RULES, Decoder, ScoredTokens, Wiring
from ...flax.headed import CausalLM, LastTokenClassification, LMHead, QuestionAnswering
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .._rope import rope_parameters
from .configuration_mistral import MistralConfig

__all__ = [
    "FlaxMistralForCausalLM",
    "FlaxMistralForQuestionAnswering",
    "FlaxMistralForSequenceClassification",
    "FlaxMistralForTokenClassification",
    "FlaxMistralModel",
    "FlaxMistralModule",
    "FlaxMistralPreTrainedModel",
]


class FlaxMistralModule(Decoder):
    """Mistral's blocks: grouped heads that see the nearest tokens."""

    def __init__(self, config: ModuleConfig) -> None:
        windows = [config.sliding_window] * config.num_hidden_layers
        super().__init__(config, Wiring(rope_parameters(config), windows))


class FlaxMistralForCausalLMModule(LMHead, CausalLM):
    """Mistral with next-token logits."""

    inputs_like, base_name = FlaxMistralModule, "model"


class FlaxMistralForSequenceClassificationModule(LastTokenClassification):
    """Mistral with logits for the whole input, from its last token."""

    inputs_like, base_name = FlaxMistralModule, "model"


class FlaxMistralForTokenClassificationModule(ScoredTokens):
    """Mistral with logits for each token."""

    inputs_like, base_name = FlaxMistralModule, "model"


class FlaxMistralForQuestionAnsweringModule(QuestionAnswering):
    """Mistral with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = FlaxMistralModule, "model"


class FlaxMistralPreTrainedModel(FlaxPreTrainedModel):
    """Base of all Mistral models in JAX."""

    config: MistralConfig
    config_class = MistralConfig
    base_model_prefix = "model"
    _input_embeddings = "model.embed_tokens.weight"
    _head_rows = HEAD_ROWS
    _sharding_rules = SHARDING_RULES


class FlaxMistralModel(FlaxMistralPreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    module_class = FlaxMistralModule
    _input_embeddings = "embed_tokens.weight"


class FlaxMistralForCausalLM(FlaxMistralPreTrainedModel):
    """Mistral with next-token logits."""

    module_class = FlaxMistralForCausalLMModule
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _output_embeddings = "lm_head.weight"


class FlaxMistralForSequenceClassification(FlaxMistralPreTrainedModel):
    """Mistral with logits for the whole input, taken at its last token."""

    module_class = FlaxMistralForSequenceClassificationModule


class FlaxMistralForTokenClassification(FlaxMistralPreTrainedModel):
    """Mistral with logits for each token."""

    module_class = FlaxMistralForTokenClassificationModule


class FlaxMistralForQuestionAnswering(FlaxMistralPreTrainedModel):
    """Mistral with logits of where in the text an answer starts and ends."""

    module_class = FlaxMistralForQuestionAnsweringModule
