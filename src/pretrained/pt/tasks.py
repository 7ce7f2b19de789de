"""What heads have in common after their logits: the loss, the output object, and whether it is to be a tuple.

`outputs` is always what the base model returned, `labels` what the caller gave or `None`, `return_dict` likewise;
`config` says what the caller left open. A family shows how its logits are made and ends with one of these.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..head_config import check_two_labels, classifier_dropout
from . import losses
from .outputs import (
    CausalLMOutputWithCrossAttentions,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from .outputs_moe import MoeCausalLMOutputWithPast

__all__ = [
    "Output",
    "as_asked",
    "causal_lm",
    "check_two_labels",
    "classifier_dropout",
    "crossed_causal_lm",
    "flat_choices",
    "last_tokens",
    "masked_lm",
    "multiple_choice",
    "num_choices",
    "question_answering",
    "routed_causal_lm",
    "sequence_classification",
    "sequence_classification_with_past",
    "token_classification",
    "with_choices",
]

Output = ModelOutput | tuple[Any, ...]


def as_asked(output: ModelOutput, config: Any, return_dict: bool | None) -> Output:
    """`output`, or the tuple of it if the call or else the config wants that."""
    return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def masked_lm(config: Any, outputs: Any, logits: Tensor, labels: Tensor | None, return_dict: bool | None) -> Output:
    """Logits `(batch, seq, vocab)` with the loss of `labels` `(batch, seq)`, which count where they are not -100."""
    output = MaskedLMOutput(
        loss=None if labels is None else losses.masked_lm(logits, labels),
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def causal_lm(
    config: Any,
    outputs: Any,
    logits: Tensor,
    labels: Tensor | None,
    return_dict: bool | None,
    num_items_in_batch: Tensor | int | None = None,
) -> Output:
    """Logits `(batch, seq, vocab)` with the loss of predicting each of `labels` at the place before it."""
    output = CausalLMOutputWithPast(
        loss=None if labels is None else losses.causal_lm(logits, labels, num_items_in_batch),
        logits=logits,
        past_key_values=outputs.past_key_values,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def routed_causal_lm(
    config: Any,
    outputs: Any,
    logits: Tensor,
    labels: Tensor | None,
    return_dict: bool | None,
    num_items_in_batch: Tensor | int | None = None,
    *,
    num_experts: int,
    attention_mask: Tensor | None,
) -> Output:
    """As `causal_lm`, of a decoder with experts; where router logits are returned, the loss has a share of theirs."""
    loss = None if labels is None else losses.causal_lm(logits, labels, num_items_in_batch)
    balance = None
    if outputs.router_logits:
        balance = losses.load_balance(outputs.router_logits, num_experts, config.num_experts_per_tok, attention_mask)
        loss = None if loss is None else loss + config.router_aux_loss_coef * balance.to(loss.device)
    output = MoeCausalLMOutputWithPast(
        loss=loss,
        aux_loss=balance,
        logits=logits,
        past_key_values=outputs.past_key_values,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
        router_logits=outputs.router_logits,
    )
    return as_asked(output, config, return_dict)


def crossed_causal_lm(
    config: Any,
    outputs: Any,
    logits: Tensor,
    labels: Tensor | None,
    return_dict: bool | None,
    num_items_in_batch: Tensor | int | None = None,
) -> Output:
    """As `causal_lm`, of a decoder that can attend to an encoder."""
    output = CausalLMOutputWithCrossAttentions(
        loss=None if labels is None else losses.causal_lm(logits, labels, num_items_in_batch),
        logits=logits,
        past_key_values=outputs.past_key_values,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
        cross_attentions=outputs.cross_attentions,
    )
    return as_asked(output, config, return_dict)


def _class_loss(config: Any, logits: Tensor, labels: Tensor | None, num_items: Tensor | int | None) -> Tensor | None:
    if labels is None:
        return None
    return losses.sequence_classification(logits, labels, config.num_labels, config.problem_type, num_items)


def sequence_classification(
    config: Any, outputs: Any, logits: Tensor, labels: Tensor | None, return_dict: bool | None
) -> Output:
    """Logits `(batch, labels)`; what `labels` are is `config.problem_type`, or follows from their dtype."""
    output = SequenceClassifierOutput(
        loss=_class_loss(config, logits, labels, None),
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def sequence_classification_with_past(
    config: Any,
    outputs: Any,
    logits: Tensor,
    labels: Tensor | None,
    return_dict: bool | None,
    num_items_in_batch: Tensor | int | None = None,
) -> Output:
    """As `sequence_classification`, of a decoder."""
    output = SequenceClassifierOutputWithPast(
        loss=_class_loss(config, logits, labels, num_items_in_batch),
        logits=logits,
        past_key_values=outputs.past_key_values,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def token_classification(
    config: Any, outputs: Any, logits: Tensor, labels: Tensor | None, return_dict: bool | None
) -> Output:
    """Logits `(batch, seq, labels)`; `labels` `(batch, seq)` count where they are not -100."""
    output = TokenClassifierOutput(
        loss=None if labels is None else losses.token_classification(logits, labels),
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def question_answering(
    config: Any, outputs: Any, logits: Tensor, start: Tensor | None, end: Tensor | None, return_dict: bool | None
) -> Output:
    """Logits `(batch, seq, 2)` as `(batch, seq)` of each end; a loss if both places `(batch,)` are given."""
    start_logits, end_logits = (part.contiguous() for part in logits.unbind(-1))
    loss = None
    if start is not None and end is not None:
        loss = losses.question_answering(start_logits, end_logits, start, end)
    output = QuestionAnsweringModelOutput(
        loss=loss,
        start_logits=start_logits,
        end_logits=end_logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def multiple_choice(
    config: Any, outputs: Any, logits: Tensor, labels: Tensor | None, return_dict: bool | None
) -> Output:
    """Logits `(batch, choices)`; `labels` `(batch,)` are the right choices."""
    output = MultipleChoiceModelOutput(
        loss=None if labels is None else losses.multiple_choice(logits, labels),
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )
    return as_asked(output, config, return_dict)


def num_choices(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> int:
    """How many choices there are in `(batch, choices, …)`."""
    given = input_ids if inputs_embeds is None else inputs_embeds
    if given is None:
        raise ValueError("give either input_ids or inputs_embeds")
    return given.shape[1]


def with_choices(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs `(batch, 2, seq)` of inputs `(batch, seq)`: each row is the first choice, the row backwards the second."""
    return {name: torch.stack((value, value.flip(-1)), 1) for name, value in inputs.items()}


def flat_choices(*inputs: Tensor | None) -> tuple[Tensor | None, ...]:
    """Each `(batch, choices, …)` as `(batch * choices, …)`; `None` stays."""
    return tuple(None if x is None else x.flatten(0, 1) for x in inputs)


def last_tokens(input_ids: Tensor | None, states: Tensor, pad_token_id: int | None) -> Tensor:
    """Of `states` `(batch, seq, hidden)` those of each row's last token that is not padding, on whichever side that is.

    Raises:
        ValueError: several rows, and no padding token to tell where each ends.
    """
    if pad_token_id is None and states.shape[0] > 1:
        raise ValueError("a batch of several rows needs config.pad_token_id, to find where each row ends")
    if pad_token_id is None:
        return states[:, -1]
    if input_ids is None:
        warnings.warn("padding cannot be seen in inputs_embeds: the last place of each row is used", stacklevel=3)
        return states[:, -1]
    places = torch.arange(input_ids.shape[1], device=states.device)
    last = (places * torch.ne(input_ids, pad_token_id).to(states.device)).argmax(-1)
    return states[torch.arange(states.shape[0], device=states.device), last]
