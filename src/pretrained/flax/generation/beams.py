"""Beam search and beam sampling in JAX: torch's search (`pt/generation/beams.py`), with arrays that never change size.

Of the rows of a batch each has `num_beams` running beams and as many places for finished ones. Names of axes: batch,
beams, candidates (continuations looked at in a step), room.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..kv_cache import reordered

__all__ = ["Beams", "begin_beams", "finish_beams", "go_on", "step_beams"]

Array = jax.Array
WORST = -1e9  # finite, so that sums of it stay numbers


class Beams(NamedTuple):
    """What a search keeps beside the running sequences.

    Attributes:
        scores: `(batch, beams)` of the running ones.
        done: `(batch, beams, room)` finished sequences, and their scores `(batch, beams)`.
        done_scores: those. is_done: `(batch, beams)`, which of the places hold one.
        may_improve: `(batch,)`, whether a running beam could become better than the worst finished one.
        start: `()`, columns of the prompt. ended: `()`, whether every candidate of the last step had its end.
    """

    scores: Array
    done: Array
    done_scores: Array
    is_done: Array
    may_improve: Array
    start: Array
    ended: Array


def begin_beams(plan: Any, settings: Any, state: Any) -> Any:
    """The state with all beams of a row of the batch alike, and one of them in front."""
    batch = len(state.ids) // plan.num_beams
    shape = (batch, plan.num_beams)
    scores = jnp.zeros(shape, jnp.float32).at[:, 1:].set(WORST)
    # As torch's search has it: a padding of 0 does not fill what is left of a short sequence, the end does.
    has_end = len(settings.eos) > 0
    fill = jnp.where(settings.pad == 0, settings.eos[0], settings.pad) if has_end else jnp.asarray(-1, jnp.int32)
    is_text = jnp.arange(plan.room) < state.length
    ids = jnp.where(is_text, state.ids, fill).reshape(*shape, -1)
    worst = jnp.full(shape, WORST, jnp.float32)
    improvable, nothing = jnp.ones(batch, bool), jnp.zeros(shape, bool)
    beams = Beams(scores, ids, worst, nothing, improvable, state.length, jnp.asarray(False))
    return state._replace(ids=ids.reshape(-1, plan.room), beams=beams)


def _at(values: Array, places: Array) -> Array:
    """`values` `(batch, n, …)` at `places` `(batch, m)`."""
    return jax.vmap(lambda row, place: row[place])(values, places)


def step_beams(plan: Any, settings: Any, state: Any, processors: Any, logits: Array) -> Any:
    """The state one token further: the best continuations run on, and those that ended compete with what had ended."""
    beams, num_beams = state.beams, plan.num_beams
    batch, vocab = len(state.ids) // num_beams, logits.shape[-1]
    log_probs = processors(state.ids, jax.nn.log_softmax(logits, -1), state.length)
    totals = (log_probs.reshape(batch, num_beams, vocab) + beams.scores[:, :, None]).reshape(batch, -1)
    num_candidates = max(2, 1 + len(settings.eos)) * num_beams
    scores, places, key = _candidates(plan, totals, num_candidates, state.key)
    parents, tokens = places // vocab, (places % vocab).astype(state.ids.dtype)
    texts = _at(state.ids.reshape(batch, num_beams, -1), parents)
    texts = jax.lax.dynamic_update_slice(texts, tokens[:, :, None], (0, 0, state.length))
    ended = (tokens[:, :, None] == settings.eos).any(-1) | (state.length + 1 >= settings.end)
    # What runs on
    running, chosen = jax.lax.top_k(scores + ended * WORST, num_beams)
    rows = _at(parents, chosen) + jnp.arange(batch)[:, None] * num_beams
    cache = reordered(state.cache, rows.reshape(-1))
    beams = _with_ended(plan, settings, beams, state.length, (texts, scores, ended))
    beams = beams._replace(scores=running, ended=ended.all())
    length = state.length + 1
    beams = beams._replace(may_improve=beams.may_improve & _may_improve(plan, settings, beams, length))
    ids = _at(texts, chosen).reshape(-1, plan.room)
    positions = state.positions[rows.reshape(-1)]
    return state._replace(ids=ids, length=length, cache=cache, positions=positions, key=key, beams=beams)


def _candidates(plan: Any, totals: Array, count: int, key: Array) -> tuple[Array, Array, Array]:
    """(scores, places, the next key) of the best continuations of `(batch, beams * vocab)`, or of drawn ones."""
    if not plan.do_sample:
        return *jax.lax.top_k(totals, count), key
    key, own = jax.random.split(key)
    # The largest of scores with Gumbel noise are a draw without replacement (Kool et al., arXiv 1903.06059).
    places = jax.lax.top_k(totals + jax.random.gumbel(own, totals.shape), count)[1]
    return jnp.take_along_axis(totals, places, -1), places, key


def _with_ended(plan: Any, settings: Any, beams: Beams, length: Array, found: tuple[Array, Array, Array]) -> Beams:
    texts, scores, ended = found
    counts = ended & (jnp.arange(scores.shape[1]) < plan.num_beams)
    scores = scores / (length + 1 - beams.start) ** settings.length_penalty
    if plan.early_stopping is True:
        scores = scores + beams.is_done.all(-1, keepdims=True) * WORST
    scores = scores + (~beams.may_improve)[:, None] * WORST + (~counts) * WORST
    merged = jnp.concatenate((beams.done_scores, scores), 1)
    best, places = jax.lax.top_k(merged, plan.num_beams)
    return beams._replace(
        done=_at(jnp.concatenate((beams.done, texts), 1), places),
        done_scores=best,
        is_done=_at(jnp.concatenate((beams.is_done, counts), 1), places),
    )


def _may_improve(plan: Any, settings: Any, beams: Beams, length: Array) -> Array:
    """`(batch,)`, whether a running beam could still become better than the worst of the finished ones."""
    is_far = (plan.early_stopping == "never") & (settings.length_penalty > 0)
    longest = jnp.where(is_far, settings.end, length) - beams.start
    best = beams.scores[:, :1] / longest**settings.length_penalty
    worst = jnp.where(beams.is_done, beams.done_scores.min(1, keepdims=True), WORST)
    return (best > worst).any(-1)


def go_on(plan: Any, settings: Any, state: Any) -> Array:
    """`()`, whether there is something left to search."""
    beams = state.beams
    is_full = beams.is_done.all() if plan.early_stopping is True else jnp.asarray(False)
    return (state.length < settings.end) & beams.may_improve.any() & ~is_full & ~beams.ended


def finish_beams(plan: Any, settings: Any, state: Any) -> tuple[Array, Array]:
    """Sequences `(batch * returned, room)` and their scores."""
    beams, count = state.beams, plan.num_returned
    return beams.done[:, :count].reshape(-1, plan.room), beams.done_scores[:, :count].reshape(-1)
