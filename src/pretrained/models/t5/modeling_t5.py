"""T5 (arXiv 1910.10683; version 1.1: arXiv 2002.05202): the models without a head.

Blocks are in modeling_t5_layers and modeling_t5_stacks, heads in modeling_t5_heads and modeling_t5_tasks. Modules and
parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...pt.outputs import BaseModelOutput, Seq2SeqModelOutput
from .configuration_t5 import T5Config
from .modeling_t5_stacks import T5PreTrainedModel, T5Stack

__all__ = ["T5EncoderDecoder", "T5EncoderModel", "T5Model", "T5PreTrainedModel", "T5Stack"]


class T5EncoderDecoder(T5PreTrainedModel):
    """The models that have both stacks at their top level. What is common to them is how these work together."""

    _tied_weights_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared: nn.Module = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, self.shared)
        self.decoder = T5Stack(config, self.shared, is_decoder=True)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: ids for the encoder and the decoder, each `(3, 5)`."""
        ids = super().dummy_inputs["input_ids"]
        return {"input_ids": ids, "decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings, which both stacks use."""
        return self.shared

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings of both stacks."""
        self.shared = value
        self.encoder.set_input_embeddings(value)
        self.decoder.set_input_embeddings(value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        self.encoder._prune_heads(heads_to_prune)
        self.decoder._prune_heads(heads_to_prune)

    def get_encoder(self) -> T5Stack:
        """The encoder."""
        return self.encoder

    def get_decoder(self) -> T5Stack:
        """The decoder."""
        return self.decoder

    def run_stacks(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor | None,
        decoder_attention_mask: Tensor | None,
        head_mask: Tensor | None,
        decoder_head_mask: Tensor | None,
        cross_attn_head_mask: Tensor | None,
        encoder_outputs: Any,
        past_key_values: Any,
        inputs_embeds: Tensor | None,
        decoder_inputs_embeds: Tensor | None,
        use_cache: bool | None,
        cache_position: Tensor | None = None,
        **wanted: bool | None,
    ) -> Seq2SeqModelOutput:
        """Hidden states of decoder and encoder; inputs as `T5Model.forward` has them."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids,
                attention_mask,
                inputs_embeds=inputs_embeds,
                head_mask=head_mask,
                return_dict=True,
                **wanted,
            )
        elif isinstance(encoder_outputs, tuple | list):
            encoder_outputs = BaseModelOutput(*encoder_outputs[:3])
        outputs = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs.last_hidden_state,
            attention_mask,
            decoder_inputs_embeds,
            decoder_head_mask,
            cross_attn_head_mask,
            past_key_values,
            use_cache,
            return_dict=True,
            cache_position=cache_position,
            **wanted,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class T5Model(T5EncoderDecoder):
    """The encoder and the decoder."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Seq2SeqModelOutput | tuple[Any, ...]:
        """Hidden states `(batch, decoder seq, hidden)`; inputs not described here are those of `T5Stack.forward`.

        Args:
            input_ids: `(batch, seq)` for the encoder; or give `inputs_embeds`, or `encoder_outputs`.
            attention_mask: `(batch, seq)`, which the decoder respects too.
            decoder_input_ids: `(batch, decoder seq)`; or give `decoder_inputs_embeds`.
            decoder_attention_mask: `(batch, past + decoder seq)`.
            decoder_head_mask: as `head_mask`, for the decoder. cross_attn_head_mask: for its attention to the encoder.
            encoder_outputs: what the encoder returned before, as an output object or as a tuple.
        """
        output = self.run_stacks(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            head_mask,
            decoder_head_mask,
            cross_attn_head_mask,
            encoder_outputs,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            cache_position,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class T5EncoderModel(T5PreTrainedModel):
    """The encoder alone."""

    _tied_weights_keys = {"encoder.embed_tokens.weight": "shared.weight"}
    _keys_to_ignore_on_load_unexpected = [r"^(transformer\.)?decoder\."]

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared: nn.Module = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config, self.shared)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.shared

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.shared = value
        self.encoder.set_input_embeddings(value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        self.encoder._prune_heads(heads_to_prune)

    def get_encoder(self) -> T5Stack:
        """The encoder."""
        return self.encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Hidden states `(batch, seq, hidden)`; inputs are those of `T5Stack.forward`."""
        outputs = self.encoder(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        output = BaseModelOutput(**outputs)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
