"""What heads have in common: inputs with several choices, the last token of each row, the rate before a classifier."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ..head_config import check_two_labels, classifier_dropout
from .layers import shape_of

__all__ = ["check_two_labels", "classifier_dropout", "flat_choices", "keep_places", "last_tokens", "require_one"]

Tensor: TypeAlias = tf.Tensor


def require_one(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> None:
    """Raises ValueError unless exactly one of the two is given."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds")


def flat_choices(inputs: dict[str, Any], *names: str) -> tuple[Any, dict[str, Any]]:
    """(how many choices there are, inputs with `(batch, choices, …)` as `(batch * choices, …)` under these names)."""
    given = inputs.get("input_ids")
    given = inputs.get("inputs_embeds") if given is None else given
    if given is None:
        raise ValueError("give either input_ids or inputs_embeds")
    flat = {
        name: tf.reshape(value, (-1, *shape_of(value)[2:])) if name in names and value is not None else value
        for name, value in inputs.items()
    }
    return shape_of(given)[1], flat


def last_tokens(input_ids: Tensor | None, states: Tensor, pad_token_id: int | None) -> Tensor:
    """Of `states` `(batch, seq, hidden)` those of each row's last token that is not padding, on whichever side that is.

    Raises:
        ValueError: several rows, and no padding token to tell where each ends.
    """
    if pad_token_id is None and states.shape[0] != 1:
        raise ValueError("a batch of several rows needs config.pad_token_id, to find where each row ends")
    if pad_token_id is None or input_ids is None:
        return states[:, -1]
    places = tf.range(shape_of(input_ids)[1]) * tf.cast(input_ids != pad_token_id, tf.int32)
    return tf.gather(states, tf.argmax(places, -1), axis=1, batch_dims=1)


def keep_places(states: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Of `states` `(batch, seq, hidden)` the last `logits_to_keep` places, all for 0, or those in a 1-D array."""
    if isinstance(logits_to_keep, int):
        return states[:, -logits_to_keep:] if logits_to_keep else states
    return tf.gather(states, logits_to_keep, axis=1)
