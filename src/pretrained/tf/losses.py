"""Losses from labels, as torch's models compute them. Labels of -100 are not counted."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ..errors import unknown_name
from .layers import shape_of, wide_dtype

__all__ = [
    "IGNORED", "PROBLEM_TYPES", "causal_lm", "cross_entropy", "infer_problem_type", "question_answering",
    "sequence_classification",
]  # fmt: skip

Tensor: TypeAlias = tf.Tensor

IGNORED = -100
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: Any = IGNORED) -> Tensor:
    """Mean cross entropy of `(…, classes)` against `(…)`, in float32 or better; of no label at all it is 0."""
    wide = tf.reshape(tf.cast(logits, wide_dtype(logits)), (-1, shape_of(logits)[-1]))
    flat = tf.reshape(labels, (-1,))
    counts = flat != tf.cast(ignore_index, flat.dtype)
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(counts, flat, tf.zeros_like(flat)), wide)
    weights = tf.cast(counts, each.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(each * weights), tf.reduce_sum(weights))


def causal_lm(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of predicting token `i + 1` at `i`: `logits` `(…, seq, vocab)`, `labels` `(…, seq)` unshifted."""
    return cross_entropy(logits[..., :-1, :], labels[..., 1:])


def infer_problem_type(num_labels: int, labels: Tensor) -> str:
    """What the labels are for, when the config does not say: a number, one class out of many, or any set of classes."""
    if num_labels == 1:
        return "regression"
    return PROBLEM_TYPES[1] if labels.dtype.is_integer else PROBLEM_TYPES[2]


def sequence_classification(config: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of `(batch, labels)`: squared error, cross entropy or binary cross entropy, by `config.problem_type`.

    Raises:
        ConfigError: the problem type is none of `PROBLEM_TYPES`.
    """
    kind = config.problem_type or infer_problem_type(config.num_labels, labels)
    wide = tf.cast(logits, wide_dtype(logits))
    if kind == "regression":
        return tf.reduce_mean(tf.math.squared_difference(wide, tf.reshape(tf.cast(labels, wide.dtype), tf.shape(wide))))
    if kind == "single_label_classification":
        return cross_entropy(logits, labels)
    if kind == "multi_label_classification":
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, wide.dtype), wide))
    raise unknown_name("problem_type", kind, PROBLEM_TYPES)


def question_answering(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean of the losses of the two ends of the answer, `(batch, seq)` against `(batch,)`.

    An answer that was cut off lies beyond the text and is not counted.
    """
    length = shape_of(start_logits)[1]
    total = [
        cross_entropy(logits, tf.clip_by_value(place, 0, tf.cast(length, place.dtype)), length)
        for logits, place in ((start_logits, tf.reshape(start, (-1,))), (end_logits, tf.reshape(end, (-1,))))
    ]
    return (total[0] + total[1]) / 2
