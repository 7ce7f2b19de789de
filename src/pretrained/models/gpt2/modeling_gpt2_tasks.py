"""GPT-2 with the heads it is fine-tuned with. Inputs that are not described here are those of `GPT2Model`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ...pt import losses
from ...pt.outputs import (
    ModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from .configuration_gpt2 import GPT2Config
from .modeling_gpt2 import GPT2Model, GPT2PreTrainedModel

__all__ = ["GPT2ForQuestionAnswering", "GPT2ForSequenceClassification", "GPT2ForTokenClassification"]

Output = ModelOutput | tuple[Any, ...]


class GPT2ForSequenceClassification(GPT2PreTrainedModel):
    """GPT-2 with logits for the whole input, taken at its last token."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.score = nn.Linear(config.n_embd, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, labels)`; what `labels` are is `config.problem_type`, or follows from their dtype."""
        outputs = self.transformer(
            input_ids,
            past_key_values,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        states = outputs.last_hidden_state
        rows = torch.arange(states.shape[0], device=states.device)
        logits = self.score(states[rows, self._last_tokens(input_ids, states)])
        loss = None
        if labels is not None:
            config = self.config
            loss = losses.sequence_classification(logits, labels, config.num_labels, config.problem_type)
        output = SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _last_tokens(self, input_ids: Tensor | None, states: Tensor) -> Tensor | int:
        """Where each row has its last token that is not padding, whichever side that is on; `(batch,)` or -1."""
        padding = self.config.pad_token_id
        if padding is None:
            if states.shape[0] > 1:
                raise ValueError("a batch of several rows needs config.pad_token_id, to find where each row ends")
            return -1
        if input_ids is None:
            warnings.warn("padding cannot be seen in inputs_embeds: the last place of each row is used", stacklevel=2)
            return -1
        places = torch.arange(input_ids.shape[1], device=states.device)
        return (places * torch.ne(input_ids, padding).to(states.device)).argmax(-1)


class GPT2ForTokenClassification(GPT2PreTrainedModel):
    """GPT-2 with logits for each token."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        rates = (config.classifier_dropout, config.hidden_dropout, 0.1)
        self.dropout = nn.Dropout(next(rate for rate in rates if rate is not None))
        self.classifier = nn.Linear(config.n_embd, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.transformer(
            input_ids,
            past_key_values,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
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


class GPT2ForQuestionAnswering(GPT2PreTrainedModel):
    """GPT-2 with logits of where in the text an answer starts and ends."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.qa_outputs = nn.Linear(config.n_embd, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, seq)` of both ends; a loss if `start_positions` and `end_positions` `(batch,)` are given."""
        outputs = self.transformer(
            input_ids,
            None,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.question_answering(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
