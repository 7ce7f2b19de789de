"""RoBERTa in JAX with its heads. Inputs that are not described here are those of `FlaxRobertaModule`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...flax import tasks
from ...flax.headed import (
    CheckedQuestionAnswering,
    CrossedCausalLM,
    MaskedLM,
    MultipleChoice,
    SequenceClassification,
    TokenClassification,
    WithTokenLogits,
)
from ...flax.kinds import ZEROS, Normal
from ...flax.layers import LayerNorm, Linear, Module, activation, dropout, folded, parameter, project
from ...flax.module_config import ModuleConfig
from .configuration_roberta import RobertaConfig
from .modeling_flax_roberta import FlaxRobertaModule, FlaxRobertaPreTrainedModel

__all__ = [
    "FlaxRobertaForCausalLM",
    "FlaxRobertaForMaskedLM",
    "FlaxRobertaForMultipleChoice",
    "FlaxRobertaForQuestionAnswering",
    "FlaxRobertaForSequenceClassification",
    "FlaxRobertaForTokenClassification",
]

Array = jax.Array


class FlaxRobertaLMHead(Module):
    """Token logits. Where the decoder is tied to the word embeddings it has no weight of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        init, size, is_tied = Normal(config.initializer_range), config.hidden_size, config.tie_word_embeddings
        self.dense = Linear(size, size, init=init)
        self.layer_norm = LayerNorm(size, config.layer_norm_eps)
        self.decoder = None if is_tied else Linear(size, config.vocab_size, bias=False, init=init)
        self.bias = parameter((config.vocab_size,), ZEROS)

    def __call__(self, hidden_states: Array, table: Array) -> Array:
        """`(batch, seq, vocab)`, with the embeddings `table` `(vocab, hidden)` if it is tied to them; the activation is
        GELU whatever the blocks have."""
        states = self.layer_norm(activation("gelu")(self.dense(hidden_states)))
        return project(states, table if self.decoder is None else self.decoder.weight[...], self.bias[...])


class FlaxRobertaClassificationHead(Module):
    """Logits for the whole input, from its first token."""

    def __init__(self, config: ModuleConfig) -> None:
        self.config, init = config, Normal(config.initializer_range)
        self.dense = Linear(config.hidden_size, config.hidden_size, init=init)
        self.out_proj = Linear(config.hidden_size, config.num_labels, init=init)

    def __call__(self, states: Array, rng: Array | None = None) -> Array:
        """`(batch, labels)` of `(batch, hidden)`."""
        rate = tasks.classifier_dropout(self.config)
        summary = jnp.tanh(self.dense(dropout(states, rate, rng)))
        return self.out_proj(dropout(summary, rate, rng, place=1))


class _TokenLogits(WithTokenLogits):
    """The part that makes token logits."""

    inputs_like, base_name, pooling = FlaxRobertaModule, "roberta", False

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.lm_head = FlaxRobertaLMHead(config)

    def logits(self, states: Array) -> Array:
        """`(…, vocab)` of `(…, hidden)`."""
        return self.lm_head(states, self.base.input_embeddings.weight[...])


class FlaxRobertaForMaskedLMModule(_TokenLogits, MaskedLM):
    """RoBERTa with logits of the token at each place."""


class FlaxRobertaForCausalLMModule(_TokenLogits, CrossedCausalLM):
    """RoBERTa as a decoder with next-token logits; the config should say `is_decoder=True`."""


class FlaxRobertaForSequenceClassificationModule(SequenceClassification):
    """RoBERTa with logits, or numbers, for the whole input."""

    inputs_like, base_name, pooling = FlaxRobertaModule, "roberta", False

    def add_layer(self, num_outputs: int, bias: bool = True) -> None:
        """Gives the head its two layers."""
        self.classifier = FlaxRobertaClassificationHead(self.config)

    def summary(self, outputs: Any) -> Array:
        """`(batch, hidden)` of the first token."""
        first: Array = outputs.last_hidden_state[:, 0]
        return first

    def scored(self, states: Array, rng: Array | None = None) -> Array:
        """`(batch, labels)`."""
        return self.classifier(states, folded(rng, 2))


class FlaxRobertaForTokenClassificationModule(TokenClassification):
    """RoBERTa with logits for each token."""

    inputs_like, base_name, pooling = FlaxRobertaModule, "roberta", False


class FlaxRobertaForQuestionAnsweringModule(CheckedQuestionAnswering):
    """RoBERTa with logits of where in the text an answer starts and ends."""

    inputs_like, base_name, pooling = FlaxRobertaModule, "roberta", False


class FlaxRobertaForMultipleChoiceModule(MultipleChoice):
    """RoBERTa with a logit for each of several continuations."""

    inputs_like, base_name, pooling = FlaxRobertaModule, "roberta", True

    @property
    def rate(self) -> float:
        """That of the hidden states, whatever other classifiers have."""
        rate: float = self.config.hidden_dropout_prob
        return rate


class _WithTokenHead(FlaxRobertaPreTrainedModel):
    """The models that have token logits."""

    _tied_weights_keys = {"lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight"}
    _always_tied_keys = {"lm_head.decoder.bias": "lm_head.bias"}
    _output_embeddings = "lm_head.decoder.weight"
    _output_bias = "lm_head.bias"


class FlaxRobertaForMaskedLM(_WithTokenHead):
    """RoBERTa with logits of the token at each place."""

    module_class = FlaxRobertaForMaskedLMModule


class FlaxRobertaForCausalLM(_WithTokenHead):
    """RoBERTa as a decoder with next-token logits; the config should say `is_decoder=True`."""

    module_class = FlaxRobertaForCausalLMModule

    @classmethod
    def _first_position(cls, config: RobertaConfig) -> int:
        """Positions are counted from that of padding on."""
        return int(config.pad_token_id or 0) + 1


class FlaxRobertaForSequenceClassification(FlaxRobertaPreTrainedModel):
    """RoBERTa with logits, or numbers, for the whole input."""

    module_class = FlaxRobertaForSequenceClassificationModule


class FlaxRobertaForTokenClassification(FlaxRobertaPreTrainedModel):
    """RoBERTa with logits for each token."""

    module_class = FlaxRobertaForTokenClassificationModule


class FlaxRobertaForQuestionAnswering(FlaxRobertaPreTrainedModel):
    """RoBERTa with logits of where in the text an answer starts and ends."""

    module_class = FlaxRobertaForQuestionAnsweringModule


class FlaxRobertaForMultipleChoice(FlaxRobertaPreTrainedModel):
    """RoBERTa with a logit for each of several continuations."""

    module_class = FlaxRobertaForMultipleChoiceModule
