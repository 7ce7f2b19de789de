"""Logits processors of JAX: pytrees whose numbers are arguments of the compiled program, so that it serves them all.

A processor is called with `input_ids` `(rows, room)`, of which the first `cur_len` columns are the text, `scores`
`(rows, vocab)` and `cur_len` `()`; it returns scores. What is static is a part of the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "FlaxEpsilonLogitsWarper",
    "FlaxEtaLogitsWarper",
    "FlaxExponentialDecayLengthPenalty",
    "FlaxForceTokensLogitsProcessor",
    "FlaxForcedBOSTokenLogitsProcessor",
    "FlaxForcedEOSTokenLogitsProcessor",
    "FlaxInfNanRemoveLogitsProcessor",
    "FlaxLogitNormalization",
    "FlaxLogitsProcessor",
    "FlaxLogitsProcessorList",
    "FlaxLogitsWarper",
    "FlaxMinLengthLogitsProcessor",
    "FlaxMinPLogitsWarper",
    "FlaxSuppressTokensAtBeginLogitsProcessor",
    "FlaxSuppressTokensLogitsProcessor",
    "FlaxTemperatureLogitsWarper",
    "FlaxTopKLogitsWarper",
    "FlaxTopPLogitsWarper",
    "FlaxTypicalLogitsWarper",
    "ids_of",
    "marked",
    "registered",
    "static",
]

Array = jax.Array
Processor = TypeVar("Processor", bound=type)
NEVER = -jnp.inf


def static(default: Any = None) -> Any:
    """A field that is a part of the compiled program."""
    return field(default=default, metadata={"static": True})


def ids_of(ids: Any) -> np.ndarray:
    """Token ids `(n,)` of one or several."""
    return np.atleast_1d(np.asarray(ids, np.int32))


def registered(cls: Processor) -> Processor:
    """A dataclass whose objects JAX takes apart: for processors of one's own that are not a part of the program."""
    found: Processor = jax.tree_util.register_dataclass(cls)
    return found


class FlaxLogitsProcessor:
    """Base of the processors. The ones here are dataclasses; their fields are numbers, arrays, or static."""

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """Scores `(rows, vocab)` in place of `scores`."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__(input_ids, scores, cur_len)")


class FlaxLogitsWarper(FlaxLogitsProcessor):
    """Base of the processors that only sampling uses."""


class FlaxLogitsProcessorList(list[Any]):
    """Processors, applied one after another."""

    def __call__(self, input_ids: Array, scores: Array, cur_len: Any) -> Array:
        """Scores `(rows, vocab)` after all of them."""
        for processor in self:
            scores = processor(input_ids, scores, cur_len)
        return scores


jax.tree_util.register_pytree_node(
    FlaxLogitsProcessorList, lambda found: (list(found), None), lambda _, items: FlaxLogitsProcessorList(items)
)


# Tokens and lengths


def marked(scores: Array, ids: Any) -> Array:
    """`(vocab,)`, true for these ids; those beyond the vocabulary are passed over."""
    return jnp.zeros(scores.shape[-1], bool).at[ids].set(True, mode="drop")


def _only(scores: Array, ids: Any) -> Array:
    """Scores in which nothing but `ids` is possible."""
    return jnp.broadcast_to(jnp.where(marked(scores, ids), 0.0, NEVER), scores.shape)


def _without(scores: Array, ids: Any, when: Array | bool = True) -> Array:
    return jnp.where(marked(scores, ids) & when, NEVER, scores)


@registered
@dataclass
class FlaxMinLengthLogitsProcessor(FlaxLogitsProcessor):
    """Bans the end before the text, prompt included, has `min_length` tokens."""

    min_length: Any
    eos_token_id: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, without the end while the text is too short."""
        return _without(scores, self.eos_token_id, cur_len < self.min_length)


@registered
@dataclass
class FlaxForcedBOSTokenLogitsProcessor(FlaxLogitsProcessor):
    """Forces the first token after the one that decoding starts from."""

    bos_token_id: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, or those of the forced token."""
        return jnp.where(cur_len == 1, _only(scores, self.bos_token_id), scores)


@registered
@dataclass
class FlaxForcedEOSTokenLogitsProcessor(FlaxLogitsProcessor):
    """Forces the last token that `max_length` has room for."""

    max_length: Any
    eos_token_id: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, or those of the forced tokens."""
        return jnp.where(cur_len == self.max_length - 1, _only(scores, self.eos_token_id), scores)


@registered
@dataclass
class FlaxSuppressTokensLogitsProcessor(FlaxLogitsProcessor):
    """Bans tokens at every step."""

    suppress_tokens: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` without them."""
        return _without(scores, self.suppress_tokens)


@registered
@dataclass
class FlaxSuppressTokensAtBeginLogitsProcessor(FlaxLogitsProcessor):
    """Bans tokens at one step: when the text is `begin_index` tokens long."""

    begin_suppress_tokens: Any
    begin_index: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` without them at that step."""
        return _without(scores, self.begin_suppress_tokens, cur_len == self.begin_index)


@registered
@dataclass
class FlaxForceTokensLogitsProcessor(FlaxLogitsProcessor):
    """Forces tokens at places of the text: `force_token_map` is {place: id}, or `(room,)` of ids with -1 for none."""

    force_token_map: Any

    def __post_init__(self) -> None:
        if isinstance(self.force_token_map, (dict, list, tuple)):
            pairs = dict(self.force_token_map)
            table = np.full(max(pairs, default=-1) + 1, -1, np.int32)
            for place, token in pairs.items():
                table[place] = -1 if token is None else token
            self.force_token_map = table

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, or those of the token that belongs to this place."""
        if len(self.force_token_map) == 0:
            return scores
        table = jnp.asarray(self.force_token_map)
        token = jnp.where(cur_len < len(table), table[jnp.minimum(cur_len, len(table) - 1)], -1)
        return jnp.where(token >= 0, _only(scores, jnp.maximum(token, 0)[None]), scores)


@registered
@dataclass
class FlaxExponentialDecayLengthPenalty(FlaxLogitsProcessor):
    """Makes the end likelier, by `factor` for each token after `start`."""

    start: Any
    factor: Any
    eos_token_id: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with more for the end."""
        steps = jnp.maximum(cur_len - self.start, 0)
        more = jnp.abs(scores) * (self.factor**steps - 1)
        # What is banned stays banned, so an infinity is not multiplied.
        return jnp.where(marked(scores, self.eos_token_id) & jnp.isfinite(scores), scores + more, scores)


@registered
@dataclass
class FlaxInfNanRemoveLogitsProcessor(FlaxLogitsProcessor):
    """Makes NaN 0 and infinities the largest finite numbers."""

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, all finite."""
        return jnp.nan_to_num(scores, nan=0.0)


@registered
@dataclass
class FlaxLogitNormalization(FlaxLogitsProcessor):
    """Makes scores log-probabilities again."""

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """The log-softmax of `scores`."""
        return jax.nn.log_softmax(scores, -1)


# Sampling: temperature, and filters that leave the likely tokens


@registered
@dataclass
class FlaxTemperatureLogitsWarper(FlaxLogitsWarper):
    """Divides scores by a temperature: above 1 for more variety, below 1 for less."""

    temperature: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores`, divided."""
        return scores / self.temperature


def _likeliest(scores: Array, count: int) -> Array:
    """The tokens that are not less likely than the last of the `count` likeliest."""
    return scores >= jax.lax.top_k(scores, min(count, scores.shape[-1]))[0][..., -1:]


@registered
@dataclass
class FlaxTopKLogitsWarper(FlaxLogitsWarper):
    """Leaves the `top_k` likeliest tokens (Fan et al., arXiv 1805.04833)."""

    top_k: int = static()
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of these; the others' are `filter_value`."""
        return jnp.where(_likeliest(scores, max(self.top_k, self.min_tokens_to_keep)), scores, self.filter_value)


@registered
@dataclass
class FlaxTopPLogitsWarper(FlaxLogitsWarper):
    """Leaves the fewest tokens that have `top_p` of the probability together (Holtzman et al., arXiv 1904.09751)."""

    top_p: Any
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of all but the least likely ones, which have at most `1 - top_p` together."""
        order = jnp.argsort(scores, -1)
        ordered = jnp.take_along_axis(scores, order, -1)
        kept = jnp.cumsum(jax.nn.softmax(ordered, -1), -1) > 1 - self.top_p
        kept = kept.at[..., -self.min_tokens_to_keep :].set(True)
        kept = jnp.put_along_axis(jnp.zeros_like(kept), order, kept, -1, inplace=False)
        return jnp.where(kept, scores, self.filter_value)


@registered
@dataclass
class FlaxMinPLogitsWarper(FlaxLogitsWarper):
    """Leaves tokens that have at least `min_p` of the likeliest one's probability (arXiv 2407.01082)."""

    min_p: Any
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of those above the share, and of the likeliest."""
        probabilities = jax.nn.softmax(scores, -1)
        kept = probabilities >= self.min_p * probabilities.max(-1, keepdims=True)
        return jnp.where(kept | _likeliest(scores, self.min_tokens_to_keep), scores, self.filter_value)


@registered
@dataclass
class FlaxTypicalLogitsWarper(FlaxLogitsWarper):
    """Leaves tokens whose information is nearest to the expected, `mass` of probability in all (arXiv 2202.00666)."""

    mass: Any
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of those not farther from the expected than the one that makes the mass full."""
        logs = jax.nn.log_softmax(scores, -1)
        probabilities = jnp.exp(logs)
        terms = jnp.where(probabilities > 0, logs * probabilities, 0.0)
        distance = jnp.abs(-logs + terms.sum(-1, keepdims=True))
        order = jnp.argsort(distance, -1)
        ordered = jnp.take_along_axis(scores, order, -1)
        mass = jnp.cumsum(jax.nn.softmax(ordered, -1), -1)
        last = jnp.minimum((mass < self.mass).sum(-1, keepdims=True), scores.shape[-1] - 1)
        last = jnp.maximum(last, self.min_tokens_to_keep - 1)
        nearest = jnp.take_along_axis(distance, order, -1)
        return jnp.where(distance <= jnp.take_along_axis(nearest, last, -1), scores, self.filter_value)


@registered
@dataclass
class FlaxEpsilonLogitsWarper(FlaxLogitsWarper):
    """Leaves tokens of at least this probability (Hewitt et al., arXiv 2210.15191)."""

    epsilon: Any
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of those, and of the likeliest."""
        kept = jax.nn.softmax(scores, -1) >= self.epsilon
        return jnp.where(kept | _likeliest(scores, self.min_tokens_to_keep), scores, self.filter_value)


@registered
@dataclass
class FlaxEtaLogitsWarper(FlaxLogitsWarper):
    """Leaves tokens above a probability that is smaller where the distribution is flat (arXiv 2210.15191)."""

    epsilon: Any
    filter_value: Any = NEVER
    min_tokens_to_keep: int = static(1)

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` of those, and of the likeliest."""
        logs = jax.nn.log_softmax(scores, -1)
        probabilities = jnp.exp(logs)
        entropy = -jnp.where(probabilities > 0, logs * probabilities, 0.0).sum(-1, keepdims=True)
        threshold = jnp.minimum(self.epsilon**0.5 * jnp.exp(-entropy), self.epsilon)
        kept = (probabilities >= threshold) | _likeliest(scores, self.min_tokens_to_keep)
        return jnp.where(kept, scores, self.filter_value)
