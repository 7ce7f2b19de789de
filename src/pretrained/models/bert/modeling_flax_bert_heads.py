"""BERT in JAX with its heads. Inputs that are not described here are those of `FlaxBertModule`."""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from ...flax.headed import (
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
from ...flax.kinds import ZEROS, Normal
from ...flax.layers import LayerNorm, Linear, Module, activation, parameter, project
from ...flax.module_config import ModuleConfig
from ...flax.outputs import FlaxForPreTrainingOutput, FlaxNextSentencePredictorOutput
from .modeling_flax_bert import FlaxBertModule, FlaxBertPreTrainedModel

__all__ = [
    "FlaxBertForCausalLM",
    "FlaxBertForMaskedLM",
    "FlaxBertForMultipleChoice",
    "FlaxBertForNextSentencePrediction",
    "FlaxBertForPreTraining",
    "FlaxBertForQuestionAnswering",
    "FlaxBertForSequenceClassification",
    "FlaxBertForTokenClassification",
]

Array = jax.Array


class FlaxBertTransform(Module):
    """Hidden states made ready for the comparison with the word embeddings."""

    def __init__(self, config: ModuleConfig) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, init=Normal(config.initializer_range))
        self.act = activation(config.hidden_act)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, hidden_states: Array) -> Array:
        """`(batch, seq, hidden)`."""
        return self.LayerNorm(self.act(self.dense(hidden_states)))


class FlaxBertTokenHead(Module):
    """Token logits. Where the decoder is tied to the word embeddings it has no weight of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        self.transform = FlaxBertTransform(config)
        self.bias = parameter((config.vocab_size,), ZEROS)
        init, is_tied = Normal(config.initializer_range), config.tie_word_embeddings
        self.decoder = None if is_tied else Linear(config.hidden_size, config.vocab_size, bias=False, init=init)

    def __call__(self, hidden_states: Array, table: Array) -> Array:
        """`(batch, seq, vocab)`, with the embeddings `table` `(vocab, hidden)` if it is tied to them."""
        weight = table if self.decoder is None else self.decoder.weight[...]
        return project(self.transform(hidden_states), weight, self.bias[...])


class FlaxBertHeads(Module):
    """What stands under `cls` in a checkpoint: the token head, the pair head, or both."""

    def __init__(self, config: ModuleConfig, tokens: bool = True, pairs: bool = False) -> None:
        if tokens:
            self.predictions = FlaxBertTokenHead(config)
        if pairs:
            self.seq_relationship = Linear(config.hidden_size, 2, init=Normal(config.initializer_range))


class _TokenLogits(WithTokenLogits):
    """The part that makes token logits."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", False
    pairs: ClassVar[bool] = False

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config, pairs=self.pairs)

    def logits(self, states: Array) -> Array:
        """`(…, vocab)` of `(…, hidden)`."""
        return self.cls.predictions(states, self.base.input_embeddings.weight[...])


class FlaxBertForPreTrainingModule(_TokenLogits):
    """BERT with both heads of its training."""

    pooling = pairs = True

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxForPreTrainingOutput:
        """Logits `(batch, seq, vocab)` and `(batch, 2)`."""
        outputs = self.base(input_ids, **inputs)
        return FlaxForPreTrainingOutput(
            prediction_logits=self.logits(outputs.last_hidden_state),
            seq_relationship_logits=self.cls.seq_relationship(outputs.pooler_output),
            **asked(outputs),
        )


class FlaxBertForMaskedLMModule(_TokenLogits, MaskedLM):
    """BERT with logits of the token at each place."""


class FlaxBertForCausalLMModule(_TokenLogits, CrossedCausalLM):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""


class FlaxBertForNextSentencePredictionModule(Headed):
    """BERT with logits of whether one text follows another."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config, tokens=False, pairs=True)

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxNextSentencePredictorOutput:
        """Logits `(batch, 2)`."""
        outputs = self.base(input_ids, **inputs)
        logits = self.cls.seq_relationship(outputs.pooler_output)
        return FlaxNextSentencePredictorOutput(logits=logits, **asked(outputs))


class FlaxBertForSequenceClassificationModule(SequenceClassification):
    """BERT with logits, or numbers, for the whole input."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", True


class FlaxBertForTokenClassificationModule(TokenClassification):
    """BERT with logits for each token."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", False


class FlaxBertForMultipleChoiceModule(MultipleChoice):
    """BERT with a logit for each of several continuations."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", True


class FlaxBertForQuestionAnsweringModule(CheckedQuestionAnswering):
    """BERT with logits of where in the text an answer starts and ends."""

    inputs_like, base_name, pooling = FlaxBertModule, "bert", False


class _WithTokenHead(FlaxBertPreTrainedModel):
    """The models that have token logits."""

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}
    _always_tied_keys = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    _output_embeddings = "cls.predictions.decoder.weight"
    _output_bias = "cls.predictions.bias"


class FlaxBertForPreTraining(_WithTokenHead):
    """BERT with both heads of its training: masked tokens, and whether two texts follow one another."""

    module_class = FlaxBertForPreTrainingModule


class FlaxBertForMaskedLM(_WithTokenHead):
    """BERT with logits of the token at each place."""

    module_class = FlaxBertForMaskedLMModule


class FlaxBertForCausalLM(_WithTokenHead):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""

    module_class = FlaxBertForCausalLMModule


class FlaxBertForNextSentencePrediction(FlaxBertPreTrainedModel):
    """BERT with logits of whether one text follows another."""

    module_class = FlaxBertForNextSentencePredictionModule


class FlaxBertForSequenceClassification(FlaxBertPreTrainedModel):
    """BERT with logits, or numbers, for the whole input."""

    module_class = FlaxBertForSequenceClassificationModule


class FlaxBertForTokenClassification(FlaxBertPreTrainedModel):
    """BERT with logits for each token."""

    module_class = FlaxBertForTokenClassificationModule


class FlaxBertForQuestionAnswering(FlaxBertPreTrainedModel):
    """BERT with logits of where in the text an answer starts and ends."""

    module_class = FlaxBertForQuestionAnsweringModule


class FlaxBertForMultipleChoice(FlaxBertPreTrainedModel):
    """BERT with a logit for each of several continuations."""

    module_class = FlaxBertForMultipleChoiceModule
