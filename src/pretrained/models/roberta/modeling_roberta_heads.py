"""RoBERTa with logits over the vocabulary. Inputs that are not described here are those of `RobertaModel`."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...pt import tasks
from ...pt.generation.mixin import GenerationMixin
from ...pt.layers import keep_places
from ...pt.step_inputs import step_inputs
from .configuration_roberta import RobertaConfig
from .modeling_roberta import RobertaModel, RobertaPreTrainedModel

__all__ = ["RobertaForCausalLM", "RobertaForMaskedLM"]

logger = logging.getLogger(__name__)


class RobertaLMHead(nn.Module):
    """Token logits. The decoder's weight is tied to the word embeddings; its bias is also called `bias`."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder.bias = self.bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, vocab)`; the activation is GELU whatever the blocks have."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(hidden_states))))


class _RobertaWithTokenHead(RobertaPreTrainedModel):
    """The models that have word logits. What is common to them is where these are made."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.lm_head = RobertaLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection, and with it the bias that it shares."""
        self.lm_head.decoder = cast(nn.Linear, new_embeddings)
        self.lm_head.bias = self.lm_head.decoder.bias


class RobertaForMaskedLM(_RobertaWithTokenHead):
    """RoBERTa with logits of the token at each place."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.roberta(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        return tasks.masked_lm(self.config, outputs, self.lm_head(outputs.last_hidden_state), labels, return_dict)


class RobertaForCausalLM(_RobertaWithTokenHead, GenerationMixin):
    """RoBERTa as a decoder with next-token logits; the config should say `is_decoder=True`."""

    loss_type = "ForCausalLM"

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("RobertaForCausalLM without is_decoder=True in its config: every token sees the later ones")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)`; `labels` are the tokens themselves, each is predicted at the place before it.

        `logits_to_keep` is how many of the last places get logits (0: all), or which ones, as a 1-D tensor.
        """
        outputs = self.roberta(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache,
            cache_position=cache_position,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(keep_places(outputs.last_hidden_state, logits_to_keep))
        return tasks.crossed_causal_lm(self.config, outputs, logits, labels, return_dict, num_items_in_batch)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one step of generation: of `input_ids` `(batch, seq)` what the cache does not hold yet.

        Positions are counted from the padding's on, as training has it, along the mask; without one all is text.
        """
        padding, places = cast(int, self.config.pad_token_id), kwargs.get("cache_position")
        if position_ids is None and attention_mask is None and places is not None:
            position_ids = places[None] + padding + 1
        elif position_ids is None and (attention_mask is not None or inputs_embeds is None):
            mask = torch.ones_like(input_ids) if attention_mask is None else (attention_mask != 0).long()
            position_ids = mask.cumsum(-1) * mask + padding
        return step_inputs(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
