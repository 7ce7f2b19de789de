"""Small parts of blocks that several families share, and the loop over the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from ..module_config import ModuleConfig
from .kinds import Init
from .kv_cache import Writing
from .layers import LayerNorm, Linear, Module, activation, dropout, folded
from .masks import split_head_mask

__all__ = ["AddNorm", "FirstTokenPooler", "GatedMLP", "Passed", "Widening", "checkpointed", "run_blocks"]

Tensor: TypeAlias = tf.Tensor


class AddNorm(Module):
    """Projection of what a part of a block computed, added to the part's input and normalised (BERT's `output`)."""

    def __init__(self, size: int, hidden_size: int, eps: float, rate: float, init: Init) -> None:
        super().__init__()
        self.dense = Linear(size, hidden_size, init=init)
        self.LayerNorm = LayerNorm(hidden_size, eps)
        self.rate = rate

    def call(self, hidden_states: Tensor, residual: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq, size)`."""
        return self.LayerNorm(dropout(self.dense(hidden_states), self.rate, rng) + residual)


class Widening(Module):
    """First half of a feed-forward part (BERT's `intermediate`)."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str, init: Init) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, intermediate_size, init=init)
        self.act = activation(hidden_act)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, intermediate)`."""
        return self.act(self.dense(hidden_states))


class FirstTokenPooler(Module):
    """A summary of the sequence: its first token, projected (BERT's `pooler`)."""

    def __init__(self, hidden_size: int, init: Init) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size, init=init)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, hidden)`."""
        return tf.tanh(self.dense(hidden_states[:, 0]))


class GatedMLP(Module):
    """Two projections, one gating the other through an activation, and a third one back (arXiv 2002.05202)."""

    def __init__(self, sizes: tuple[int, int], hidden_act: str, init: Init, bias: bool = False) -> None:
        super().__init__()
        hidden_size, intermediate_size = sizes
        self.gate_proj = Linear(hidden_size, intermediate_size, bias, init=init)
        self.up_proj = Linear(hidden_size, intermediate_size, bias, init=init)
        self.down_proj = Linear(intermediate_size, hidden_size, bias, init=init)
        self.act = activation(hidden_act)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return self.down_proj(self.act(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class Passed(NamedTuple):
    """What came of a stack of blocks; tuples of what nobody asked for are None.

    Attributes:
        last: `(batch, seq, hidden)` of the last block.
        states: what went into each block, and `last`.
        attentions: weights of each block, `(batch, heads, queries, keys)`. crossed: those of attention to an encoder.
    """

    last: Tensor
    states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    crossed: tuple[Tensor, ...] | None = None


def run_blocks(
    config: ModuleConfig,
    blocks: Sequence[Any],
    hidden_states: Tensor,
    *,
    output_attentions: bool = False,
    output_hidden_states: bool = False,
    head_mask: Tensor | None = None,
    rng: Tensor | None = None,
    **inputs: Any,
) -> Passed:
    """One block after the other.

    A block is called with the states, `inputs`, `need_weights`, `rng`, and a `head_mask` if there is one; it returns
    the states, the weights or None, and perhaps those of attention to an encoder.
    """
    states, attentions, crossed = [hidden_states], [], []
    for index, (block, mask) in enumerate(zip(blocks, split_head_mask(head_mask, len(blocks)), strict=True)):
        extra = inputs if mask is None else {**inputs, "head_mask": mask}
        found = checkpointed(
            config, block, hidden_states, rng=folded(rng, index), need_weights=output_attentions, **extra
        )
        hidden_states = found[0]
        if output_hidden_states:
            states.append(hidden_states)
        if output_attentions:
            attentions.append(found[1])
            if len(found) > 2 and found[2] is not None:
                crossed.append(found[2])
    return Passed(
        hidden_states,
        tuple(states) if output_hidden_states else None,
        tuple(attentions) if output_attentions else None,
        tuple(crossed) if crossed else None,
    )


def checkpointed(config: ModuleConfig, block: Any, hidden_states: Tensor, **inputs: Any) -> Any:
    """What a block gives; where the config asks for it, computed again in the backward pass instead of kept."""
    writes = any(isinstance(value, Writing) for value in inputs.values())  # then nobody goes backwards
    if not config.gradient_checkpointing or writes:
        return block(hidden_states, **inputs)
    # What a gradient flows to is an argument of the function that is computed again; the rest it may close over.
    arrays = {name: value for name, value in inputs.items() if tf.is_tensor(value) and value.dtype.is_floating}
    fixed = {name: value for name, value in inputs.items() if name not in arrays}

    made: list[bool] = []  # which parts of the result there are: only tensors can be computed again

    def again(states: Tensor, *values: Tensor) -> list[Tensor]:
        found = block(states, **dict(zip(arrays, values, strict=True)), **fixed)
        made[:] = [part is not None for part in found]
        return [part for part in found if part is not None]

    parts = iter(tf.recompute_grad(again)(hidden_states, *arrays.values()))
    return tuple(next(parts) if there else None for there in made)
