"""Decoding one token after another: where it begins, one step, and the three ways to run them.

    traced     prompt and loop are one compiled program
    stepped    prompt and step are compiled, and the loop is Python's: for streamers and for what looks at each token
    untraced   nothing is compiled, so that a debugger sees it all

Rows are those of the batch times what each becomes: samples, or beams. The text of a row begins at the first column of
`ids` `(rows, room)`; in the cache it begins behind the padding that rounds the prompt up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..calls import Program
from .beams import Beams, begin_beams, finish_beams, go_on, step_beams

__all__ = ["Plan", "Prompt", "Settings", "run"]

Array = jax.Array


@dataclass(frozen=True)
class Plan:
    """What a compiled program is made for.

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


class Prompt(NamedTuple):
    """What there is at first.

    Attributes:
        ids: `(batch, padded)`, padded on the left to a size that programs are compiled for.
        mask: `(batch, padded)`, 0 for padding of either kind.
        length: `()`, columns of the prompt as the caller gave it.
        inputs: further inputs of every step, such as what an encoder made.
    """

    ids: Any
    mask: Any
    length: Any
    inputs: dict[str, Any]


class Settings(NamedTuple):
    """Numbers that a program is given.

    Attributes:
        end: `()`, columns of text at which everything ends.
        eos: `(ends,)` ids that end a row; none if it is empty.
        pad: `()`, what stands behind the end of a row.
        length_penalty: `()`, of beams.
    """

    end: Array
    eos: Array
    pad: Array
    length_penalty: Array


class State(NamedTuple):
    """Where decoding is.

    Attributes:
        ids: `(rows, room)`. length: `()` columns of it that are text.
        finished: `(rows,)`. logits: `(rows, vocab)` of what comes next.
        cache: of the model. positions: `(rows,)` position of the next token.
        key: of random numbers. mask: `(rows, cache room)`, 0 for padding. inputs: further ones of every step.
        beams: where a search keeps its own.
    """

    ids: Array
    length: Array
    finished: Array
    logits: Array
    cache: Any
    positions: Array
    key: Array
    mask: Array
    inputs: dict[str, Any]
    beams: Beams | None = None


class Decoder:
    """The steps of one plan with one program; every method is a function of arrays.

    Args:
        program: of the model.
        plan: what to decode.
        empty_cache: (module, (rows, room), dtype, further inputs) → a cache without tokens.
        method: of the module, that computes a step.
    """

    def __init__(self, program: Program, plan: Plan, empty_cache: Callable[..., Any], method: str) -> None:
        self.structure, self.plan, self._empty_cache, self._method = program.structure, plan, empty_cache, method

    def _run(self, module: Any, ids: Array, mask: Array, positions: Array, cache: Any, inputs: Any) -> Any:
        prefix = "decoder_" if self.plan.is_crossed else ""
        given = {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, "past_key_values": cache, **inputs}
        if not self.plan.is_crossed:
            given["position_ids"] = positions
        if self.plan.keeps_last:
            given["logits_to_keep"] = 1
        return getattr(module, self._method)(**given)

    def begin(self, params: Any, prompt: Prompt, settings: Settings, key: Array) -> State:
        """The state behind the prompt, each row of the batch made `copies` rows."""
        plan, module = self.plan, self.structure.module(params)
        batch, padded = prompt.ids.shape
        positions = jnp.maximum(jnp.cumsum(prompt.mask, -1) - 1, 0)
        cache = self._empty_cache(module, (batch, plan.cache_room), plan.cache_dtype, prompt.inputs)
        # What comes may be looked at.
        mask = jnp.pad(prompt.mask, ((0, 0), (0, plan.cache_room - padded)), constant_values=1)
        out = self._run(module, prompt.ids, mask, positions, cache, prompt.inputs)
        # The text without the padding in front of it, which no processor is to see.
        text = jnp.roll(prompt.ids, prompt.length - padded, 1)
        text = jnp.pad(text, ((0, 0), (0, plan.room - padded)))
        is_text = jnp.arange(plan.room) < prompt.length
        found = out.logits[:, -1], out.past_key_values, positions[:, -1] + 1
        ids = jnp.where(is_text, text, settings.pad)
        ids, mask, inputs, (logits, cache, positions) = _repeated((ids, mask, prompt.inputs, found), plan.copies)
        finished = jnp.zeros(batch * plan.copies, bool)
        state = State(ids, prompt.length, finished, logits, cache, positions, key, mask, inputs)
        return begin_beams(plan, settings, state) if plan.num_beams > 1 else state

    def choose(self, state: State, settings: Settings, processors: Any) -> State:
        """The state with one token more in each row."""
        logits = state.logits.astype(jnp.float32)
        if self.plan.num_beams > 1:
            return step_beams(self.plan, settings, state, processors, logits)
        scores, key = processors(state.ids, logits, state.length), state.key
        if self.plan.do_sample:
            key, own = jax.random.split(key)
            tokens = jax.random.categorical(own, scores, -1)
        else:
            tokens = scores.argmax(-1)
        tokens = jnp.where(state.finished, settings.pad, tokens).astype(state.ids.dtype)
        ids = jax.lax.dynamic_update_slice(state.ids, tokens[:, None], (0, state.length))
        finished = state.finished | (tokens[:, None] == settings.eos).any(-1)
        return state._replace(ids=ids, finished=finished, length=state.length + 1, key=key)

    def forward(self, params: Any, state: State) -> State:
        """The state with the logits behind its last token."""
        module = self.structure.module(params)
        last = jax.lax.dynamic_slice_in_dim(state.ids, state.length - 1, 1, 1)
        out = self._run(module, last, state.mask, state.positions[:, None], state.cache, state.inputs)
        return state._replace(logits=out.logits[:, -1], cache=out.past_key_values, positions=state.positions + 1)

    def goes_on(self, state: State, settings: Settings) -> Array:
        """`()`, whether another token is to come."""
        if self.plan.num_beams > 1:
            return go_on(self.plan, settings, state)
        return (state.length < settings.end) & ~state.finished.all()

    def result(self, state: State, settings: Settings) -> tuple[Array, Array | None]:
        """Sequences `(rows, room)`, and of beams their scores."""
        if self.plan.num_beams > 1:
            return finish_beams(self.plan, settings, state)
        return state.ids, None

    def whole(
        self, params: Any, prompt: Prompt, settings: Settings, processors: Any, key: Array
    ) -> tuple[Array, Array | None]:
        """All of it."""
        state = self.choose(self.begin(params, prompt, settings, key), settings, processors)

        def body(state: State) -> State:
            return self.choose(self.forward(params, state), settings, processors)

        state = jax.lax.while_loop(lambda state: self.goes_on(state, settings), body, state)
        return self.result(state, settings)


def _repeated(tree: Any, times: int) -> Any:
    """Every array with each of its rows `times` times, one after another; what has no rows stays."""
    if times == 1:
        return tree
    return jax.tree.map(lambda x: jnp.repeat(x, times, 0) if x.ndim else x, tree)


class Compiled(NamedTuple):
    """The compiled functions of a decoder."""

    whole: Any
    begin: Any
    choose: Any
    forward: Any
    result: Any


@lru_cache(maxsize=64)
def _compiled(program: Program, plan: Plan, empty_cache: Any, method: str) -> tuple[Decoder, Compiled]:
    decoder = Decoder(program, plan, empty_cache, method)
    return decoder, Compiled(
        jax.jit(decoder.whole),
        jax.jit(decoder.begin),
        jax.jit(decoder.choose, donate_argnums=0),
        jax.jit(decoder.forward, donate_argnums=1),
        jax.jit(decoder.result),
    )


def run(
    program: Program,
    plan: Plan,
    empty_cache: Any,
    method: str,
    arguments: tuple[Any, Prompt, Settings, Any, Array],
    *,
    trace: bool = True,
    on_token: Callable[[Any], None] | None = None,
) -> tuple[Array, Array | None]:
    """Sequences `(rows, room)` and scores or None.

    Args:
        program: of the model. plan: what to decode. empty_cache, method: as `Decoder` has them.
        arguments: parameters, prompt, settings, processors and a key.
        trace: False compiles nothing.
        on_token: called with the tokens `(rows,)` of each step; then the loop is Python's.
    """
    decoder, compiled = _compiled(program, plan, empty_cache, method)
    params, prompt, settings, processors, key = arguments
    if trace and on_token is None:
        whole: tuple[Array, Array | None] = compiled.whole(*arguments)
        return whole
    functions = compiled if trace else decoder
    state = functions.begin(params, prompt, settings, key)
    while True:
        state = functions.choose(state, settings, processors)
        if on_token is not None:
            on_token(state.ids[:, int(state.length) - 1])
        if not decoder.goes_on(state, settings):
            break
        state = functions.forward(params, state)
    found: tuple[Array, Array | None] = functions.result(state, settings)
    return found
