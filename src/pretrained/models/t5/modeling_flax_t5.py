"""T5 (arXiv 1910.10683; version 1.1: arXiv 2002.05202) in JAX: the models without a head, and next-token logits.

Blocks are in modeling_flax_t5_layers, other heads in modeling_flax_t5_tasks. Modules and parameters have the names and
layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden.
"""

from __future__ import annotations

from typing import Any

import jax

from ...flax import masks
from ...flax.kinds import Normal
from ...flax.kv_cache import KVCache, Writing, num_keys
from ...flax.layers import Embedding, Linear, Module, folded
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from ...flax.outputs import (
    FlaxBaseModelOutput,
    FlaxBaseModelOutputWithPastAndCrossAttentions,
    FlaxCausalLMOutputWithCrossAttentions,
    FlaxSeq2SeqLMOutput,
    FlaxSeq2SeqModelOutput,
)
from ...flax.seq2seq import FlaxSeq2SeqMixin, encoder_states, shift_tokens_right
from .configuration_t5 import T5Config
from .modeling_flax_t5_layers import FlaxT5Stack

__all__ = [
    "FlaxT5EncoderDecoderModule",
    "FlaxT5EncoderModel",
    "FlaxT5EncoderModule",
    "FlaxT5ForConditionalGeneration",
    "FlaxT5ForConditionalGenerationModule",
    "FlaxT5Model",
    "FlaxT5Module",
    "FlaxT5PreTrainedModel",
    "shift_tokens_right",
    "without_states",
]

Array = jax.Array


class _WithEncoder(Module):
    """What all T5 models have: word embeddings and the encoder."""

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        init = Normal(config.initializer_factor)
        self.shared = Embedding(config.vocab_size, config.d_model, init=init, dtype=config.compute_dtype)
        self.encoder = FlaxT5Stack(config)

    @property
    def dtype(self) -> Any:
        """What is computed in."""
        return self.config.compute_dtype or self.shared.weight[...].dtype

    def embed(self, ids: Any, embeds: Array | None, prefix: str = "") -> Array:
        """`(batch, seq, hidden)` of one of both."""
        if (ids is None) == (embeds is None):
            raise ValueError(f"give either {prefix}input_ids or {prefix}inputs_embeds")
        return self.shared(ids) if embeds is None else embeds.astype(self.dtype)

    def encode(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Array | None = None,
    ) -> FlaxBaseModelOutput:
        """Hidden states `(batch, seq, hidden)` of the encoder.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, seq)`, 1 for tokens and 0 for padding.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` in place of `input_ids`.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            rng: a key for dropout.
        """
        passed = self.encoder(
            self.embed(input_ids, inputs_embeds),
            mask=masks.bidirectional(attention_mask),
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            rng=folded(rng, 0),
        )
        return FlaxBaseModelOutput(
            last_hidden_state=passed.last, hidden_states=passed.states, attentions=passed.attentions
        )


class FlaxT5EncoderModule(_WithEncoder):
    """The encoder alone; its call is `encode`."""

    __call__ = _WithEncoder.encode


class FlaxT5EncoderDecoderModule(_WithEncoder):
    """The encoder and the decoder, and how they work together; what is made of their states is for a subclass."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.decoder = FlaxT5Stack(config, is_decoder=True)

    def decode_states(
        self,
        decoder_input_ids: Array | None = None,
        encoder_outputs: Any = None,
        encoder_attention_mask: Array | None = None,
        decoder_attention_mask: Array | None = None,
        past_key_values: KVCache | None = None,
        decoder_head_mask: Array | None = None,
        cross_attn_head_mask: Array | None = None,
        decoder_inputs_embeds: Array | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Array | None = None,
    ) -> FlaxBaseModelOutputWithPastAndCrossAttentions:
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
        num_new, start = embeddings.shape[1], 0 if cache is None else cache.start
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
        return FlaxBaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=passed.last,
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=passed.states,
            attentions=passed.attentions,
            cross_attentions=passed.crossed,
        )

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> KVCache:
        """A cache of the decoder, with keys and values of the encoder's output if there is one."""
        own = [block.layer[0].SelfAttention for block in self.decoder.block]
        shapes = [(batch_size, max_length, len(layer.kept), self.config.d_kv) for layer in own]
        states = encoder_states(encoder_outputs)
        if states is None:
            return KVCache.of_shapes(shapes, self.dtype)
        states = states.astype(self.dtype)
        crossed = (block.layer[1].EncDecAttention for block in self.decoder.block)
        return KVCache.of_shapes(shapes, self.dtype, tuple(layer.keys_and_values(states) for layer in crossed))

    def run(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        decoder_input_ids: Array | None = None,
        decoder_attention_mask: Array | None = None,
        head_mask: Array | None = None,
        decoder_head_mask: Array | None = None,
        cross_attn_head_mask: Array | None = None,
        encoder_outputs: Any = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Array | None = None,
        decoder_inputs_embeds: Array | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Array | None = None,
    ) -> FlaxSeq2SeqModelOutput:
        """Hidden states `(batch, decoder seq, hidden)`; inputs are those of `encode` and `decode_states`.

        `encoder_outputs` may be given in place of what the encoder is given.
        """
        asked: dict[str, Any] = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            encoder_outputs = self.encode(input_ids, attention_mask, head_mask, inputs_embeds, rng=rng, **asked)
        elif isinstance(encoder_outputs, (tuple, list)):
            encoder_outputs = FlaxBaseModelOutput(*encoder_outputs[:3])
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
        return FlaxSeq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=encoder_states(encoder_outputs),
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
        )


class FlaxT5Module(FlaxT5EncoderDecoderModule):
    """The encoder and the decoder without a head: its call is `run`, and `decode` gives states."""

    __call__ = FlaxT5EncoderDecoderModule.run
    decode = FlaxT5EncoderDecoderModule.decode_states


def without_states(outputs: Any) -> dict[str, Any]:
    """The fields of an output but for the states that a head has made something of."""
    return {name: value for name, value in outputs.items() if name != "last_hidden_state"}


class FlaxT5ForConditionalGenerationModule(FlaxT5EncoderDecoderModule):
    """T5 with next-token logits. Where the head is tied to the word embeddings it has no weight of its own."""

    inputs_like = FlaxT5Module
    generates = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        init, is_tied = Normal(config.initializer_factor), config.tie_word_embeddings
        self.lm_head = None if is_tied else Linear(config.d_model, config.vocab_size, bias=False, init=init)

    def logits(self, states: Array) -> Array:
        """`(batch, seq, vocab)`."""
        if self.lm_head is not None:
            return self.lm_head(states)
        # Word embeddings are of size 1 where logits want rows of size 1 / sqrt(hidden).
        return self.shared.attend(states * self.config.d_model**-0.5)

    def decode(
        self, decoder_input_ids: Array | None = None, encoder_outputs: Any = None, **inputs: Any
    ) -> FlaxCausalLMOutputWithCrossAttentions:
        """Logits `(batch, decoder seq, vocab)`."""
        outputs = self.decode_states(decoder_input_ids, encoder_outputs, **inputs)
        logits = self.logits(outputs.last_hidden_state)
        return FlaxCausalLMOutputWithCrossAttentions(logits=logits, **without_states(outputs))

    def __call__(self, input_ids: Array | None = None, **inputs: Any) -> FlaxSeq2SeqLMOutput:
        """Logits `(batch, decoder seq, vocab)`."""
        outputs = self.run(input_ids, **inputs)
        return FlaxSeq2SeqLMOutput(logits=self.logits(outputs.last_hidden_state), **without_states(outputs))


class FlaxT5PreTrainedModel(FlaxPreTrainedModel):
    """Base of all T5 models in JAX."""

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
    _sharding_rules = {
        r"(shared|lm_head)\.weight": ("model", None),
        r"\.(q|k|v|wi|wi_0|wi_1)\.weight": ("model", None),
        r"\.(o|wo)\.weight": (None, "model"),
    }


class FlaxT5Model(FlaxSeq2SeqMixin, FlaxT5PreTrainedModel):
    """The encoder and the decoder."""

    module_class = FlaxT5Module


class FlaxT5EncoderModel(FlaxT5PreTrainedModel):
    """The encoder alone."""

    module_class = FlaxT5EncoderModule
    _always_tied_keys = {"encoder.embed_tokens.weight": "shared.weight"}
    _keys_to_ignore_on_load_unexpected = [r"^(transformer\.)?decoder\."]


class FlaxT5ForConditionalGeneration(FlaxSeq2SeqMixin, FlaxT5PreTrainedModel):
    """T5 with next-token logits of the decoder."""

    module_class = FlaxT5ForConditionalGenerationModule
    _tied_weights_keys = {"lm_head.weight": "shared.weight"}
    _output_embeddings = "lm_head.weight"
