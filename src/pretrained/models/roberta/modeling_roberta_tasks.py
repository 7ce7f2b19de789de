"""RoBERTa with the heads it is fine-tuned with. Inputs that are not described here are those of `RobertaModel`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...pt import tasks
from .configuration_roberta import RobertaConfig
from .modeling_roberta import RobertaModel, RobertaPreTrainedModel

__all__ = [
    "RobertaForMultipleChoice",
    "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
]


class RobertaClassificationHead(nn.Module):
    """Logits for the whole input, from its first token."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(tasks.classifier_dropout(config))
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, labels)` of `(batch, seq, hidden)`."""
        summary = torch.tanh(self.dense(self.dropout(hidden_states[:, 0])))
        return self.out_proj(self.dropout(summary))


class RobertaForSequenceClassification(RobertaPreTrainedModel):
    """RoBERTa with logits, or numbers, for the whole input."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = RobertaClassificationHead(config)
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
        """Logits `(batch, labels)`. What `labels` are is `config.problem_type`, or follows from their dtype."""
        outputs = self.roberta(
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
        logits = self.classifier(outputs.last_hidden_state)
        return tasks.sequence_classification(self.config, outputs, logits, labels, return_dict)


class RobertaForTokenClassification(RobertaPreTrainedModel):
    """RoBERTa with logits for each token."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(tasks.classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
        """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.roberta(
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
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        return tasks.token_classification(self.config, outputs, logits, labels, return_dict)


class RobertaForQuestionAnswering(RobertaPreTrainedModel):
    """RoBERTa with logits of where in the text an answer starts and ends."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        tasks.check_two_labels(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, config.num_labels)
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
    ) -> tasks.Output:
        """Logits `(batch, seq)` of both ends; a loss if `start_positions` and `end_positions` `(batch,)` are given."""
        outputs = self.roberta(
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
        logits = self.qa_outputs(outputs.last_hidden_state)
        return tasks.question_answering(self.config, outputs, logits, start_positions, end_positions, return_dict)


class RobertaForMultipleChoice(RobertaPreTrainedModel):
    """RoBERTa with a logit for each of several continuations."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: `input_ids` of shape `(3, 2, 5)`."""
        return tasks.with_choices(super().dummy_inputs)

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
        """Logits `(batch, choices)` of inputs `(batch, choices, seq)`; `labels` `(batch,)` are the right choices."""
        choices = tasks.num_choices(input_ids, inputs_embeds)
        input_ids, attention_mask, inputs_embeds = tasks.flat_choices(input_ids, attention_mask, inputs_embeds)
        token_type_ids, position_ids = tasks.flat_choices(token_type_ids, position_ids)
        outputs = self.roberta(
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
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        return tasks.multiple_choice(self.config, outputs, logits, labels, return_dict)
