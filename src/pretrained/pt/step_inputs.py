"""What a decoder is given for one step of generation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["step_inputs"]


def step_inputs(
    input_ids: Tensor,
    past_key_values: Any = None,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    position_ids: Tensor | None = None,
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
        kwargs: passed on.
    """
    past = 0 if past_key_values is None else past_key_values.get_seq_length()
    inputs: dict[str, Any] = {"past_key_values": past_key_values, "attention_mask": attention_mask, **kwargs}
    if inputs_embeds is not None and not past:
        inputs["inputs_embeds"], num_new = inputs_embeds, inputs_embeds.shape[1]
    else:
        # Ids that are not all of the text so far are the new ones themselves.
        ids = input_ids[:, past if input_ids.shape[1] > past else -1 :]
        inputs["input_ids"], num_new = ids, ids.shape[1]
    if attention_mask is not None and position_ids is None and attention_mask.dim() == 2:
        position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    if position_ids is not None:
        inputs["position_ids"] = position_ids[:, -num_new:]
    return inputs
