"""DistilBERT in TensorFlow with its heads. Inputs that are not described here are those of `TFDistilBertModule`."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf.headed import (
    CheckedQuestionAnswering,
    Headed,
    MaskedLM,
    MultipleChoice,
    SequenceClassification,
    TokenClassification,
)
from ...tf.keras_names import shared_embeddings
from ...tf.kinds import LINEAR, ZEROS, Normal
from ...tf.layers import LayerNorm, Linear, Module, activation, parameter, project
from .modeling_tf_distilbert import EPSILON, TFDistilBertModule, TFDistilBertPreTrainedModel

__all__ = [
    "TFDistilBertForMaskedLM",
    "TFDistilBertForMultipleChoice",
    "TFDistilBertForQuestionAnswering",
    "TFDistilBertForSequenceClassification",
    "TFDistilBertForTokenClassification",
]

Tensor: TypeAlias = tf.Tensor


class TFDistilBertProjector(Module):
    """The projection onto the vocabulary. Where it is tied to the word embeddings it has no weight of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        shape, init = (config.vocab_size, config.dim), Normal(config.initializer_range)
        self.weight = None if config.tie_word_embeddings else parameter(shape, init, LINEAR)
        self.bias = parameter((config.vocab_size,), ZEROS)

    def call(self, states: Tensor, table: Any) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`, with the embeddings `table` `(vocab, hidden)` if it is tied to them."""
        return project(states, table if self.weight is None else self.weight, self.bias)


class TFDistilBertForMaskedLMModule(MaskedLM):
    """DistilBERT with logits of the token at each place."""

    inputs_like, base_name = TFDistilBertModule, "distilbert"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.act = activation(config.activation, "activation")
        self.vocab_transform = Linear(config.dim, config.dim, init=Normal(config.initializer_range))
        self.vocab_layer_norm = LayerNorm(config.dim, EPSILON)
        self.vocab_projector = TFDistilBertProjector(config)

    def logits(self, states: Tensor) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`."""
        states = self.vocab_layer_norm(self.act(self.vocab_transform(states)))
        return self.vocab_projector(states, self.base.input_embeddings.weight)


class _Summarised(Headed):
    """The part of a head for the whole input that makes a summary of it."""

    inputs_like, base_name = TFDistilBertModule, "distilbert"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.pre_classifier = Linear(config.dim, config.dim, init=Normal(config.initializer_range))

    def summary(self, outputs: Any) -> Tensor:
        """`(batch, hidden)` of the first token."""
        return tf.nn.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))

    @property
    def rate(self) -> float:
        """`seq_classif_dropout`."""
        rate: float = self.config.seq_classif_dropout
        return rate


class TFDistilBertForSequenceClassificationModule(_Summarised, SequenceClassification):
    """DistilBERT with logits, or numbers, for the whole input, from its first token."""


class TFDistilBertForMultipleChoiceModule(_Summarised, MultipleChoice):
    """DistilBERT with a logit for each of several continuations."""


class TFDistilBertForTokenClassificationModule(TokenClassification):
    """DistilBERT with logits for each token."""

    inputs_like, base_name = TFDistilBertModule, "distilbert"

    @property
    def rate(self) -> float:
        """That of the hidden states."""
        rate: float = self.config.dropout
        return rate


class TFDistilBertForQuestionAnsweringModule(CheckedQuestionAnswering):
    """DistilBERT with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = TFDistilBertModule, "distilbert"

    @property
    def rate(self) -> float:
        """`qa_dropout`."""
        rate: float = self.config.qa_dropout
        return rate


class TFDistilBertForMaskedLM(TFDistilBertPreTrainedModel):
    """DistilBERT with logits of the token at each place; their projection is tied to the word embeddings."""

    module_class = TFDistilBertForMaskedLMModule
    _tied_weights_keys = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
    _output_embeddings = "vocab_projector.weight"
    _keras_shared = shared_embeddings("distilbert", "vocab_projector")
    _output_bias = "vocab_projector.bias"


class TFDistilBertForSequenceClassification(TFDistilBertPreTrainedModel):
    """DistilBERT with logits, or numbers, for the whole input, from its first token."""

    module_class = TFDistilBertForSequenceClassificationModule


class TFDistilBertForTokenClassification(TFDistilBertPreTrainedModel):
    """DistilBERT with logits for each token."""

    module_class = TFDistilBertForTokenClassificationModule


class TFDistilBertForQuestionAnswering(TFDistilBertPreTrainedModel):
    """DistilBERT with logits of where in the text an answer starts and ends."""

    module_class = TFDistilBertForQuestionAnsweringModule


class TFDistilBertForMultipleChoice(TFDistilBertPreTrainedModel):
    """DistilBERT with a logit for each of several continuations."""

    module_class = TFDistilBertForMultipleChoiceModule
