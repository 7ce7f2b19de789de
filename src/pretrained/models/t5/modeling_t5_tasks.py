"""T5 with the heads it is fine-tuned with. Inputs that are not described here are those of `T5Model`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...pt import losses
from ...pt.outputs import (
    ModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
    TokenClassifierOutput,
)
from .configuration_t5 import T5Config
from .modeling_t5 import T5EncoderDecoder, T5EncoderModel, T5Model, T5PreTrainedModel

__all__ = ["T5ForQuestionAnswering", "T5ForSequenceClassification", "T5ForTokenClassification"]

Output = ModelOutput | tuple[Any, ...]


class T5ClassificationHead(nn.Module):
    """Logits of one state for a whole text."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.d_model, config.num_labels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, labels)` of `(batch, hidden)`."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(hidden_states)))))


class T5ForSequenceClassification(T5PreTrainedModel):
    """T5 with logits for the whole input, taken where the decoder, given the same text, comes to its end."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.transformer = T5Model(config)
        self.classification_head = T5ClassificationHead(config)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: `input_ids` `(3, 6)`, each row with the end of its text."""
        end = self.config.eos_token_id
        last = end if isinstance(end, int) else cast(list[int], end)[0]
        return {"input_ids": nn.functional.pad(super().dummy_inputs["input_ids"], (0, 1), value=last)}

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
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, labels)`; what `labels` are is `config.problem_type`, or follows from their dtype.

        `input_ids` are needed: they say where each text ends. The decoder gets them too, unless it is given others.
        """
        if input_ids is None:
            raise ValueError("give input_ids: they say where each text ends")
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(input_ids)
        outputs = self.transformer(
            input_ids if inputs_embeds is None else None,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            head_mask,
            decoder_head_mask,
            cross_attn_head_mask,
            encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=False if labels is not None else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        states = outputs.last_hidden_state
        rows = torch.arange(states.shape[0], device=states.device)
        logits = self.classification_head(states[rows, self._ends(input_ids).to(states.device)])
        loss = None
        if labels is not None:
            config = self.config
            loss = losses.sequence_classification(logits, labels, config.num_labels, config.problem_type)
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        output = Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **rest)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _ends(self, input_ids: Tensor) -> Tensor:
        """Place of the last end-of-text token of each row, `(batch,)`."""
        token = self.config.eos_token_id
        is_end = torch.isin(input_ids, torch.tensor(token, device=input_ids.device))
        if not torch.compiler.is_compiling() and not bool(is_end.any(-1).all()):
            raise ValueError(f"every row of input_ids needs the end-of-text token, config.eos_token_id={token}")
        return (torch.arange(input_ids.shape[1], device=input_ids.device) * is_end).argmax(-1)


class T5ForTokenClassification(T5PreTrainedModel):
    """T5's encoder with logits for each token."""

    _keys_to_ignore_on_load_unexpected = T5EncoderModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.transformer = T5EncoderModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            nn.init.normal_(self.classifier.weight, std=self.config.initializer_factor)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.transformer(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else losses.token_classification(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class T5ForQuestionAnswering(T5EncoderDecoder):
    """T5 with logits of where in the text an answer starts and ends; the decoder is given the text again."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.d_model, config.num_labels)
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
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, seq)` of both ends; a loss if `start_positions` and `end_positions` `(batch,)` are given."""
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids, or decoder_input_ids, or decoder_inputs_embeds")
            decoder_input_ids = self._shift_right(input_ids)
        has_answer = start_positions is not None and end_positions is not None
        outputs = self.run_stacks(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            head_mask,
            decoder_head_mask,
            cross_attn_head_mask,
            encoder_outputs,
            None,
            inputs_embeds,
            decoder_inputs_embeds,
            False if has_answer else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        start_logits, end_logits = self.qa_outputs(cast(Tensor, outputs.last_hidden_state)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.question_answering(start_logits, end_logits, start_positions, end_positions)
        output = Seq2SeqQuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            **{name: value for name, value in outputs.items() if name != "last_hidden_state"},
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
