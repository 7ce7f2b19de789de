"""BERT with the heads it is trained with. Inputs that are not described here are those of `BertModel`."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...pt import losses, tasks
from ...pt.generation.mixin import GenerationMixin
from ...pt.layers import activation, keep_places
from ...pt.outputs import ForPreTrainingOutput, NextSentencePredictorOutput
from .configuration_bert import BertConfig
from .modeling_bert import BertModel, BertPreTrainedModel

__all__ = [
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertLMHeadModel",
]

logger = logging.getLogger(__name__)


class BertPredictionHeadTransform(nn.Module):
    """Hidden states made ready for the comparison with the word embeddings."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return self.LayerNorm(self.transform_act_fn(self.dense(hidden_states)))


class BertLMPredictionHead(nn.Module):
    """Token logits. The decoder's weight is tied to the word embeddings; its bias is also called `bias`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder.bias = self.bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, vocab)`."""
        return self.decoder(self.transform(hidden_states))


class BertHeads(nn.Module):
    """What stands under `cls` in a checkpoint: the token head, the pair head, or both."""

    def __init__(self, config: BertConfig, tokens: bool = True, pairs: bool = False) -> None:
        super().__init__()
        if tokens:
            self.predictions = BertLMPredictionHead(config)
        if pairs:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


class _BertWithTokenHead(BertPreTrainedModel):
    """The models that have word logits. What is common to them is where these are made."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    cls: BertHeads

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection, and with it the bias that it shares."""
        self.cls.predictions.decoder = cast(nn.Linear, new_embeddings)
        self.cls.predictions.bias = self.cls.predictions.decoder.bias


class BertForPreTraining(_BertWithTokenHead):
    """BERT with both heads of its training: masked tokens, and whether two texts follow one another."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.cls = BertHeads(config, pairs=True)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)` and `(batch, 2)`; a loss if `labels` and `next_sentence_label` are given."""
        outputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls.predictions(outputs.last_hidden_state)
        pair_logits = self.cls.seq_relationship(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = losses.pretraining(logits, pair_logits, labels, next_sentence_label)
        output = ForPreTrainingOutput(
            loss=loss,
            prediction_logits=logits,
            seq_relationship_logits=pair_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return tasks.as_asked(output, self.config, return_dict)


class BertForMaskedLM(_BertWithTokenHead):
    """BERT with logits of the token at each place."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertHeads(config)
        self.post_init()

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
        outputs = self.bert(
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
        logits = self.cls.predictions(outputs.last_hidden_state)
        return tasks.masked_lm(self.config, outputs, logits, labels, return_dict)


class BertLMHeadModel(_BertWithTokenHead, GenerationMixin):
    """BERT as a decoder with next-token logits; the config should say `is_decoder=True`."""

    loss_type = "ForCausalLM"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("BertLMHeadModel without is_decoder=True in its config: every token sees the later ones")
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertHeads(config)
        self.post_init()

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
        outputs = self.bert(
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
        logits = self.cls.predictions(keep_places(outputs.last_hidden_state, logits_to_keep))
        return tasks.crossed_causal_lm(self.config, outputs, logits, labels, return_dict, num_items_in_batch)


class BertForNextSentencePrediction(BertPreTrainedModel):
    """BERT with logits of whether one text follows another."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.cls = BertHeads(config, tokens=False, pairs=True)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, 2)`; `labels` `(batch,)` are 0 where the second text follows the first, and 1 where not."""
        outputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls.seq_relationship(outputs.pooler_output)
        output = NextSentencePredictorOutput(
            loss=None if labels is None else losses.next_sentence(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return tasks.as_asked(output, self.config, return_dict)
