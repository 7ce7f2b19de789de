"""DistilBERT with its heads. Inputs that are not described here are those of `DistilBertModel`."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ...pt import tasks
from ...pt.layers import activation
from .configuration_distilbert import DistilBertConfig
from .modeling_distilbert import EPSILON, DistilBertModel, DistilBertPreTrainedModel

__all__ = [
    "DistilBertForMaskedLM",
    "DistilBertForMultipleChoice",
    "DistilBertForQuestionAnswering",
    "DistilBertForSequenceClassification",
    "DistilBertForTokenClassification",
]


class DistilBertForMaskedLM(DistilBertPreTrainedModel):
    """DistilBERT with logits of the token at each place; their projection is tied to the word embeddings."""

    _tied_weights_keys = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.activation = activation(config.activation)
        self.vocab_transform = nn.Linear(config.dim, config.dim)
        self.vocab_layer_norm = nn.LayerNorm(config.dim, eps=EPSILON)
        self.vocab_projector = nn.Linear(config.dim, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.vocab_projector

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection onto the vocabulary."""
        self.vocab_projector = cast(nn.Linear, new_embeddings)

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
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.distilbert(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            position_ids=position_ids,
        )
        states = self.vocab_layer_norm(self.activation(self.vocab_transform(outputs.last_hidden_state)))
        return tasks.masked_lm(self.config, outputs, self.vocab_projector(states), labels, return_dict)


class DistilBertForSequenceClassification(DistilBertPreTrainedModel):
    """DistilBERT with logits, or numbers, for the whole input, from its first token."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, config.num_labels)
        self.dropout = nn.Dropout(config.seq_classif_dropout)
        self.post_init()

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
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Logits `(batch, labels)`. What `labels` are is `config.problem_type`, or follows from their dtype."""
        outputs = self.distilbert(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            position_ids=position_ids,
        )
        summary = F.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))
        logits = self.classifier(self.dropout(summary))
        return tasks.sequence_classification(self.config, outputs, logits, labels, return_dict)


class DistilBertForTokenClassification(DistilBertPreTrainedModel):
    """DistilBERT with logits for each token."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.dim, config.num_labels)
        self.post_init()

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
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
        outputs = self.distilbert(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            position_ids=position_ids,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        return tasks.token_classification(self.config, outputs, logits, labels, return_dict)


class DistilBertForQuestionAnswering(DistilBertPreTrainedModel):
    """DistilBERT with logits of where in the text an answer starts and ends."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        tasks.check_two_labels(config)
        self.distilbert = DistilBertModel(config)
        self.qa_outputs = nn.Linear(config.dim, config.num_labels)
        self.dropout = nn.Dropout(config.qa_dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq)` of both ends; a loss if `start_positions` and `end_positions` `(batch,)` are given."""
        outputs = self.distilbert(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            position_ids=position_ids,
        )
        logits = self.qa_outputs(self.dropout(outputs.last_hidden_state))
        return tasks.question_answering(self.config, outputs, logits, start_positions, end_positions, return_dict)


class DistilBertForMultipleChoice(DistilBertPreTrainedModel):
    """DistilBERT with a logit for each of several continuations."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, 1)
        self.dropout = nn.Dropout(config.seq_classif_dropout)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: `input_ids` of shape `(3, 2, 5)`."""
        return tasks.with_choices(super().dummy_inputs)

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
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Logits `(batch, choices)` of inputs `(batch, choices, seq)`; `labels` `(batch,)` are the right choices."""
        choices = tasks.num_choices(input_ids, inputs_embeds)
        input_ids, attention_mask, inputs_embeds = tasks.flat_choices(input_ids, attention_mask, inputs_embeds)
        (position_ids,) = tasks.flat_choices(position_ids)
        outputs = self.distilbert(
            input_ids,
            attention_mask,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            position_ids=position_ids,
        )
        summary = F.relu(self.pre_classifier(outputs.last_hidden_state[:, 0]))
        logits = self.classifier(self.dropout(summary)).view(-1, choices)
        return tasks.multiple_choice(self.config, outputs, logits, labels, return_dict)
