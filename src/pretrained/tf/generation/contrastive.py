"""Contrastive search: likely tokens that are unlike what was there before (Su et al., arXiv 2202.06417)."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from ..kv_cache import reordered, repeated

__all__ = ["Seen", "begin_contrastive", "step_contrastive"]

Tensor: TypeAlias = tf.Tensor


class Seen(NamedTuple):
    """The last layer's states of the text, at their places in the cache.

    Attributes:
        states: `(batch, cache room, hidden)`, of length 1. known: `(batch, cache room)`, false for padding and for what
            is yet to come. start: `()`, the place of the next token.
    """

    states: Tensor
    known: Tensor
    start: Tensor


def _last_states(plan: Any, out: Any) -> Tensor:
    states = out["decoder_hidden_states" if plan.is_crossed else "hidden_states"][-1]
    return tf.math.l2_normalize(tf.cast(states, tf.float32), -1)


def begin_contrastive(plan: Any, state: Any, out: Any) -> Any:
    """The state with what the prompt's tokens looked like."""
    states = _last_states(plan, out)
    missing = plan.cache_room - states.shape[1]
    is_prompt = tf.range(plan.cache_room) < states.shape[1]
    known = is_prompt & tf.cast(state.mask, tf.bool)
    padded = tf.pad(states, ((0, 0), (0, missing), (0, 0)))
    return state._replace(beams=Seen(padded, known, tf.constant(states.shape[1])))


def step_contrastive(decoder: Any, settings: Any, state: Any, scores: Tensor) -> tuple[Tensor, Any]:
    """(the next token of each row, the state with the logits behind it).

    Each of the likeliest tokens is given to the model; its score is its probability, less `penalty_alpha` times the
    largest cosine similarity of its state with those before it.
    """
    plan, seen, batch = decoder.plan, state.beams, scores.shape[0]
    count = plan.num_tried
    probabilities, candidates = tf.math.top_k(tf.nn.softmax(scores, -1), count)
    wide = repeated((state.mask, state.positions, state.cache, state.inputs), count)
    mask, positions, cache, inputs = wide
    tried = tf.reshape(candidates, (-1, 1))
    out = decoder.run(tried, mask, positions[:, None], cache, inputs, output_hidden_states=True)
    new = tf.reshape(_last_states(plan, out)[:, -1], (batch, count, -1))
    likeness = tf.einsum("bch,bsh->bcs", new, seen.states)
    likeness = tf.where(seen.known[:, None], likeness, tf.float32.min)
    alpha = settings.penalty_alpha
    winner = tf.argmax((1 - alpha) * probabilities - alpha * tf.reduce_max(likeness, -1), -1, tf.int32)
    rows = tf.range(batch) * count + winner
    tokens = tf.gather(candidates, winner, batch_dims=1)
    here = tf.range(plan.cache_room) == seen.start
    chosen = tf.gather(new, winner, batch_dims=1)
    states = tf.where(here[:, None], chosen[:, None], seen.states)
    cross = out.past_key_values.cross
    cache = reordered(out.past_key_values, rows)
    if cross:
        cache = cache._replace(cross=tuple((tf.gather(keys, rows), tf.gather(values, rows)) for keys, values in cross))
    return tokens, state._replace(
        logits=tf.gather(out.logits[:, -1], rows),
        cache=cache,
        positions=state.positions + 1,
        beams=Seen(states, seen.known | here, seen.start + 1),
    )
