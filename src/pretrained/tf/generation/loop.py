"""Decoding one token after another: where it begins, one step, and the ways to run them.

    whole      prompt and loop are one program, by TensorFlow's graph or by XLA
    stepped    the loop is Python's: for streamers, and for debugging without any program

Rows are those of the batch times what each becomes: samples, or beams. The text of a row begins at the first column of
`ids` `(rows, room)`; in the cache it begins behind the padding that rounds the prompt up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from ..kv_cache import carried, repeated, uncarried
from .beams import begin_beams, finish_beams, go_on, step_beams
from .contrastive import begin_contrastive, step_contrastive
from .sampling import gumbel, split

__all__ = ["Decoder", "Plan", "Prompt", "Settings", "State"]

Tensor: TypeAlias = tf.Tensor


@dataclass(frozen=True)
class Plan:
    """What a program is made for.

    Attributes:
        room: columns of `ids`: the prompt and all that may follow.
        cache_room: tokens that the cache has room for.
        cache_dtype: of what it holds.
        copies: rows that each row of the batch becomes.
        do_sample: whether tokens are drawn.
        num_beams: beams of each row of the batch; 1 for none.
        num_returned: sequences of each row of the batch that are returned.
        early_stopping: of beams, as the setting says it.
        is_crossed: whether a decoder attends to an encoder.
        keeps_last: whether the module can be asked for the logits of the last token alone.
        first_position: position id of a text's first token.
        num_tried: tokens that contrastive search tries at each step; 0 for another search.
    """

    room: int
    cache_room: int
    cache_dtype: str
    copies: int = 1
    do_sample: bool = False
    num_beams: int = 1
    num_returned: int = 1
    early_stopping: Any = False
    is_crossed: bool = False
    keeps_last: bool = False
    first_position: int = 0
    num_tried: int = 0


class Prompt(NamedTuple):
    """What there is at first.

    Attributes:
        ids: `(batch, padded)`, padded on the left to a size that programs are made for.
        mask: `(batch, padded)`, 0 for padding of either kind.
        length: `()`, columns of the prompt as the caller gave it.
        inputs: further inputs of every step, such as what an encoder made.
    """

    ids: Tensor
    mask: Tensor
    length: Tensor
    inputs: dict[str, Any]


class Settings(NamedTuple):
    """Numbers that a program is given.

    Attributes:
        end: `()`, columns of text at which everything ends.
        eos: `(ends,)` ids that end a row; none if it is empty.
        pad: `()`, what stands behind the end of a row.
        length_penalty: `()`, of beams. penalty_alpha: `()`, of contrastive search.
    """

    end: Tensor
    eos: Tensor
    pad: Tensor
    length_penalty: Tensor
    penalty_alpha: Tensor


class State(NamedTuple):
    """Where decoding is.

    Attributes:
        ids: `(rows, room)`. length: `()` columns of it that are text.
        finished: `(rows,)`. logits: `(rows, vocab)` of what comes next.
        cache: of the model. positions: `(rows,)` place of the next token in its text.
        key: of random numbers. mask: `(rows, cache room)`, 0 for padding. inputs: further ones of every step.
        beams: where a search keeps its own; empty without one.
    """

    ids: Tensor
    length: Tensor
    finished: Tensor
    logits: Tensor
    cache: Any
    positions: Tensor
    key: Tensor
    mask: Tensor
    inputs: dict[str, Any]
    beams: Any = ()


class Decoder:
    """The steps of one plan with one module; every method is a function of tensors.

    Args:
        module: of the model, called by the name of a method.
        plan: what to decode.
        empty_cache: (module, (rows, room), dtype, further inputs) → a cache without tokens.
        method: of the module, that computes a step.
    """

    def __init__(self, module: Any, plan: Plan, empty_cache: Callable[..., Any], method: str) -> None:
        self.plan, self._module, self._empty_cache = plan, module, empty_cache
        self._method: Any = getattr(module, method)

    def run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, inputs: Any, **more: Any) -> Any:
        """What the module gives for `(rows, new)` tokens behind those of the cache."""
        prefix = "decoder_" if self.plan.is_crossed else ""
        given = {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, "past_key_values": cache, **inputs, **more}
        if not self.plan.is_crossed:
            given["position_ids"] = positions + self.plan.first_position
        if self.plan.keeps_last:
            given["logits_to_keep"] = 1
        return self._method(**given)

    def begin(self, prompt: Prompt, settings: Settings, key: Tensor) -> State:
        """The state behind the prompt, each row of the batch made `copies` rows."""
        plan = self.plan
        batch, padded = prompt.ids.shape
        positions = tf.maximum(tf.cumsum(prompt.mask, -1) - 1, 0)
        cache = self._empty_cache(self._module, (batch, plan.cache_room), plan.cache_dtype, prompt.inputs)
        # What comes may be looked at.
        mask = tf.pad(prompt.mask, ((0, 0), (0, plan.cache_room - padded)), constant_values=1)
        more = {"output_hidden_states": True} if plan.num_tried else {}
        out = self.run(prompt.ids, mask, positions, cache, prompt.inputs, **more)
        # The text without the padding in front of it, which no processor is to see.
        text = tf.roll(prompt.ids, prompt.length - padded, 1)
        text = tf.pad(text, ((0, 0), (0, plan.room - padded)))
        ids = tf.where(tf.range(plan.room) < prompt.length, text, settings.pad)
        found = (ids, out.logits[:, -1], out.past_key_values, positions[:, -1] + 1, mask, prompt.inputs)
        ids, logits, cache, positions, mask, inputs = repeated(found, plan.copies)
        finished = tf.zeros(batch * plan.copies, tf.bool)
        state = State(ids, prompt.length, finished, logits, cache, positions, key, mask, inputs)
        if plan.num_tried:
            return begin_contrastive(plan, state, out)
        return begin_beams(plan, settings, state) if plan.num_beams > 1 else state

    def choose(self, state: State, settings: Settings, processors: Any) -> State:
        """The state with one token more in each row."""
        logits = tf.cast(state.logits, tf.float32)
        if self.plan.num_beams > 1:
            found: State = step_beams(self.plan, settings, state, processors, logits)
            return found
        scores, key = processors(state.ids, logits, state.length), state.key
        if self.plan.num_tried:
            tokens, state = step_contrastive(self, settings, state, scores)
        elif self.plan.do_sample:
            key, own = split(key)
            tokens = tf.argmax(scores + gumbel(own, scores.shape), -1, tf.int32)
        else:
            tokens = tf.argmax(scores, -1, tf.int32)
        tokens = tf.where(state.finished, settings.pad, tokens)
        ids = tf.where(tf.range(self.plan.room) == state.length, tokens[:, None], state.ids)
        finished = state.finished | tf.reduce_any(tokens[:, None] == settings.eos, -1)
        return state._replace(ids=ids, finished=finished, length=state.length + 1, key=key)

    def forward(self, state: State) -> State:
        """The state with the logits behind its last token."""
        if self.plan.num_tried:
            return state  # it has them: the token was tried before it was chosen
        last = tf.gather(state.ids, state.length - 1, axis=1)[:, None]
        out = self.run(last, state.mask, state.positions[:, None], state.cache, state.inputs)
        return state._replace(logits=out.logits[:, -1], cache=out.past_key_values, positions=state.positions + 1)

    def goes_on(self, state: State, settings: Settings) -> Tensor:
        """`()`, whether another token is to come."""
        if self.plan.num_beams > 1:
            return go_on(self.plan, settings, state)
        return (state.length < settings.end) & ~tf.reduce_all(state.finished)

    def result(self, state: State, settings: Settings) -> tuple[Tensor, ...]:
        """Sequences `(rows, room)`, how many columns of them are text, and of beams their scores."""
        if self.plan.num_beams > 1:
            return finish_beams(self.plan, settings, state)
        return state.ids, state.length

    def whole(self, prompt: Prompt, settings: Settings, processors: Any, key: Tensor) -> tuple[Tensor, ...]:
        """All of it."""
        first = self.choose(self.begin(prompt, settings, key), settings, processors)
        constant = {"mask": first.mask, "inputs": first.inputs}

        def of(moving: Any) -> State:
            found = dict(zip(names, moving, strict=True))
            return State(**{**found, "cache": uncarried(found["cache"], first.ids.shape[0])}, **constant)

        names = [name for name in State._fields if name not in constant]
        moving = tf.while_loop(
            lambda *moving: self.goes_on(of(moving), settings),
            lambda *moving: _moving(self.choose(self.forward(of(moving)), settings, processors), names),
            _moving(first, names),
        )
        return self.result(of(moving), settings)

    def stepped(
        self, prompt: Prompt, settings: Settings, processors: Any, key: Tensor, on_token: Callable[[Any], None] | None
    ) -> tuple[Tensor, ...]:
        """The same, step by step; `on_token` is called with the tokens `(rows,)` of each."""
        state = self.begin(prompt, settings, key)
        while True:
            state = self.choose(state, settings, processors)
            if on_token is not None:
                on_token(state.ids[:, int(state.length) - 1])
            if not self.goes_on(state, settings):
                return self.result(state, settings)
            state = self.forward(state)


def _moving(state: State, names: list[str]) -> list[Any]:
    return [carried(state.cache) if name == "cache" else getattr(state, name) for name in names]
