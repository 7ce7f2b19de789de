"""T5 with next-token logits. Inputs that are not described here are those of `T5Model`."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from ...pt import losses
from ...pt.generation.mixin import GenerationMixin
from ...pt.kv_cache import as_cache
from ...pt.outputs import Seq2SeqLMOutput
from ...pt.step_inputs import new_ids
from .configuration_t5 import T5Config
from .modeling_t5 import T5EncoderDecoder

__all__ = ["T5ForConditionalGeneration"]


class T5ForConditionalGeneration(T5EncoderDecoder, GenerationMixin):
    """T5 with next-token logits of the decoder."""

    _tied_weights_keys = {**T5EncoderDecoder._tied_weights_keys, "lm_head.weight": "shared.weight"}

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and not self.config.tie_word_embeddings:
            nn.init.normal_(self.lm_head.weight, std=self.config.initializer_factor)

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection onto the vocabulary."""
        self.lm_head = cast(nn.Linear, new_embeddings)

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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Logits `(batch, decoder seq, vocab)`.

        Args:
            labels: `(batch, decoder seq)`, what the decoder is to say; -100 is skipped. Its inputs follow from them.
            num_items_in_batch: the loss is divided by this rather than by the number of labels in the call.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(labels)
        outputs = self.run_stacks(
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
        states = outputs.last_hidden_state
        # Word embeddings are of size 1 where logits want rows of size 1 / sqrt(hidden).
        scale = self.config.d_model**-0.5 if self.config.tie_word_embeddings else 1.0
        logits = self.lm_head(cast(Tensor, states) * scale)
        loss = None if labels is None else losses.cross_entropy(logits, labels, num_items_in_batch)
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        output = Seq2SeqLMOutput(loss=loss, logits=logits, **rest)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder is given to predict `labels` `(batch, seq)`."""
        return self._shift_right(labels)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: Any = None, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The inputs of one step of generation: of the decoder's `input_ids` `(batch, seq)` what the cache does not
        hold yet. What the encoder made, and masks, come in `kwargs` and are passed on."""
        past = 0 if past_key_values is None else as_cache(past_key_values, crossed=True).get_seq_length()
        ids = new_ids(input_ids, past, next_sequence_length)
        return {"decoder_input_ids": ids, "past_key_values": past_key_values, **kwargs}
