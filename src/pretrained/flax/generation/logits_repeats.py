"""Logits processors of JAX that look at what the text has already: repetition, n-grams, sequences with a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .logits import NEVER, FlaxLogitsProcessor, registered, static

__all__ = [
    "FlaxEncoderNoRepeatNGramLogitsProcessor",
    "FlaxEncoderRepetitionPenaltyLogitsProcessor",
    "FlaxNoRepeatNGramLogitsProcessor",
    "FlaxRepetitionPenaltyLogitsProcessor",
    "FlaxSequenceBiasLogitsProcessor",
]

Array = jax.Array


def _seen(scores: Array, ids: Array, counts: Array) -> Array:
    """`(rows, vocab)`, true for the ids of each row `(rows, n)` where `counts` `(rows or 1, n)` is true."""
    rows = jnp.arange(len(scores))[:, None]
    places = jnp.where(counts, ids, scores.shape[-1])  # what does not count is beyond the vocabulary, and dropped
    return jnp.zeros(scores.shape, bool).at[rows, places].set(True, mode="drop")


def _penalised(scores: Array, where: Array, penalty: Any) -> Array:
    return jnp.where(where, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)


@registered
@dataclass
class FlaxRepetitionPenaltyLogitsProcessor(FlaxLogitsProcessor):
    """Makes tokens of the text less likely (Keskar et al., arXiv 1909.05858); `penalty` above 1 for less repetition."""

    penalty: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with the penalty."""
        is_text = (jnp.arange(input_ids.shape[1]) < cur_len)[None]
        return _penalised(scores, _seen(scores, input_ids, is_text), self.penalty)


@registered
@dataclass
class FlaxEncoderRepetitionPenaltyLogitsProcessor(FlaxLogitsProcessor):
    """Makes tokens of the encoder's text `(batch, encoder seq)` likelier, with a `penalty` above 1."""

    penalty: Any
    encoder_input_ids: Any

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with more for these tokens."""
        ids = jnp.asarray(self.encoder_input_ids)
        ids = jnp.repeat(ids, len(scores) // len(ids), 0)
        return _penalised(scores, _seen(scores, ids, jnp.ones((1, ids.shape[1]), bool)), 1 / self.penalty)


def _repeating(windows: Array, size: int, input_ids: Array, cur_len: Array) -> Array:
    """Which places `(rows, n)` of `windows` `(rows, n + size - 1)` begin with the last tokens of `input_ids`."""
    count = windows.shape[1] - size + 1
    same = jnp.ones((len(windows), count), bool)
    for i in range(size - 1):
        last = jnp.take(input_ids, cur_len - (size - 1) + i, 1, mode="clip")[:, None]
        same &= windows[:, i : i + count] == last
    return same


@registered
@dataclass
class FlaxNoRepeatNGramLogitsProcessor(FlaxLogitsProcessor):
    """Bans what would be the second time for `ngram_size` tokens in a row."""

    ngram_size: int = static()

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with these tokens at minus infinity."""
        size = self.ngram_size
        if input_ids.shape[1] < size:
            return scores
        same = _repeating(input_ids, size, input_ids, cur_len)
        follows = jnp.arange(same.shape[1]) + size - 1  # the place of what followed there
        counts = same & (follows < cur_len)[None] & (cur_len >= size)
        return jnp.where(_seen(scores, input_ids[:, size - 1 :], counts), NEVER, scores)


@registered
@dataclass
class FlaxEncoderNoRepeatNGramLogitsProcessor(FlaxLogitsProcessor):
    """Bans what would repeat `ngram_size` tokens in a row of the encoder's text `(batch, encoder seq)`."""

    encoder_input_ids: Any
    ngram_size: int = static()

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with these tokens at minus infinity."""
        size, ids = self.ngram_size, jnp.asarray(self.encoder_input_ids)
        if ids.shape[1] < size:
            return scores
        ids = jnp.repeat(ids, len(scores) // len(ids), 0)
        counts = _repeating(ids, size, input_ids, cur_len) & (cur_len >= size - 1)
        return jnp.where(_seen(scores, ids[:, size - 1 :], counts), NEVER, scores)


@registered
@dataclass
class FlaxSequenceBiasLogitsProcessor(FlaxLogitsProcessor):
    """Adds to the scores of the last token of sequences, where the tokens before it are the end of the text.

    Attributes:
        sequences: `(n, longest)` token ids, padded on the left with -1.
        biases: `(n,)`; minus infinity bans.
    """

    sequences: Any
    biases: Any

    @classmethod
    def of(cls, biased: Any) -> Any:
        """A processor of {tuple of ids: bias}."""
        items = [(tuple(ids), bias) for ids, bias in biased.items()]
        longest = max((len(ids) for ids, _ in items), default=1)
        table = np.full((len(items), longest), -1, np.int32)
        for row, (ids, _) in enumerate(items):
            table[row, longest - len(ids) :] = ids
        return cls(table, np.asarray([bias for _, bias in items], np.float32))

    def __call__(self, input_ids: Array, scores: Array, cur_len: Array) -> Array:
        """`scores` with what is added."""
        table = jnp.asarray(self.sequences)
        longest = table.shape[1]
        fits = jnp.ones((len(scores), len(table)), bool)
        for i in range(longest - 1):
            place = cur_len - (longest - 1) + i
            found = jnp.take(input_ids, place, 1, mode="clip")[:, None]
            fits &= (table[None, :, i] == -1) | ((found == table[None, :, i]) & (place >= 0))
        added = jnp.where(fits, jnp.asarray(self.biases)[None], 0.0)
        rows = jnp.arange(len(scores))[:, None]
        return scores.at[rows, table[None, :, -1]].add(added, mode="drop")
