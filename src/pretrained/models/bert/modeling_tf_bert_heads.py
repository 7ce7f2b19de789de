"""BERT in TensorFlow with its heads. Inputs that are not described here are those of `TFBertModule`."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf import losses
from ...tf.headed import (
    CheckedQuestionAnswering,
    CrossedCausalLM,
    Headed,
    MaskedLM,
    MultipleChoice,
    SequenceClassification,
    TokenClassification,
    WithTokenLogits,
    asked,
)
from ...tf.keras_names import shared_embeddings
from ...tf.kinds import ZEROS, Normal
from ...tf.layers import LayerNorm, Linear, Module, activation, parameter, project
from ...tf.outputs import TFForPreTrainingOutput, TFNextSentencePredictorOutput
from .modeling_tf_bert import TFBertModule, TFBertPreTrainedModel

__all__ = [
    "TFBertForMaskedLM",
    "TFBertForMultipleChoice",
    "TFBertForNextSentencePrediction",
    "TFBertForPreTraining",
    "TFBertForQuestionAnswering",
    "TFBertForSequenceClassification",
    "TFBertForTokenClassification",
    "TFBertLMHeadModel",
]

Tensor: TypeAlias = tf.Tensor


# One layer in torch's files, two in Keras's.
_KERAS_NAMES = {r"^cls\.predictions": "mlm___cls.predictions", r"^cls\.seq_relationship": "nsp___cls.seq_relationship"}


class TFBertTransform(Module):
    """Hidden states made ready for the comparison with the word embeddings."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, init=Normal(config.initializer_range))
        self.act = activation(config.hidden_act)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return self.LayerNorm(self.act(self.dense(hidden_states)))


class TFBertTokenHead(Module):
    """Token logits. Where the decoder is tied to the word embeddings it has no weight of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.transform = TFBertTransform(config)
        self.bias = parameter((config.vocab_size,), ZEROS)
        init, is_tied = Normal(config.initializer_range), config.tie_word_embeddings
        self.decoder = None if is_tied else Linear(config.hidden_size, config.vocab_size, bias=False, init=init)

    def call(self, hidden_states: Tensor, table: Any) -> Tensor:
        """`(batch, seq, vocab)`, with the embeddings `table` `(vocab, hidden)` if it is tied to them."""
        weight = table if self.decoder is None else self.decoder.weight
        return project(self.transform(hidden_states), weight, self.bias)


class TFBertHeads(Module):
    """What stands under `cls` in a checkpoint: the token head, the pair head, or both."""

    def __init__(self, config: ModuleConfig, tokens: bool = True, pairs: bool = False) -> None:
        super().__init__()
        if tokens:
            self.predictions = TFBertTokenHead(config)
        if pairs:
            self.seq_relationship = Linear(config.hidden_size, 2, init=Normal(config.initializer_range))


class _TokenLogits(WithTokenLogits):
    """The part that makes token logits."""

    inputs_like, base_name, pooling = TFBertModule, "bert", False
    pairs: ClassVar[bool] = False

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = TFBertHeads(config, pairs=self.pairs)

    def logits(self, states: Tensor) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`."""
        return self.cls.predictions(states, self.base.input_embeddings.weight)


class TFBertForPreTrainingModule(_TokenLogits):
    """BERT with both heads of its training."""

    pooling = pairs = True

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **inputs: Any,
    ) -> TFForPreTrainingOutput:
        """Logits `(batch, seq, vocab)` and `(batch, 2)`; with labels for both the sum of their losses."""
        outputs = self.base(input_ids, **inputs)
        tokens, pairs = self.logits(outputs.last_hidden_state), self.cls.seq_relationship(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = losses.cross_entropy(tokens, labels) + losses.cross_entropy(pairs, next_sentence_label)
        return TFForPreTrainingOutput(
            loss=loss, prediction_logits=tokens, seq_relationship_logits=pairs, **asked(outputs)
        )


class TFBertForMaskedLMModule(_TokenLogits, MaskedLM):
    """BERT with logits of the token at each place."""


class TFBertLMHeadModule(_TokenLogits, CrossedCausalLM):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""


class TFBertForNextSentencePredictionModule(Headed):
    """BERT with logits of whether one text follows another."""

    inputs_like, base_name, pooling = TFBertModule, "bert", True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = TFBertHeads(config, tokens=False, pairs=True)

    def call(
        self, input_ids: Tensor | None = None, *, labels: Tensor | None = None, **inputs: Any
    ) -> TFNextSentencePredictorOutput:
        """Logits `(batch, 2)`; with `labels` `(batch,)`, 0 where the second text follows the first, the loss."""
        outputs = self.base(input_ids, **inputs)
        logits = self.cls.seq_relationship(outputs.pooler_output)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFNextSentencePredictorOutput(loss=loss, logits=logits, **asked(outputs))


class TFBertForSequenceClassificationModule(SequenceClassification):
    """BERT with logits, or numbers, for the whole input."""

    inputs_like, base_name, pooling = TFBertModule, "bert", True


class TFBertForTokenClassificationModule(TokenClassification):
    """BERT with logits for each token."""

    inputs_like, base_name, pooling = TFBertModule, "bert", False


class TFBertForMultipleChoiceModule(MultipleChoice):
    """BERT with a logit for each of several continuations."""

    inputs_like, base_name, pooling = TFBertModule, "bert", True


class TFBertForQuestionAnsweringModule(CheckedQuestionAnswering):
    """BERT with logits of where in the text an answer starts and ends."""

    inputs_like, base_name, pooling = TFBertModule, "bert", False


class _WithTokenHead(TFBertPreTrainedModel):
    """The models that have token logits."""

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}
    _always_tied_keys = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    _output_embeddings = "cls.predictions.decoder.weight"
    _output_bias = "cls.predictions.bias"
    _keras_names = _KERAS_NAMES
    _keras_shared = shared_embeddings("bert", "mlm___cls")


class TFBertForPreTraining(_WithTokenHead):
    """BERT with both heads of its training: masked tokens, and whether two texts follow one another."""

    module_class = TFBertForPreTrainingModule


class TFBertForMaskedLM(_WithTokenHead):
    """BERT with logits of the token at each place."""

    module_class = TFBertForMaskedLMModule


class TFBertLMHeadModel(_WithTokenHead):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""

    module_class = TFBertLMHeadModule


class TFBertForNextSentencePrediction(TFBertPreTrainedModel):
    """BERT with logits of whether one text follows another."""

    _keras_names = _KERAS_NAMES

    module_class = TFBertForNextSentencePredictionModule


class TFBertForSequenceClassification(TFBertPreTrainedModel):
    """BERT with logits, or numbers, for the whole input."""

    module_class = TFBertForSequenceClassificationModule


class TFBertForTokenClassification(TFBertPreTrainedModel):
    """BERT with logits for each token."""

    module_class = TFBertForTokenClassificationModule


class TFBertForQuestionAnswering(TFBertPreTrainedModel):
    """BERT with logits of where in the text an answer starts and ends."""

    module_class = TFBertForQuestionAnsweringModule


class TFBertForMultipleChoice(TFBertPreTrainedModel):
    """BERT with a logit for each of several continuations."""

    module_class = TFBertForMultipleChoiceModule
