"""What a decoder is given for one step of generation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .kv_cache import as_cache

__all__ = ["new_ids", "step_inputs"]


def new_ids(input_ids: Tensor, past: int, num_new: int | None = None) -> Tensor:
    """Of `input_ids` `(batch, seq)` the `num_new` last; by default those after the `past` that a cache holds.

    Ids that are not all of the text so far are the new ones themselves.
    """
    if num_new is not None:
        return input_ids[:, input_ids.shape[1] - num_new :]
    return input_ids[:, past if input_ids.shape[1] > past else -1 :]


def step_inputs(
    input_ids: Tensor,
    past_key_values: Any = None,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    next_sequence_length: int | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """The keywords of forward for the tokens that the cache does not hold yet.

    Args:
        input_ids: `(batch, seq)`, all of the text so far or its new end.
        past_key_values: the cache.
        attention_mask: `(batch, seq)` of all of the text; positions are counted along it, so that a batch may be
            padded on the left.
        inputs_embeds: `(batch, seq, hidden)`, in place of the first step's ids; not used in later steps.
        position_ids: `(batch, seq)`, of all of the text or of its new end.
        token_type_ids: the same.
        next_sequence_length: how many of `input_ids` are new; by default those after what the cache holds.
        kwargs: passed on.
    """
    past = 0 if past_key_values is None else as_cache(past_key_values).get_seq_length()
    inputs: dict[str, Any] = {"past_key_values": past_key_values, "attention_mask": attention_mask, **kwargs}
    if inputs_embeds is not None and not past:
        inputs["inputs_embeds"], num_new = inputs_embeds, inputs_embeds.shape[1]
    else:
        ids = new_ids(input_ids, past, next_sequence_length)
        inputs["input_ids"], num_new = ids, ids.shape[1]
    if attention_mask is not None and position_ids is None and attention_mask.dim() == 2:
        position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    for name, value in (("position_ids", position_ids), ("token_type_ids", token_type_ids)):
        if value is not None:
            inputs[name] = value[:, -num_new:]
    return inputs
