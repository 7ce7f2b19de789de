"""BERT in JAX with its heads. Inputs that are not described here are those of `FlaxBertModule`."""

from __future__ import annotations

from typing import Any

import jax

from ...flax import tasks
from ...flax.kinds import ZEROS, Normal
from ...flax.layers import LayerNorm, Linear, Module, activation, dropout, folded, parameter, project
from ...flax.module_config import ModuleConfig
from ...flax.outputs import (
    FlaxCausalLMOutputWithCrossAttentions,
    FlaxForPreTrainingOutput,
    FlaxMaskedLMOutput,
    FlaxMultipleChoiceModelOutput,
    FlaxNextSentencePredictorOutput,
    FlaxQuestionAnsweringModelOutput,
    FlaxSequenceClassifierOutput,
    FlaxTokenClassifierOutput,
)
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


class _Headed(Module):
    """A head's module: its inputs are those of the base."""

    inputs_like = FlaxBertModule
    pooling = False

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.bert = FlaxBertModule(config, add_pooling_layer=self.pooling)

    def token_logits(self, hidden_states: Array) -> Array:
        """`(batch, seq, vocab)`."""
        table = self.bert.embeddings.word_embeddings.weight[...]
        return self.cls.predictions(hidden_states, table)  # type: ignore[attr-defined]


def _asked(outputs: Any) -> dict[str, Any]:
    return {"hidden_states": outputs.hidden_states, "attentions": outputs.attentions}


class FlaxBertForPreTrainingModule(_Headed):
    """BERT with both heads of its training."""

    pooling = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config, pairs=True)

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxForPreTrainingOutput:
        """Logits `(batch, seq, vocab)` and `(batch, 2)`."""
        outputs = self.bert(input_ids, **inputs)
        return FlaxForPreTrainingOutput(
            prediction_logits=self.token_logits(outputs.last_hidden_state),
            seq_relationship_logits=self.cls.seq_relationship(outputs.pooler_output),
            **_asked(outputs),
        )


class FlaxBertForMaskedLMModule(_Headed):
    """BERT with logits of the token at each place."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config)

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxMaskedLMOutput:
        """Logits `(batch, seq, vocab)`."""
        outputs = self.bert(input_ids, **inputs)
        return FlaxMaskedLMOutput(logits=self.token_logits(outputs.last_hidden_state), **_asked(outputs))


class FlaxBertForCausalLMModule(_Headed):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config)

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxCausalLMOutputWithCrossAttentions:
        """Logits `(batch, seq, vocab)`."""
        outputs = self.bert(input_ids, **inputs)
        return FlaxCausalLMOutputWithCrossAttentions(
            logits=self.token_logits(outputs.last_hidden_state),
            past_key_values=outputs.past_key_values,
            cross_attentions=outputs.cross_attentions,
            **_asked(outputs),
        )


class FlaxBertForNextSentencePredictionModule(_Headed):
    """BERT with logits of whether one text follows another."""

    pooling = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.cls = FlaxBertHeads(config, tokens=False, pairs=True)

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxNextSentencePredictorOutput:
        """Logits `(batch, 2)`."""
        outputs = self.bert(input_ids, **inputs)
        logits = self.cls.seq_relationship(outputs.pooler_output)
        return FlaxNextSentencePredictorOutput(logits=logits, **_asked(outputs))


class _Classifying(_Headed):
    """A head that is one linear layer."""

    def __init__(self, config: ModuleConfig, num_labels: int) -> None:
        super().__init__(config)
        self.classifier = Linear(config.hidden_size, num_labels, init=Normal(config.initializer_range))

    def classify(self, states: Array, rng: Array | None) -> Array:
        """`(…, labels)` of `(…, hidden)`."""
        return self.classifier(dropout(states, tasks.classifier_dropout(self.config), folded(rng, 2)))


class FlaxBertForSequenceClassificationModule(_Classifying):
    """BERT with logits, or numbers, for the whole input."""

    pooling = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, config.num_labels)

    def __call__(
        self, input_ids: Array | None = None, rng: Array | None = None, **inputs: Any
    ) -> FlaxSequenceClassifierOutput:
        """Logits `(batch, labels)`."""
        outputs = self.bert(input_ids, rng=rng, **inputs)
        logits = self.classify(outputs.pooler_output, rng)
        return FlaxSequenceClassifierOutput(logits=logits, **_asked(outputs))


class FlaxBertForTokenClassificationModule(_Classifying):
    """BERT with logits for each token."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, config.num_labels)

    def __call__(
        self, input_ids: Array | None = None, rng: Array | None = None, **inputs: Any
    ) -> FlaxTokenClassifierOutput:
        """Logits `(batch, seq, labels)`."""
        outputs = self.bert(input_ids, rng=rng, **inputs)
        logits = self.classify(outputs.last_hidden_state, rng)
        return FlaxTokenClassifierOutput(logits=logits, **_asked(outputs))


class FlaxBertForMultipleChoiceModule(_Classifying):
    """BERT with a logit for each of several continuations."""

    pooling = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, 1)

    def __call__(
        self, input_ids: Array | None = None, rng: Array | None = None, **inputs: Any
    ) -> FlaxMultipleChoiceModelOutput:
        """Logits `(batch, choices)` of inputs `(batch, choices, seq)`."""
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
        choices, flat = tasks.flat_choices({"input_ids": input_ids, **inputs}, *names)
        outputs = self.bert(rng=rng, **flat)
        logits = self.classify(outputs.pooler_output, rng).reshape(-1, choices)
        return FlaxMultipleChoiceModelOutput(logits=logits, **_asked(outputs))


class FlaxBertForQuestionAnsweringModule(_Headed):
    """BERT with logits of where in the text an answer starts and ends."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        tasks.check_two_labels(config)
        self.qa_outputs = Linear(config.hidden_size, config.num_labels, init=Normal(config.initializer_range))

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxQuestionAnsweringModelOutput:
        """Logits `(batch, seq)` of both ends."""
        outputs = self.bert(input_ids, **inputs)
        logits = self.qa_outputs(outputs.last_hidden_state)
        return FlaxQuestionAnsweringModelOutput(
            start_logits=logits[..., 0], end_logits=logits[..., 1], **_asked(outputs)
        )


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
    _generates = True


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
