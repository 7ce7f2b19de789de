"""T5 (arXiv 1910.10683; version 1.1: arXiv 2002.05202) in TensorFlow: the models without a head, and next-token logits.

Blocks are in modeling_tf_t5_layers, other heads in modeling_tf_t5_tasks. Modules and parameters have the names and
layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf import losses, masks
from ...tf.kinds import Normal
from ...tf.kv_cache import KVCache, Writing, num_keys, swapped
from ...tf.layers import Embedding, Linear, Module, folded, shape_of
from ...tf.modeling import TFPreTrainedModel
from ...tf.outputs import (
    TFBaseModelOutput,
    TFBaseModelOutputWithPastAndCrossAttentions,
    TFCausalLMOutputWithCrossAttentions,
    TFSeq2SeqLMOutput,
    TFSeq2SeqModelOutput,
)
from ...tf.seq2seq import TFSeq2SeqMixin, encoder_states, shifted_for
from .configuration_t5 import T5Config
from .modeling_tf_t5_layers import TFT5Stack

__all__ = [
    "TFT5EncoderDecoderModule",
    "TFT5EncoderModel",
    "TFT5EncoderModule",
    "TFT5ForConditionalGeneration",
    "TFT5ForConditionalGenerationModule",
    "TFT5Model",
    "TFT5Module",
    "TFT5PreTrainedModel",
    "has_embeds",
    "without_states",
]

Tensor: TypeAlias = tf.Tensor


class _WithEncoder(Module):
    """What all T5 models have: word embeddings and the encoder."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        init = Normal(config.initializer_factor)
        self.shared = Embedding(config.vocab_size, config.d_model, init=init, dtype=config.compute_dtype)
        self.encoder = TFT5Stack(config)

    @property
    def computes_in(self) -> Any:
        """The dtype of hidden states."""
        return self.config.compute_dtype or self.shared.weight.dtype

    def embed(self, ids: Any, embeds: Tensor | None, prefix: str = "") -> Tensor:
        """`(batch, seq, hidden)` of one of both."""
        if (ids is None) == (embeds is None):
            raise ValueError(f"give either {prefix}input_ids or {prefix}inputs_embeds")
        return self.shared(ids) if embeds is None else tf.cast(embeds, self.computes_in)

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutput:
        """Hidden states `(batch, seq, hidden)` of the encoder.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, seq)`, 1 for tokens and 0 for padding.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` in place of `input_ids`.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            rng: a seed for dropout.
        """
        passed = self.encoder(
            self.embed(input_ids, inputs_embeds),
            mask=masks.bidirectional(attention_mask),
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            rng=folded(rng, 0),
        )
        return TFBaseModelOutput(
            last_hidden_state=passed.last, hidden_states=passed.states, attentions=passed.attentions
        )


class TFT5EncoderModule(_WithEncoder):
    """The encoder alone; its call is `encode`."""

    call = _WithEncoder.encode


class TFT5EncoderDecoderModule(_WithEncoder):
    """The encoder and the decoder, and how they work together; what is made of their states is for a subclass."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.decoder = TFT5Stack(config, is_decoder=True)

    def decode_states(
        self,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutputWithPastAndCrossAttentions:
        """Hidden states `(batch, decoder seq, hidden)` of the decoder.

        Args:
            decoder_input_ids: `(batch, decoder seq)`; or give `decoder_inputs_embeds`.
            encoder_outputs: what `encode` gave, as an object or a tuple; a cache that has seen them is enough.
            encoder_attention_mask: `(batch, seq)` for these.
            decoder_attention_mask: `(batch, past + decoder seq)`.
            past_key_values: what `init_cache` gave, or a call before.
            decoder_head_mask: as `head_mask`, for the decoder. cross_attn_head_mask: for its attention to the encoder.
            decoder_inputs_embeds: `(batch, decoder seq, hidden)` in place of `decoder_input_ids`.
            output_attentions, output_hidden_states, rng: as `encode` has them.
        """
        embeddings = self.embed(decoder_input_ids, decoder_inputs_embeds, "decoder_")
        cache = None if past_key_values is None else Writing(past_key_values)
        num_new, start = shape_of(embeddings)[1], 0 if cache is None else cache.start
        passed = self.decoder(
            embeddings,
            cross_attn_head_mask,
            cache,
            mask=masks.causal(decoder_attention_mask, num_new, num_keys(cache, num_new), start),
            head_mask=decoder_head_mask,
            encoder_hidden_states=encoder_states(encoder_outputs),
            encoder_mask=masks.bidirectional(encoder_attention_mask),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            rng=folded(rng, 1),
        )
        return TFBaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=passed.last,
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=passed.states,
            attentions=passed.attentions,
            cross_attentions=passed.crossed,
        )

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> KVCache:
        """A cache of the decoder, with keys and values of the encoder's output if there is one."""
        own = [block.layer[0].SelfAttention for block in self.decoder.block]
        shapes = [(batch_size, len(layer.kept), max_length, self.config.d_kv) for layer in own]
        states = encoder_states(encoder_outputs)
        if states is None:
            return KVCache.of_shapes(shapes, self.computes_in)
        states = tf.cast(states, self.computes_in)
        crossed = (block.layer[1].EncDecAttention for block in self.decoder.block)
        cross = tuple(swapped(layer.keys_and_values(states)) for layer in crossed)
        return KVCache.of_shapes(shapes, self.computes_in, cross)

    def run(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFSeq2SeqModelOutput:
        """Hidden states `(batch, decoder seq, hidden)`; inputs are those of `encode` and `decode_states`.

        `encoder_outputs` may be given in place of what the encoder is given.
        """
        asked: dict[str, Any] = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            encoder_outputs = self.encode(input_ids, attention_mask, head_mask, inputs_embeds, rng=rng, **asked)
        elif isinstance(encoder_outputs, (tuple, list)):
            encoder_outputs = TFBaseModelOutput(*encoder_outputs[:3])
        outputs = self.decode_states(
            decoder_input_ids,
            encoder_outputs,
            attention_mask,
            decoder_attention_mask,
            past_key_values,
            decoder_head_mask,
            cross_attn_head_mask,
            decoder_inputs_embeds,
            rng=rng,
            **asked,
        )
        return TFSeq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=encoder_states(encoder_outputs),
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
        )


class TFT5Module(TFT5EncoderDecoderModule):
    """The encoder and the decoder without a head: its call is `run`, and `decode` gives states."""

    call = TFT5EncoderDecoderModule.run
    decode = TFT5EncoderDecoderModule.decode_states


def without_states(outputs: Any) -> dict[str, Any]:
    """The fields of an output but for the states that a head has made something of."""
    return {name: value for name, value in outputs.items() if name != "last_hidden_state"}


def has_embeds(inputs: Mapping[str, Any]) -> bool:
    """Whether the decoder is given vectors in place of tokens."""
    return inputs.get("decoder_inputs_embeds") is not None


class TFT5ForConditionalGenerationModule(TFT5EncoderDecoderModule):
    """T5 with next-token logits. Where the head is tied to the word embeddings it has no weight of its own."""

    inputs_like = TFT5Module
    generates = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        init, is_tied = Normal(config.initializer_factor), config.tie_word_embeddings
        self.lm_head = None if is_tied else Linear(config.d_model, config.vocab_size, bias=False, init=init)

    def logits(self, states: Tensor) -> Tensor:
        """`(batch, seq, vocab)`."""
        if self.lm_head is not None:
            return self.lm_head(states)
        # Word embeddings are of size 1 where logits want rows of size 1 / sqrt(hidden).
        return self.shared.attend(states * self.config.d_model**-0.5)

    def decode(
        self, decoder_input_ids: Tensor | None = None, encoder_outputs: Any = None, **inputs: Any
    ) -> TFCausalLMOutputWithCrossAttentions:
        """Logits `(batch, decoder seq, vocab)`."""
        outputs = self.decode_states(decoder_input_ids, encoder_outputs, **inputs)
        logits = self.logits(outputs.last_hidden_state)
        return TFCausalLMOutputWithCrossAttentions(logits=logits, **without_states(outputs))

    def call(
        self, input_ids: Tensor | None = None, *, labels: Tensor | None = None, **inputs: Any
    ) -> TFSeq2SeqLMOutput:
        """Logits `(batch, decoder seq, vocab)`.

        With `labels` `(batch, decoder seq)`, what the decoder is to say and -100 where that does not count, the loss;
        its inputs follow from them.
        """
        if labels is not None and inputs.get("decoder_input_ids") is None and not has_embeds(inputs):
            inputs["decoder_input_ids"] = shifted_for(self.config, labels)
        outputs = self.run(input_ids, **inputs)
        logits = self.logits(outputs.last_hidden_state)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFSeq2SeqLMOutput(loss=loss, logits=logits, **without_states(outputs))


class TFT5PreTrainedModel(TFPreTrainedModel):
    """Base of all T5 models in TensorFlow."""

    config: T5Config
    config_class = T5Config
    base_model_prefix = "transformer"
    # The first release had a bias here too, which nothing used.
    _keys_to_ignore_on_load_unexpected = [r"EncDecAttention\.relative_attention_bias\.weight$"]
    _always_tied_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }
    _input_embeddings = "shared.weight"
    _keras_main_layer = ""
    _keras_shared = {"shared.weight": ("encoder", "decoder")}


class TFT5Model(TFSeq2SeqMixin, TFT5PreTrainedModel):
    """The encoder and the decoder."""

    module_class = TFT5Module


class TFT5EncoderModel(TFT5PreTrainedModel):
    """The encoder alone."""

    module_class = TFT5EncoderModule
    _always_tied_keys = {"encoder.embed_tokens.weight": "shared.weight"}
    _keras_shared = {"shared.weight": ("encoder",)}
    _keys_to_ignore_on_load_unexpected = [r"^(transformer\.)?decoder\."]


class TFT5ForConditionalGeneration(TFSeq2SeqMixin, TFT5PreTrainedModel):
    """T5 with next-token logits of the decoder."""

    module_class = TFT5ForConditionalGenerationModule
    _tied_weights_keys = {"lm_head.weight": "shared.weight"}
    _output_embeddings = "lm_head.weight"
