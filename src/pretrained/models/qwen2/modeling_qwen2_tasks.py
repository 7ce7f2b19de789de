"""Qwen2 with the heads it is fine-tuned with. Inputs that are not described here are those of `Qwen2Model`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...pt import tasks
from .configuration_qwen2 import Qwen2Config
from .modeling_qwen2 import Qwen2Model, Qwen2PreTrainedModel
from .rules import QUESTION_ANSWERING

__all__ = ["Qwen2ForQuestionAnswering", "Qwen2ForSequenceClassification", "Qwen2ForTokenClassification"]


class Qwen2ForSequenceClassification(Qwen2PreTrainedModel):
    """Qwen2 with logits for the whole input, taken at its last token."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> tasks.Output:
        """Logits `(batch, labels)`; what `labels` are is `config.problem_type`, or follows from their dtype."""
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.score(tasks.last_tokens(input_ids, outputs.last_hidden_state, self.config.pad_token_id))
        return tasks.sequence_classification_with_past(
            self.config, outputs, logits, labels, return_dict, num_items_in_batch
        )


class Qwen2ForTokenClassification(Qwen2PreTrainedModel):
    """Qwen2 with logits for each token."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.dropout = nn.Dropout(0.1 if config.classifier_dropout is None else config.classifier_dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.score(self.dropout(outputs.last_hidden_state))
        return tasks.token_classification(self.config, outputs, logits, labels, return_dict)


class Qwen2ForQuestionAnswering(Qwen2PreTrainedModel):
    """Qwen2 with logits of where in the text an answer starts and ends."""

    base_model_prefix = "transformer"
    _rules = QUESTION_ANSWERING

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.transformer = Qwen2Model(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq)` of both ends; a loss if `start_positions` and `end_positions` `(batch,)` are given."""
        outputs = self.transformer(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.qa_outputs(outputs.last_hidden_state)
        return tasks.question_answering(self.config, outputs, logits, start_positions, end_positions, return_dict)
