"""The losses that Wav2Vec2 is trained with in TensorFlow: of a text without times, and of telling sounds apart."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import unknown_name
from ...tf.layers import shape_of, wide_dtype

__all__ = ["contrastive_loss", "ctc_loss"]

Tensor: TypeAlias = tf.Tensor
REDUCTIONS = ("none", "mean", "sum")


def ctc_loss(logits: Tensor, labels: Tensor, lengths: Tensor, config: Any) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), of `logits` `(batch, frames, vocab)`.

    Args:
        logits: of each frame.
        labels: `(batch, tokens)`, each row a text; -100 and the blank, `config.pad_token_id`, are left out.
        lengths: `(batch,)`, how many frames count.
        config: says how losses of rows become one, and whether a text longer than its frames counts as 0.

    Raises:
        ConfigError: there is no such reduction.
    """
    kind, blank = config.ctc_loss_reduction, config.pad_token_id
    if kind not in REDUCTIONS:
        raise unknown_name("ctc_loss_reduction", kind, REDUCTIONS)
    is_token = (labels >= 0) & (labels != blank)
    counts = tf.reduce_sum(tf.cast(is_token, tf.int32), -1)
    order = tf.argsort(tf.cast(~is_token, tf.int32), stable=True)  # of each row its tokens first
    text = tf.gather(tf.cast(tf.where(is_token, labels, tf.zeros_like(labels)), tf.int32), order, batch_dims=1)
    # Between two tokens that are alike there is a blank.
    is_again = (text[:, 1:] == text[:, :-1]) & (tf.range(1, shape_of(text)[1]) < counts[:, None])
    fits = counts + tf.reduce_sum(tf.cast(is_again, tf.int32), -1) <= lengths
    wide = tf.cast(logits, wide_dtype(logits))
    each = tf.nn.ctc_loss(text, wide, tf.where(fits, counts, 0), lengths, logits_time_major=False, blank_index=blank)
    each = tf.where(fits, each, 0.0 if config.ctc_zero_infinity else math.inf)
    if kind == "none":
        return each
    if kind == "sum":
        return tf.reduce_sum(each)
    return tf.reduce_mean(each / tf.cast(tf.maximum(counts, 1), each.dtype))


def contrastive_loss(found: Tensor, wanted: Tensor, masked: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Sum of the losses of telling, for each masked frame, the right vector from those of other frames.

    Args:
        found: predictions `(batch, frames, size)`.
        wanted: what they should be, in the same shape.
        masked: `(batch, frames)`, true for the frames that count.
        negatives: `(batch, frames, negatives)`, places in `(batch * frames)`.
        temperature: what the cosines are divided by.
    """
    size = wanted.shape[-1]
    others = tf.gather(tf.reshape(wanted, (-1, size)), negatives)
    choices = tf.concat((wanted[:, :, None], others), 2)
    logits = _cosine(found[:, :, None], choices) / temperature
    # Where another frame has the same codes there is nothing to tell apart.
    is_right = tf.pad(tf.reduce_all(others == wanted[:, :, None], -1), ((0, 0), (0, 0), (1, 0)))
    logits = tf.where(is_right, tf.constant(-float("inf"), logits.dtype), logits)
    each = tf.reduce_logsumexp(logits, -1) - logits[..., 0]
    return tf.reduce_sum(tf.where(masked, each, tf.zeros_like(each)))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Of the angles between vectors along the last axis, in float32 or better."""
    x, y = (tf.cast(side, wide_dtype(side)) for side in (x, y))
    lengths = (tf.maximum(tf.norm(side, axis=-1), 1e-8) for side in (x, y))
    product = tf.reduce_sum(x * y, -1)
    for length in lengths:
        product = product / length
    return product
