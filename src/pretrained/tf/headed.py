"""Modules of the heads that families have in common.

A family's class names its base model's module class, `inputs_like`, and `base_name`, the attribute that it goes by in
checkpoints; where a checkpoint calls the head's layer otherwise, `layer_name`. Inputs are those of the base.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import tensorflow as tf

from ..module_config import ModuleConfig
from . import losses, tasks
from .kinds import Normal
from .layers import Linear, Module, dropout, folded
from .outputs import (
    TFCausalLMOutput,
    TFCausalLMOutputWithCrossAttentions,
    TFMaskedLMOutput,
    TFMultipleChoiceModelOutput,
    TFQuestionAnsweringModelOutput,
    TFSequenceClassifierOutput,
    TFTokenClassifierOutput,
)

__all__ = [
    "CausalLM", "CheckedQuestionAnswering", "CrossedCausalLM", "Headed", "LMHead", "LastTokenClassification",
    "MaskedLM", "MultipleChoice", "QuestionAnswering", "SequenceClassification", "TokenClassification",
    "WithTokenLogits", "asked",
]  # fmt: skip

Tensor: TypeAlias = tf.Tensor


def asked(outputs: Any) -> dict[str, Any]:
    """What every output hands on of the base model's: hidden states and weights, if the caller wanted them."""
    return {"hidden_states": outputs.hidden_states, "attentions": outputs.attentions}


class Headed(Module):
    """A base model with a head on it.

    Attributes:
        inputs_like: module class of the base.
        base_name: what checkpoints call it.
        layer_name: what they call the layer of the head.
        pooling: whether the base has its pooler; None if it has no choice.
    """

    inputs_like: ClassVar[Any]
    base_name: ClassVar[str]
    layer_name: ClassVar[str] = "classifier"
    pooling: ClassVar[bool | None] = None

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        arguments = {} if self.pooling is None else {"add_pooling_layer": self.pooling}
        setattr(self, self.base_name, self.inputs_like(config, **arguments))

    @property
    def base(self) -> Any:
        """The base model's module."""
        return getattr(self, self.base_name)

    def add_layer(self, num_outputs: int, bias: bool = True) -> None:
        """Gives the head its layer, from the hidden size to `num_outputs`."""
        init = Normal(self.config.initializer_range)
        setattr(self, self.layer_name, Linear(self.config.hidden_size, num_outputs, bias, init=init))

    def scored(self, states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(…, outputs)` of `(…, hidden)`, some of which are dropped in training."""
        out: Tensor = getattr(self, self.layer_name)(dropout(states, self.rate, folded(rng, 2)))
        return out

    def summary(self, outputs: Any) -> Tensor:
        """`(batch, hidden)`: what a head for the whole input looks at."""
        pooled: Tensor = outputs.pooler_output
        return pooled

    @property
    def rate(self) -> float:
        """The rate of dropout before the head's layer."""
        return tasks.classifier_dropout(self.config)


class WithTokenLogits(Headed):
    """A head that makes logits over the vocabulary: a part that makes them comes before a task in a class's bases."""

    def logits(self, states: Tensor) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`."""
        raise NotImplementedError(f"{type(self).__name__} has no part that makes logits")


class LMHead(WithTokenLogits):
    """Logits by one layer. Where it is tied to the word embeddings there is no `lm_head`."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        init, is_tied = Normal(config.initializer_range), config.tie_word_embeddings
        self.lm_head = None if is_tied else Linear(config.hidden_size, config.vocab_size, bias=False, init=init)

    def logits(self, states: Tensor) -> Tensor:
        """`(…, vocab)` of `(…, hidden)`."""
        logits: Tensor = self.base.input_embeddings.attend(states) if self.lm_head is None else self.lm_head(states)
        return logits


class MaskedLM(WithTokenLogits):
    """Logits of the token at each place."""

    def call(self, input_ids: Tensor | None = None, *, labels: Tensor | None = None, **inputs: Any) -> TFMaskedLMOutput:
        """Logits `(batch, seq, vocab)`; with `labels` `(batch, seq)`, -100 where nothing is masked, the loss."""
        outputs = self.base(input_ids, **inputs)
        logits = self.logits(outputs.last_hidden_state)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFMaskedLMOutput(loss=loss, logits=logits, **asked(outputs))


class CausalLM(WithTokenLogits):
    """Logits of the next token."""

    generates = True

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **inputs: Any,
    ) -> TFCausalLMOutput:
        """Logits `(batch, seq, vocab)`; only at the last `logits_to_keep` places, or at those in a 1-D tensor.

        With `labels` `(batch, seq)`, which are not shifted, the loss too.
        """
        outputs = self.base(input_ids, **inputs)
        states = tasks.keep_places(outputs.last_hidden_state, logits_to_keep)
        logits = self.logits(states)
        loss = None if labels is None else losses.causal_lm(logits, labels)
        return TFCausalLMOutput(loss=loss, logits=logits, past_key_values=outputs.past_key_values, **asked(outputs))


class CrossedCausalLM(WithTokenLogits):
    """The same of a base that may attend to an encoder."""

    generates = True

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **inputs: Any,
    ) -> TFCausalLMOutputWithCrossAttentions:
        """Logits `(batch, seq, vocab)`; only at the last `logits_to_keep` places, or at those in a 1-D tensor.

        With `labels` `(batch, seq)`, which are not shifted, the loss too.
        """
        outputs = self.base(input_ids, **inputs)
        states = tasks.keep_places(outputs.last_hidden_state, logits_to_keep)
        logits = self.logits(states)
        return TFCausalLMOutputWithCrossAttentions(
            loss=None if labels is None else losses.causal_lm(logits, labels),
            logits=logits,
            past_key_values=outputs.past_key_values,
            cross_attentions=outputs.cross_attentions,
            **asked(outputs),
        )


class SequenceClassification(Headed):
    """Logits for the whole input, from a summary of it."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.add_layer(config.num_labels)

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFSequenceClassifierOutput:
        """Logits `(batch, labels)`; with `labels` `(batch,)`, or as many numbers as logits, the loss."""
        outputs = self.base(input_ids, rng=rng, **inputs)
        logits = self.scored(self.summary(outputs), rng)
        loss = None if labels is None else losses.sequence_classification(self.config, logits, labels)
        return TFSequenceClassifierOutput(loss=loss, logits=logits, **asked(outputs))


class LastTokenClassification(Headed):
    """Logits for the whole input, from its last token."""

    layer_name = "score"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.add_layer(config.num_labels, bias=False)

    @property
    def rate(self) -> float:
        """0: nothing is dropped before the layer."""
        return 0.0

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> TFSequenceClassifierOutput:
        """Logits `(batch, labels)`; with `labels` `(batch,)`, or as many numbers as logits, the loss."""
        outputs = self.base(input_ids, **inputs)
        last = tasks.last_tokens(input_ids, outputs.last_hidden_state, self.config.pad_token_id)
        logits = self.scored(last)
        loss = None if labels is None else losses.sequence_classification(self.config, logits, labels)
        return TFSequenceClassifierOutput(loss=loss, logits=logits, **asked(outputs))


class TokenClassification(Headed):
    """Logits for each token."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.add_layer(config.num_labels)

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFTokenClassifierOutput:
        """Logits `(batch, seq, labels)`; with `labels` `(batch, seq)` the loss."""
        outputs = self.base(input_ids, rng=rng, **inputs)
        logits = self.scored(outputs.last_hidden_state, rng)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFTokenClassifierOutput(loss=loss, logits=logits, **asked(outputs))


class QuestionAnswering(Headed):
    """Logits of where in the text an answer starts and ends."""

    layer_name = "qa_outputs"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.add_layer(2)

    @property
    def rate(self) -> float:
        """0: nothing is dropped before the layer."""
        return 0.0

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFQuestionAnsweringModelOutput:
        """Logits `(batch, seq)` of both ends; with both positions `(batch,)` the loss."""
        outputs = self.base(input_ids, rng=rng, **inputs)
        start, end = tf.unstack(self.scored(outputs.last_hidden_state, rng), axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.question_answering(start, end, start_positions, end_positions)
        return TFQuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end, **asked(outputs))


class CheckedQuestionAnswering(QuestionAnswering):
    """The same where the config has to have two labels."""

    def __init__(self, config: ModuleConfig) -> None:
        tasks.check_two_labels(config)
        super().__init__(config)


class MultipleChoice(Headed):
    """A logit for each of several continuations, from a summary of it."""

    has_choices = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.add_layer(1)

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFMultipleChoiceModelOutput:
        """Logits `(batch, choices)` of inputs `(batch, choices, seq)`; with `labels` `(batch,)` the loss."""
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
        choices, flat = tasks.flat_choices({"input_ids": input_ids, **inputs}, *names)
        outputs = self.base(rng=rng, **flat)
        logits = tf.reshape(self.scored(self.summary(outputs), rng), (-1, choices))
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFMultipleChoiceModelOutput(loss=loss, logits=logits, **asked(outputs))
