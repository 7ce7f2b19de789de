"""RoBERTa in TensorFlow with its heads. Inputs that are not described here are those of `TFRobertaModule`."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf import tasks
from ...tf.headed import (
    CheckedQuestionAnswering,
    CrossedCausalLM,
    MaskedLM,
    MultipleChoice,
    SequenceClassification,
    TokenClassification,
    WithTokenLogits,
)
from ...tf.keras_names import shared_embeddings
from ...tf.kinds import ZEROS, Normal
from ...tf.layers import LayerNorm, Linear, Module, activation, dropout, folded, parameter, project
from .configuration_roberta import RobertaConfig
from .modeling_tf_roberta import TFRobertaModule, TFRobertaPreTrainedModel

__all__ = [
    "TFRobertaForCausalLM",
    "TFRobertaForMaskedLM",
    "TFRobertaForMultipleChoice",
    "TFRobertaForQuestionAnswering",
    "TFRobertaForSequenceClassification",
    "TFRobertaForTokenClassification",
]

Tensor: TypeAlias = tf.Tensor


class TFRobertaLMHead(Module):
    """Token logits. Where the decoder is tied to the word embeddings it has no weight of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        init, size, is_tied = Normal(config.initializer_range), config.hidden_size, config.tie_word_embeddings
        self.dense = Linear(size, size, init=init)
        self.layer_norm = LayerNorm(size, config.layer_norm_eps)
        self.decoder = None if is_tied else Linear(size, config.vocab_size, bias=False, init=init)
        self.bias = parameter((config.vocab_size,), ZEROS)

    def call(self, hidden_states: Tensor, table: Any) -> Tensor:
        """`(batch, seq, vocab)`, with the embeddings `table` `(vocab, hidden)` if it is tied to them; the activation is
        GELU whatever the blocks have."""
        states = self.layer_norm(activation("gelu")(self.dense(hidden_states)))
        return project(states, table if self.decoder is None else self.decoder.weight, self.bias)


class TFRobertaClassificationHead(Module):
    """Logits for the whole input, from its first token."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config, init = config, Normal(config.initializer_range)
        self.dense = Linear(config.hidden_size, config.hidden_size, init=init)
        self.out_proj = Linear(config.hidden_size, config.num_labels, init=init)

    def call(self, states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, labels)` of `(batch, hidden)`."""
        rate = tasks.classifier_dropout(self.config)
        summary = tf.tanh(self.dense(dropout(states, rate, rng)))
        return self.out_proj(dropout(summary, rate, rng, place=1))


class _TokenLogits(WithTokenLogits):
    """The part that makes token logits."""

    inputs_like, base_name, pooling = TFRobertaModule, "roberta", False

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.lm_head = TFRobertaLMHead(config)

    def logits(self, states: Tensor) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`."""
        return self.lm_head(states, self.base.input_embeddings.weight)


class TFRobertaForMaskedLMModule(_TokenLogits, MaskedLM):
    """RoBERTa with logits of the token at each place."""


class TFRobertaForCausalLMModule(_TokenLogits, CrossedCausalLM):
    """RoBERTa as a decoder with next-token logits; the config should say `is_decoder=True`."""


class TFRobertaForSequenceClassificationModule(SequenceClassification):
    """RoBERTa with logits, or numbers, for the whole input."""

    inputs_like, base_name, pooling = TFRobertaModule, "roberta", False

    def add_layer(self, num_outputs: int, bias: bool = True) -> None:
        """Gives the head its two layers."""
        self.classifier = TFRobertaClassificationHead(self.config)

    def summary(self, outputs: Any) -> Tensor:
        """`(batch, hidden)` of the first token."""
        first: Tensor = outputs.last_hidden_state[:, 0]
        return first

    def scored(self, states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, labels)`."""
        return self.classifier(states, folded(rng, 2))


class TFRobertaForTokenClassificationModule(TokenClassification):
    """RoBERTa with logits for each token."""

    inputs_like, base_name, pooling = TFRobertaModule, "roberta", False


class TFRobertaForQuestionAnsweringModule(CheckedQuestionAnswering):
    """RoBERTa with logits of where in the text an answer starts and ends."""

    inputs_like, base_name, pooling = TFRobertaModule, "roberta", False


class TFRobertaForMultipleChoiceModule(MultipleChoice):
    """RoBERTa with a logit for each of several continuations."""

    inputs_like, base_name, pooling = TFRobertaModule, "roberta", True

    @property
    def rate(self) -> float:
        """That of the hidden states, whatever other classifiers have."""
        rate: float = self.config.hidden_dropout_prob
        return rate


class _WithTokenHead(TFRobertaPreTrainedModel):
    """The models that have token logits."""

    _tied_weights_keys = {"lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight"}
    _always_tied_keys = {"lm_head.decoder.bias": "lm_head.bias"}
    _output_embeddings = "lm_head.decoder.weight"
    _keras_shared = shared_embeddings("roberta", "lm_head")
    _output_bias = "lm_head.bias"


class TFRobertaForMaskedLM(_WithTokenHead):
    """RoBERTa with logits of the token at each place."""

    module_class = TFRobertaForMaskedLMModule


class TFRobertaForCausalLM(_WithTokenHead):
    """RoBERTa as a decoder with next-token logits; the config should say `is_decoder=True`."""

    module_class = TFRobertaForCausalLMModule

    @classmethod
    def _first_position(cls, config: RobertaConfig) -> int:
        """Positions are counted from that of padding on."""
        return int(config.pad_token_id or 0) + 1


class TFRobertaForSequenceClassification(TFRobertaPreTrainedModel):
    """RoBERTa with logits, or numbers, for the whole input."""

    module_class = TFRobertaForSequenceClassificationModule


class TFRobertaForTokenClassification(TFRobertaPreTrainedModel):
    """RoBERTa with logits for each token."""

    module_class = TFRobertaForTokenClassificationModule


class TFRobertaForQuestionAnswering(TFRobertaPreTrainedModel):
    """RoBERTa with logits of where in the text an answer starts and ends."""

    module_class = TFRobertaForQuestionAnsweringModule


class TFRobertaForMultipleChoice(TFRobertaPreTrainedModel):
    """RoBERTa with a logit for each of several continuations."""

    module_class = TFRobertaForMultipleChoiceModule
