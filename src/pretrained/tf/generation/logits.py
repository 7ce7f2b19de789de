"""Logits processors of TensorFlow: dataclasses whose numbers are arguments of a program, so that it serves them all.

A processor is called with `input_ids` `(rows, room)`, of which the first `cur_len` columns are the text, `scores`
`(rows, vocab)` and `cur_len` `()`; it returns scores. What is static is a part of the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

__all__ = [
    "TFEpsilonLogitsWarper",
    "TFEtaLogitsWarper",
    "TFExponentialDecayLengthPenalty",
    "TFForceTokensLogitsProcessor",
    "TFForcedBOSTokenLogitsProcessor",
    "TFForcedEOSTokenLogitsProcessor",
    "TFInfNanRemoveLogitsProcessor",
    "TFLogitNormalization",
    "TFLogitsProcessor",
    "TFLogitsProcessorList",
    "TFLogitsWarper",
    "TFMinLengthLogitsProcessor",
    "TFMinPLogitsWarper",
    "TFSuppressTokensAtBeginLogitsProcessor",
    "TFSuppressTokensLogitsProcessor",
    "TFTemperatureLogitsWarper",
    "TFTopKLogitsWarper",
    "TFTopPLogitsWarper",
    "TFTypicalLogitsWarper",
    "ids_of",
    "marked",
    "put_together",
    "static",
    "taken_apart",
]

Tensor: TypeAlias = tf.Tensor
NEVER = -float("inf")


def static(default: Any = None) -> Any:
    """A field that is a part of the compiled program."""
    return field(default=default, metadata={"static": True})


def ids_of(ids: Any) -> np.ndarray:
    """Token ids `(n,)` of one or several."""
    return np.atleast_1d(np.asarray(ids, np.int32))


class TFLogitsProcessor:
    """Base of the processors. The ones here are dataclasses; their fields are numbers, arrays, or static."""

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """Scores `(rows, vocab)` in place of `scores`."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__(input_ids, scores, cur_len)")


class TFLogitsWarper(TFLogitsProcessor):
    """Base of the processors that only sampling uses."""


class TFLogitsProcessorList(list[Any]):
    """Processors, applied one after another."""

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Any) -> Tensor:
        """Scores `(rows, vocab)` after all of them."""
        for processor in self:
            scores = processor(input_ids, scores, cur_len)
        return scores


def taken_apart(processors: Any) -> tuple[tuple[Any, ...], list[Tensor]]:
    """(what a program is made for, the numbers that it is given) of processors; a plain function is a part of it."""
    made_for: list[Any] = []
    numbers: list[Tensor] = []
    for processor in processors:
        if not isinstance(processor, TFLogitsProcessor) or not _is_dataclass(processor):
            made_for.append(processor)
            continue
        names = [part.name for part in fields(processor) if not part.metadata.get("static")]  # type: ignore[arg-type]
        fixed = tuple((f.name, getattr(processor, f.name)) for f in fields(processor) if f.name not in names)  # type: ignore[arg-type]
        made_for.append((type(processor), tuple(names), fixed))
        numbers += [_tensor(getattr(processor, name)) for name in names]
    return tuple(made_for), numbers


def _is_dataclass(processor: Any) -> bool:
    return "__dataclass_fields__" in dir(type(processor))


def _tensor(number: Any) -> Tensor:
    dtype = {float: tf.float32, int: tf.int32}.get(type(number))
    return tf.convert_to_tensor(number, dtype)


def put_together(made_for: tuple[Any, ...], numbers: list[Tensor]) -> TFLogitsProcessorList:
    """The processors again."""
    left, found = iter(numbers), TFLogitsProcessorList()
    for item in made_for:
        if isinstance(item, tuple):
            cls, names, fixed = item
            found.append(cls(**dict(fixed), **{name: next(left) for name in names}))
        else:
            found.append(item)
    return found


# Tokens and lengths


def marked(scores: Tensor, ids: Any) -> Tensor:
    """`(vocab,)`, true for these ids; those beyond the vocabulary are passed over."""
    return tf.reduce_any(tf.range(scores.shape[-1])[:, None] == tf.reshape(tf.cast(ids, tf.int32), (1, -1)), -1)


def _only(scores: Tensor, ids: Any) -> Tensor:
    """Scores in which nothing but `ids` is possible."""
    return tf.broadcast_to(tf.where(marked(scores, ids), 0.0, NEVER), tf.shape(scores))


def _without(scores: Tensor, ids: Any, when: Tensor | bool = True) -> Tensor:
    return tf.where(marked(scores, ids) & when, NEVER, scores)


@dataclass
class TFMinLengthLogitsProcessor(TFLogitsProcessor):
    """Bans the end before the text, prompt included, has `min_length` tokens."""

    min_length: Any
    eos_token_id: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, without the end while the text is too short."""
        return _without(scores, self.eos_token_id, cur_len < self.min_length)


@dataclass
class TFForcedBOSTokenLogitsProcessor(TFLogitsProcessor):
    """Forces the first token after the one that decoding starts from."""

    bos_token_id: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, or those of the forced token."""
        return tf.where(cur_len == 1, _only(scores, self.bos_token_id), scores)


@dataclass
class TFForcedEOSTokenLogitsProcessor(TFLogitsProcessor):
    """Forces the last token that `max_length` has room for."""

    max_length: Any
    eos_token_id: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, or those of the forced tokens."""
        return tf.where(cur_len == self.max_length - 1, _only(scores, self.eos_token_id), scores)


@dataclass
class TFSuppressTokensLogitsProcessor(TFLogitsProcessor):
    """Bans tokens at every step."""

    suppress_tokens: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` without them."""
        return _without(scores, self.suppress_tokens)


@dataclass
class TFSuppressTokensAtBeginLogitsProcessor(TFLogitsProcessor):
    """Bans tokens at one step: when the text is `begin_index` tokens long."""

    begin_suppress_tokens: Any
    begin_index: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` without them at that step."""
        return _without(scores, self.begin_suppress_tokens, cur_len == self.begin_index)


@dataclass
class TFForceTokensLogitsProcessor(TFLogitsProcessor):
    """Forces tokens at places of the text: `force_token_map` is {place: id}, or `(room,)` of ids with -1 for none."""

    force_token_map: Any

    def __post_init__(self) -> None:
        if isinstance(self.force_token_map, (dict, list, tuple)):
            pairs = dict(self.force_token_map)
            table = np.full(max(pairs, default=-1) + 1, -1, np.int32)
            for place, token in pairs.items():
                table[place] = -1 if token is None else token
            self.force_token_map = table

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, or those of the token that belongs to this place."""
        if self.force_token_map.shape[0] == 0:
            return scores
        table = tf.convert_to_tensor(self.force_token_map)
        token = tf.where(cur_len < table.shape[0], table[tf.minimum(cur_len, table.shape[0] - 1)], -1)
        return tf.where(token >= 0, _only(scores, tf.maximum(token, 0)), scores)


@dataclass
class TFExponentialDecayLengthPenalty(TFLogitsProcessor):
    """Makes the end likelier, by `factor` for each token after `start`."""

    start: Any
    factor: Any
    eos_token_id: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with more for the end."""
        steps = tf.maximum(cur_len - self.start, 0)
        more = tf.abs(scores) * (self.factor ** tf.cast(steps, tf.float32) - 1)
        # What is banned stays banned, so an infinity is not multiplied.
        return tf.where(marked(scores, self.eos_token_id) & tf.math.is_finite(scores), scores + more, scores)


@dataclass
class TFInfNanRemoveLogitsProcessor(TFLogitsProcessor):
    """Makes NaN 0 and infinities the largest finite numbers."""

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, all finite."""
        clean = tf.where(tf.math.is_nan(scores), tf.zeros_like(scores), scores)
        return tf.clip_by_value(clean, scores.dtype.min, scores.dtype.max)


@dataclass
class TFLogitNormalization(TFLogitsProcessor):
    """Makes scores log-probabilities again."""

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """The log-softmax of `scores`."""
        return tf.nn.log_softmax(scores, -1)


# Sampling: temperature, and filters that leave the likely tokens


@dataclass
class TFTemperatureLogitsWarper(TFLogitsWarper):
    """Divides scores by a temperature: above 1 for more variety, below 1 for less."""

    temperature: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores`, divided."""
        return scores / self.temperature


def _likeliest(scores: Tensor, count: int) -> Tensor:
    """The tokens that are not less likely than the last of the `count` likeliest."""
    return scores >= tf.math.top_k(scores, min(count, scores.shape[-1]))[0][..., -1:]


@dataclass
class TFTopKLogitsWarper(TFLogitsWarper):
    """Leaves the `top_k` likeliest tokens (Fan et al., arXiv 1805.04833)."""

    top_k: int = static()
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of these; the others' are `filter_value`."""
        return tf.where(_likeliest(scores, max(self.top_k, self.min_tokens_to_keep)), scores, self.filter_value)


@dataclass
class TFTopPLogitsWarper(TFLogitsWarper):
    """Leaves the fewest tokens that have `top_p` of the probability together (Holtzman et al., arXiv 1904.09751)."""

    top_p: Any
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of all but the least likely ones, which have at most `1 - top_p` together."""
        order = tf.argsort(scores, -1)
        ordered = tf.gather(scores, order, batch_dims=1)
        kept = tf.cumsum(tf.nn.softmax(ordered, -1), -1) > 1 - self.top_p
        kept |= tf.range(kept.shape[-1]) >= kept.shape[-1] - self.min_tokens_to_keep
        kept = tf.gather(kept, tf.argsort(order, -1), batch_dims=1)
        return tf.where(kept, scores, self.filter_value)


@dataclass
class TFMinPLogitsWarper(TFLogitsWarper):
    """Leaves tokens that have at least `min_p` of the likeliest one's probability (arXiv 2407.01082)."""

    min_p: Any
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of those above the share, and of the likeliest."""
        probabilities = tf.nn.softmax(scores, -1)
        kept = probabilities >= self.min_p * tf.reduce_max(probabilities, -1, keepdims=True)
        return tf.where(kept | _likeliest(scores, self.min_tokens_to_keep), scores, self.filter_value)


@dataclass
class TFTypicalLogitsWarper(TFLogitsWarper):
    """Leaves tokens whose information is nearest to the expected, `mass` of probability in all (arXiv 2202.00666)."""

    mass: Any
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of those not farther from the expected than the one that makes the mass full."""
        logs = tf.nn.log_softmax(scores, -1)
        probabilities = tf.exp(logs)
        terms = tf.where(probabilities > 0, logs * probabilities, 0.0)
        distance = tf.abs(-logs + tf.reduce_sum(terms, -1, keepdims=True))
        order = tf.argsort(distance, -1)
        ordered = tf.gather(scores, order, batch_dims=1)
        mass = tf.cumsum(tf.nn.softmax(ordered, -1), -1)
        last = tf.minimum(tf.reduce_sum(tf.cast(mass < self.mass, tf.int32), -1, keepdims=True), scores.shape[-1] - 1)
        last = tf.maximum(last, self.min_tokens_to_keep - 1)
        nearest = tf.gather(distance, order, batch_dims=1)
        return tf.where(distance <= tf.gather(nearest, last, batch_dims=1), scores, self.filter_value)


@dataclass
class TFEpsilonLogitsWarper(TFLogitsWarper):
    """Leaves tokens of at least this probability (Hewitt et al., arXiv 2210.15191)."""

    epsilon: Any
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of those, and of the likeliest."""
        kept = tf.nn.softmax(scores, -1) >= self.epsilon
        return tf.where(kept | _likeliest(scores, self.min_tokens_to_keep), scores, self.filter_value)


@dataclass
class TFEtaLogitsWarper(TFLogitsWarper):
    """Leaves tokens above a probability that is smaller where the distribution is flat (arXiv 2210.15191)."""

    epsilon: Any
    filter_value: float = static(NEVER)
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` of those, and of the likeliest."""
        logs = tf.nn.log_softmax(scores, -1)
        probabilities = tf.exp(logs)
        entropy = -tf.reduce_sum(tf.where(probabilities > 0, logs * probabilities, 0.0), -1, keepdims=True)
        threshold = tf.minimum(self.epsilon**0.5 * tf.exp(-entropy), self.epsilon)
        kept = (probabilities >= threshold) | _likeliest(scores, self.min_tokens_to_keep)
        return tf.where(kept, scores, self.filter_value)
