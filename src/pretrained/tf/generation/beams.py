"""Beam search and beam sampling in TensorFlow: torch's search (`pt/generation/beams.py`), in tensors of fixed sizes.

Of the rows of a batch each has `num_beams` running beams and as many places for finished ones. Names of axes: batch,
beams, candidates (continuations looked at in a step), room.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from ..kv_cache import reordered
from .sampling import gumbel, split

__all__ = ["Beams", "begin_beams", "finish_beams", "go_on", "step_beams"]

Tensor: TypeAlias = tf.Tensor
WORST = -1e9  # finite, so that sums of it stay numbers


class Beams(NamedTuple):
    """What a search keeps beside the running sequences.

    Attributes:
        scores: `(batch, beams)` of the running ones.
        done: `(batch, beams, room)` finished sequences, and their scores `(batch, beams)`.
        done_scores: those. is_done: `(batch, beams)`, which of the places hold one. done_lengths: columns of each.
        may_improve: `(batch,)`, whether a running beam could become better than the worst finished one.
        start: `()`, columns of the prompt. ended: `()`, whether every candidate of the last step had its end.
    """

    scores: Tensor
    done: Tensor
    done_scores: Tensor
    is_done: Tensor
    done_lengths: Tensor
    may_improve: Tensor
    start: Tensor
    ended: Tensor


def begin_beams(plan: Any, settings: Any, state: Any) -> Any:
    """The state with all beams of a row of the batch alike, and one of them in front."""
    batch = state.ids.shape[0] // plan.num_beams
    shape = (batch, plan.num_beams)
    scores = tf.fill(shape, WORST) * tf.cast(tf.range(plan.num_beams) > 0, tf.float32)
    # As torch's search has it: a padding of 0 does not fill what is left of a short sequence, the end does.
    has_end = settings.eos.shape[0] > 0
    fill = tf.where(settings.pad == 0, settings.eos[0], settings.pad) if has_end else tf.constant(-1)
    is_text = tf.range(plan.room) < state.length
    ids = tf.reshape(tf.where(is_text, state.ids, fill), (*shape, plan.room))
    nothing = tf.zeros(shape, tf.bool)
    lengths = tf.fill(shape, state.length)
    worst, improvable = tf.fill(shape, WORST), tf.ones(batch, tf.bool)
    beams = Beams(scores, ids, worst, nothing, lengths, improvable, state.length, tf.constant(False))
    return state._replace(ids=tf.reshape(ids, (-1, plan.room)), beams=beams)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """`values` `(batch, n, …)` at `places` `(batch, m)`."""
    return tf.gather(values, places, batch_dims=1)


def _worst_where(mask: Tensor) -> Tensor:
    return tf.cast(mask, tf.float32) * WORST


def step_beams(plan: Any, settings: Any, state: Any, processors: Any, logits: Tensor) -> Any:
    """The state one token further: the best continuations run on, and those that ended compete with what had ended."""
    beams, num_beams = state.beams, plan.num_beams
    batch, vocab = state.ids.shape[0] // num_beams, logits.shape[-1]
    log_probs = processors(state.ids, tf.nn.log_softmax(logits, -1), state.length)
    totals = tf.reshape(log_probs, (batch, num_beams, vocab)) + beams.scores[:, :, None]
    num_candidates = max(2, 1 + settings.eos.shape[0]) * num_beams
    totals = tf.reshape(totals, (batch, num_beams * vocab))
    scores, places, key = _candidates(plan, totals, num_candidates, state.key)
    parents, tokens = places // vocab, places % vocab
    texts = _at(tf.reshape(state.ids, (batch, num_beams, plan.room)), parents)
    texts = tf.where(tf.range(plan.room) == state.length, tokens[:, :, None], texts)
    ended = tf.reduce_any(tokens[:, :, None] == settings.eos, -1) | (state.length + 1 >= settings.end)
    # What runs on
    running, chosen = tf.math.top_k(scores + _worst_where(ended), num_beams)
    rows = tf.reshape(_at(parents, chosen) + tf.range(batch)[:, None] * num_beams, (-1,))
    cache = reordered(state.cache, rows)
    beams = _with_ended(plan, settings, beams, state.length, (texts, scores, ended))
    beams = beams._replace(scores=running, ended=tf.reduce_all(ended))
    length = state.length + 1
    beams = beams._replace(may_improve=beams.may_improve & _may_improve(plan, settings, beams, length))
    ids = tf.reshape(_at(texts, chosen), (-1, plan.room))
    positions = tf.gather(state.positions, rows)
    return state._replace(ids=ids, length=length, cache=cache, positions=positions, key=key, beams=beams)


def _candidates(plan: Any, totals: Tensor, count: int, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(scores, places, the next key) of the best continuations of `(batch, beams * vocab)`, or of drawn ones."""
    if not plan.do_sample:
        scores, places = tf.math.top_k(totals, count)
        return scores, places, key
    key, own = split(key)
    # The largest of scores with Gumbel noise are a draw without replacement (Kool et al., arXiv 1903.06059).
    places = tf.math.top_k(totals + gumbel(own, totals.shape), count)[1]
    return _at(totals, places), places, key


def _with_ended(plan: Any, settings: Any, beams: Beams, length: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> Beams:
    texts, scores, ended = found
    counts = ended & (tf.range(scores.shape[1]) < plan.num_beams)
    scores = scores / tf.cast(length + 1 - beams.start, tf.float32) ** settings.length_penalty
    if plan.early_stopping is True:
        scores = scores + _worst_where(tf.reduce_all(beams.is_done, -1, keepdims=True))
    scores = scores + _worst_where(~beams.may_improve)[:, None] + _worst_where(~counts)
    best, places = tf.math.top_k(tf.concat((beams.done_scores, scores), 1), plan.num_beams)
    return beams._replace(
        done=_at(tf.concat((beams.done, texts), 1), places),
        done_scores=best,
        is_done=_at(tf.concat((beams.is_done, counts), 1), places),
        done_lengths=_at(tf.concat((beams.done_lengths, tf.fill(scores.shape, length + 1)), 1), places),
    )


def _may_improve(plan: Any, settings: Any, beams: Beams, length: Tensor) -> Tensor:
    """`(batch,)`, whether a running beam could still become better than the worst of the finished ones."""
    is_far = (settings.length_penalty > 0) if plan.early_stopping == "never" else tf.constant(False)
    longest = tf.cast(tf.where(is_far, settings.end, length) - beams.start, tf.float32)
    best = beams.scores[:, :1] / longest**settings.length_penalty
    worst = tf.where(beams.is_done, tf.reduce_min(beams.done_scores, 1, keepdims=True), WORST)
    return tf.reduce_any(best > worst, -1)


def go_on(plan: Any, settings: Any, state: Any) -> Tensor:
    """`()`, whether there is something left to search."""
    beams = state.beams
    is_full = tf.reduce_all(beams.is_done) if plan.early_stopping is True else tf.constant(False)
    return (state.length < settings.end) & tf.reduce_any(beams.may_improve) & ~is_full & ~beams.ended


def finish_beams(plan: Any, settings: Any, state: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences `(batch * returned, room)`, the columns of the longest, and their scores."""
    beams, count = state.beams, plan.num_returned
    sequences = tf.reshape(beams.done[:, :count], (-1, plan.room))
    return sequences, tf.reduce_max(beams.done_lengths[:, :count]), tf.reshape(beams.done_scores[:, :count], (-1,))
