"""Logits processors of TensorFlow that look at the text so far: repetition, n-grams, sequences with a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from .logits import NEVER, TFLogitsProcessor, static

__all__ = [
    "TFEncoderNoRepeatNGramLogitsProcessor",
    "TFEncoderRepetitionPenaltyLogitsProcessor",
    "TFNoRepeatNGramLogitsProcessor",
    "TFRepetitionPenaltyLogitsProcessor",
    "TFSequenceBiasLogitsProcessor",
]

Tensor: TypeAlias = tf.Tensor


def _seen(scores: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """`(rows, vocab)`, true for the ids of each row `(rows, n)` where `counts` `(rows or 1, n)` is true."""
    vocab = scores.shape[-1]
    places = tf.where(counts, ids, vocab)  # what does not count is marked beyond the vocabulary
    rows = tf.repeat(tf.range(tf.shape(places)[0])[:, None], tf.shape(places)[1], 1)
    found = tf.scatter_nd(tf.stack((rows, places), -1), tf.ones_like(places), (tf.shape(scores)[0], vocab + 1))
    return found[:, :vocab] > 0


def _penalised(scores: Tensor, where: Tensor, penalty: Any) -> Tensor:
    return tf.where(where, tf.where(scores < 0, scores * penalty, scores / penalty), scores)


@dataclass
class TFRepetitionPenaltyLogitsProcessor(TFLogitsProcessor):
    """Makes tokens of the text less likely (Keskar et al., arXiv 1909.05858); `penalty` above 1 for less repetition."""

    penalty: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with the penalty."""
        is_text = (tf.range(input_ids.shape[1]) < cur_len)[None]
        return _penalised(scores, _seen(scores, input_ids, is_text), self.penalty)


@dataclass
class TFEncoderRepetitionPenaltyLogitsProcessor(TFLogitsProcessor):
    """Makes tokens of the encoder's text `(batch, encoder seq)` likelier, with a `penalty` above 1."""

    penalty: Any
    encoder_input_ids: Any

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with more for these tokens."""
        ids = tf.convert_to_tensor(self.encoder_input_ids)
        ids = tf.repeat(ids, tf.shape(scores)[0] // tf.shape(ids)[0], 0)
        return _penalised(scores, _seen(scores, ids, tf.ones((1, ids.shape[1]), tf.bool)), 1 / self.penalty)


def _column(ids: Tensor, place: Tensor) -> Tensor:
    """`(rows, 1)` of `(rows, n)` at a place, or at the nearest there is."""
    return tf.gather(ids, tf.clip_by_value(place, 0, ids.shape[1] - 1), axis=1)[:, None]


def _repeating(windows: Tensor, size: int, input_ids: Tensor, cur_len: Tensor) -> Tensor:
    """Which places `(rows, n)` of `windows` `(rows, n + size - 1)` begin with the last tokens of `input_ids`."""
    count = windows.shape[1] - size + 1
    same = tf.ones((windows.shape[0], count), tf.bool)
    for i in range(size - 1):
        last = _column(input_ids, cur_len - (size - 1) + i)
        same &= windows[:, i : i + count] == last
    return same


@dataclass
class TFNoRepeatNGramLogitsProcessor(TFLogitsProcessor):
    """Bans what would be the second time for `ngram_size` tokens in a row."""

    ngram_size: int = static()

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with these tokens at minus infinity."""
        size = self.ngram_size
        if input_ids.shape[1] < size:
            return scores
        same = _repeating(input_ids, size, input_ids, cur_len)
        follows = tf.range(same.shape[1]) + size - 1  # the place of what followed there
        counts = same & (follows < cur_len)[None] & (cur_len >= size)
        return tf.where(_seen(scores, input_ids[:, size - 1 :], counts), NEVER, scores)


@dataclass
class TFEncoderNoRepeatNGramLogitsProcessor(TFLogitsProcessor):
    """Bans what would repeat `ngram_size` tokens in a row of the encoder's text `(batch, encoder seq)`."""

    encoder_input_ids: Any
    ngram_size: int = static()

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with these tokens at minus infinity."""
        size, ids = self.ngram_size, tf.convert_to_tensor(self.encoder_input_ids)
        if ids.shape[1] < size:
            return scores
        ids = tf.repeat(ids, tf.shape(scores)[0] // tf.shape(ids)[0], 0)
        counts = _repeating(ids, size, input_ids, cur_len) & (cur_len >= size - 1)
        return tf.where(_seen(scores, ids[:, size - 1 :], counts), NEVER, scores)


@dataclass
class TFSequenceBiasLogitsProcessor(TFLogitsProcessor):
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

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_len: Tensor) -> Tensor:
        """`scores` with what is added."""
        table = tf.convert_to_tensor(self.sequences)
        longest = table.shape[1]
        fits = tf.ones((scores.shape[0], table.shape[0]), tf.bool)
        for i in range(longest - 1):
            place = cur_len - (longest - 1) + i
            found = _column(input_ids, place)
            fits &= (table[None, :, i] == -1) | ((found == table[None, :, i]) & (place >= 0))
        added = tf.where(fits, tf.convert_to_tensor(self.biases)[None], 0.0)
        turned = tf.tensor_scatter_nd_add(tf.transpose(scores), table[:, -1:], tf.transpose(added))
        return tf.transpose(turned)
