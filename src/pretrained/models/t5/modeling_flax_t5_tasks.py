"""T5 in JAX with the heads it is fine-tuned with. Inputs that are not described here are those of `FlaxT5Module`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...flax.kinds import Normal
from ...flax.layers import Linear, Module, dropout, folded
from ...flax.module_config import ModuleConfig
from ...flax.outputs import (
    FlaxSeq2SeqQuestionAnsweringModelOutput,
    FlaxSeq2SeqSequenceClassifierOutput,
    FlaxTokenClassifierOutput,
)
from ...flax.seq2seq import shifted_for
from ...flax.tasks import check_two_labels
from .modeling_flax_t5 import (
    FlaxT5EncoderDecoderModule,
    FlaxT5EncoderModel,
    FlaxT5EncoderModule,
    FlaxT5Module,
    FlaxT5PreTrainedModel,
    without_states,
)

__all__ = ["FlaxT5ForQuestionAnswering", "FlaxT5ForSequenceClassification", "FlaxT5ForTokenClassification"]

Array = jax.Array


class FlaxT5ClassificationHead(Module):
    """Logits of one state for a whole text."""

    def __init__(self, config: ModuleConfig) -> None:
        self.rate, init = config.classifier_dropout, Normal(config.initializer_factor * config.d_model**-0.5)
        self.dense = Linear(config.d_model, config.d_model, init=init)
        self.out_proj = Linear(config.d_model, config.num_labels, init=init)

    def __call__(self, hidden_states: Array, rng: Array | None = None) -> Array:
        """`(batch, labels)` of `(batch, hidden)`."""
        inner = jnp.tanh(self.dense(dropout(hidden_states, self.rate, rng, 0)))
        return self.out_proj(dropout(inner, self.rate, rng, 1))


class FlaxT5ForSequenceClassificationModule(Module):
    """T5 with logits for the whole input, taken where the decoder, given the same text, comes to its end."""

    inputs_like = FlaxT5Module

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.transformer = FlaxT5Module(config)
        self.classification_head = FlaxT5ClassificationHead(config)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        decoder_input_ids: Array | None = None,
        rng: Array | None = None,
        **inputs: Any,
    ) -> FlaxSeq2SeqSequenceClassifierOutput:
        """Logits `(batch, labels)`; NaN for a text without its end.

        `input_ids` are needed: they say where each text ends. The decoder gets them too, unless it is given others.
        """
        if input_ids is None:
            raise ValueError("give input_ids: they say where each text ends")
        if decoder_input_ids is None and inputs.get("decoder_inputs_embeds") is None:
            decoder_input_ids = shifted_for(self.config, input_ids)
        ids = input_ids if inputs.get("inputs_embeds") is None else None
        outputs = self.transformer(ids, attention_mask, decoder_input_ids, rng=rng, **inputs)
        is_end = jnp.isin(input_ids, jnp.asarray(self.config.eos_token_id))
        last = (jnp.arange(input_ids.shape[1]) * is_end).argmax(-1)
        states = jnp.take_along_axis(outputs.last_hidden_state, last[:, None, None], 1)[:, 0]
        logits = self.classification_head(states, folded(rng, 2))
        # A compiled program cannot raise; a number that looks like an answer would be worse.
        logits = jnp.where(is_end.any(-1, keepdims=True), logits, jnp.nan)
        return FlaxSeq2SeqSequenceClassifierOutput(logits=logits, **without_states(outputs))


class FlaxT5ForTokenClassificationModule(Module):
    """T5's encoder with logits for each token."""

    inputs_like = FlaxT5EncoderModule

    def __init__(self, config: ModuleConfig) -> None:
        self.rate = config.classifier_dropout
        self.transformer = FlaxT5EncoderModule(config)
        self.classifier = Linear(config.d_model, config.num_labels, init=Normal(config.initializer_factor))

    def __call__(
        self, input_ids: Array | None = None, rng: Array | None = None, **inputs: Any
    ) -> FlaxTokenClassifierOutput:
        """Logits `(batch, seq, labels)`."""
        outputs = self.transformer(input_ids, rng=rng, **inputs)
        logits = self.classifier(dropout(outputs.last_hidden_state, self.rate, folded(rng, 2)))
        return FlaxTokenClassifierOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FlaxT5ForQuestionAnsweringModule(FlaxT5EncoderDecoderModule):
    """T5 with logits of where in the text an answer starts and ends; the decoder is given the text again."""

    inputs_like = FlaxT5Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        check_two_labels(config)
        init = Normal(config.initializer_factor * config.d_model**-0.5)
        self.qa_outputs = Linear(config.d_model, config.num_labels, init=init)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        decoder_input_ids: Array | None = None,
        **inputs: Any,
    ) -> FlaxSeq2SeqQuestionAnsweringModelOutput:
        """Logits `(batch, seq)` of both ends."""
        if decoder_input_ids is None and inputs.get("decoder_inputs_embeds") is None:
            if input_ids is None:
                raise ValueError("give input_ids, or decoder_input_ids, or decoder_inputs_embeds")
            decoder_input_ids = shifted_for(self.config, input_ids)
        outputs = self.run(input_ids, attention_mask, decoder_input_ids, **inputs)
        logits = self.qa_outputs(outputs.last_hidden_state)
        return FlaxSeq2SeqQuestionAnsweringModelOutput(
            start_logits=logits[..., 0], end_logits=logits[..., 1], **without_states(outputs)
        )


class FlaxT5ForSequenceClassification(FlaxT5PreTrainedModel):
    """T5 with logits for the whole input, taken where the decoder, given the same text, comes to its end."""

    module_class = FlaxT5ForSequenceClassificationModule
    _always_tied_keys = {
        "transformer.encoder.embed_tokens.weight": "transformer.shared.weight",
        "transformer.decoder.embed_tokens.weight": "transformer.shared.weight",
    }
    _input_embeddings = "transformer.shared.weight"


class FlaxT5ForTokenClassification(FlaxT5PreTrainedModel):
    """T5's encoder with logits for each token."""

    module_class = FlaxT5ForTokenClassificationModule
    _keys_to_ignore_on_load_unexpected = FlaxT5EncoderModel._keys_to_ignore_on_load_unexpected
    _always_tied_keys = {"transformer.encoder.embed_tokens.weight": "transformer.shared.weight"}
    _input_embeddings = "transformer.shared.weight"


class FlaxT5ForQuestionAnswering(FlaxT5PreTrainedModel):
    """T5 with logits of where in the text an answer starts and ends; the decoder is given the text again."""

    module_class = FlaxT5ForQuestionAnsweringModule
