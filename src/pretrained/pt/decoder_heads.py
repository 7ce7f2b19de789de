"""Forward passes of the heads that all decoders are fine-tuned with.

A family's class comes after one of these in its bases, builds its base model under `base_model_prefix` and the layers
named here, and has no more to say.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import tasks

__all__ = ["QuestionAnswering", "SequenceClassification", "TokenClassification", "token_dropout"]


def token_dropout(config: Any) -> nn.Dropout:
    """The dropout before token logits: `classifier_dropout`, 0.1 where the config says nothing."""
    return nn.Dropout(0.1 if config.classifier_dropout is None else config.classifier_dropout)


class SequenceClassification:
    """Logits for the whole input by `score`, taken at its last token."""

    def forward(
        self: Any,
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
        outputs = self.base_model(
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


class TokenClassification:
    """Logits for each token by `dropout` and `score`."""

    def forward(
        self: Any,
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
        outputs = self.base_model(
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


class QuestionAnswering:
    """Logits of where in the text an answer starts and ends, by `qa_outputs`."""

    def forward(
        self: Any,
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
        outputs = self.base_model(
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
