"""T5 in TensorFlow with the heads it is fine-tuned with. What inputs are is told by `TFT5Module`."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf import losses
from ...tf.headed import asked
from ...tf.kinds import Normal
from ...tf.layers import Linear, Module, dropout, folded, shape_of
from ...tf.outputs import (
    TFSeq2SeqQuestionAnsweringModelOutput,
    TFSeq2SeqSequenceClassifierOutput,
    TFTokenClassifierOutput,
)
from ...tf.seq2seq import shifted_for
from ...tf.tasks import check_two_labels
from .modeling_tf_t5 import (
    TFT5EncoderDecoderModule,
    TFT5EncoderModel,
    TFT5EncoderModule,
    TFT5Module,
    TFT5PreTrainedModel,
    has_embeds,
    without_states,
)

__all__ = ["TFT5ForQuestionAnswering", "TFT5ForSequenceClassification", "TFT5ForTokenClassification"]

Tensor: TypeAlias = tf.Tensor


class TFT5ClassificationHead(Module):
    """Logits of one state for a whole text."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.rate, init = config.classifier_dropout, Normal(config.initializer_factor * config.d_model**-0.5)
        self.dense = Linear(config.d_model, config.d_model, init=init)
        self.out_proj = Linear(config.d_model, config.num_labels, init=init)

    def call(self, hidden_states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, labels)` of `(batch, hidden)`."""
        inner = tf.tanh(self.dense(dropout(hidden_states, self.rate, rng, 0)))
        return self.out_proj(dropout(inner, self.rate, rng, 1))


class TFT5ForSequenceClassificationModule(Module):
    """T5 with logits for the whole input, taken where the decoder, given the same text, comes to its end."""

    inputs_like = TFT5Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = TFT5Module(config)
        self.classification_head = TFT5ClassificationHead(config)

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFSeq2SeqSequenceClassifierOutput:
        """Logits `(batch, labels)`; with `labels` `(batch,)`, or as many numbers as logits, the loss.

        `input_ids` are needed: they say where each text ends. The decoder gets them too, unless it is given others.

        Raises:
            ValueError: there are none, or a text has no end; in a graph its logits are NaN.
        """
        if input_ids is None:
            raise ValueError("give input_ids: they say where each text ends")
        if decoder_input_ids is None and not has_embeds(inputs):
            decoder_input_ids = shifted_for(self.config, input_ids)
        ids = input_ids if inputs.get("inputs_embeds") is None else None
        outputs = self.transformer(ids, attention_mask, decoder_input_ids, rng=rng, **inputs)
        ends = tf.reshape(tf.constant(self.config.eos_token_id, input_ids.dtype), (-1,))
        is_end = tf.reduce_any(input_ids[..., None] == ends, -1)
        last = tf.argmax(tf.range(shape_of(input_ids)[1]) * tf.cast(is_end, tf.int32), -1)
        states = tf.gather(outputs.last_hidden_state, last, axis=1, batch_dims=1)
        logits = self.classification_head(states, folded(rng, 2))
        has_end = tf.reduce_any(is_end, -1, keepdims=True)
        if tf.executing_eagerly() and not tf.reduce_all(has_end):
            token = self.config.eos_token_id
            raise ValueError(f"every row of input_ids needs the end-of-text token, config.eos_token_id={token}")
        # A graph cannot raise; a number that looks like an answer would be worse.
        logits = tf.where(has_end, logits, tf.constant(math.nan, logits.dtype))
        loss = None if labels is None else losses.sequence_classification(self.config, logits, labels)
        return TFSeq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **without_states(outputs))


class TFT5ForTokenClassificationModule(Module):
    """T5's encoder with logits for each token."""

    inputs_like = TFT5EncoderModule

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.rate = config.classifier_dropout
        self.transformer = TFT5EncoderModule(config)
        self.classifier = Linear(config.d_model, config.num_labels, init=Normal(config.initializer_factor))

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFTokenClassifierOutput:
        """Logits `(batch, seq, labels)`; with `labels` `(batch, seq)` the loss."""
        outputs = self.transformer(input_ids, rng=rng, **inputs)
        logits = self.classifier(dropout(outputs.last_hidden_state, self.rate, folded(rng, 2)))
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFTokenClassifierOutput(loss=loss, logits=logits, **asked(outputs))


class TFT5ForQuestionAnsweringModule(TFT5EncoderDecoderModule):
    """T5 with logits of where in the text an answer starts and ends; the decoder is given the text again."""

    inputs_like = TFT5Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        check_two_labels(config)
        init = Normal(config.initializer_factor * config.d_model**-0.5)
        self.qa_outputs = Linear(config.d_model, config.num_labels, init=init)

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Any,
    ) -> TFSeq2SeqQuestionAnsweringModelOutput:
        """Logits `(batch, seq)` of both ends; with both positions `(batch,)` the loss."""
        if decoder_input_ids is None and not has_embeds(inputs):
            if input_ids is None:
                raise ValueError("give input_ids, or decoder_input_ids, or decoder_inputs_embeds")
            decoder_input_ids = shifted_for(self.config, input_ids)
        outputs = self.run(input_ids, attention_mask, decoder_input_ids, **inputs)
        start, end = tf.unstack(self.qa_outputs(outputs.last_hidden_state), axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.question_answering(start, end, start_positions, end_positions)
        return TFSeq2SeqQuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, **without_states(outputs)
        )


class TFT5ForSequenceClassification(TFT5PreTrainedModel):
    """T5 with logits for the whole input, taken where the decoder, given the same text, comes to its end."""

    module_class = TFT5ForSequenceClassificationModule
    _always_tied_keys = {
        "transformer.encoder.embed_tokens.weight": "transformer.shared.weight",
        "transformer.decoder.embed_tokens.weight": "transformer.shared.weight",
    }
    _input_embeddings = "transformer.shared.weight"


class TFT5ForTokenClassification(TFT5PreTrainedModel):
    """T5's encoder with logits for each token."""

    module_class = TFT5ForTokenClassificationModule
    _keys_to_ignore_on_load_unexpected = TFT5EncoderModel._keys_to_ignore_on_load_unexpected
    _always_tied_keys = {"transformer.encoder.embed_tokens.weight": "transformer.shared.weight"}
    _input_embeddings = "transformer.shared.weight"


class TFT5ForQuestionAnswering(TFT5PreTrainedModel):
    """T5 with logits of where in the text an answer starts and ends; the decoder is given the text again."""

    module_class = TFT5ForQuestionAnsweringModule
