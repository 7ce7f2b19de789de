"""The logits processors of JAX that settings ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax

from ...generation import processors
from . import logits as L
from . import logits_repeats as R

__all__ = ["processors_for"]


@L.registered
@dataclass
class _Opaque(L.FlaxLogitsProcessor):
    """Somebody's function, which is a part of the program."""

    function: Any = field(metadata={"static": True})

    def __call__(self, input_ids: Any, scores: Any, cur_len: Any) -> Any:
        return self.function(input_ids, scores, cur_len)


_CLASSES = {name: getattr(module, name) for module in (L, R) for name in module.__all__ if name.startswith("Flax")}


def _made(name: str, *arguments: Any, **keywords: Any) -> Any:
    cls = _CLASSES[f"Flax{name}"]
    return cls.of(*arguments) if cls is R.FlaxSequenceBiasLogitsProcessor else cls(*arguments, **keywords)


def processors_for(
    config: Any, length: int, max_length: int, encoder_ids: Any, eos: list[int], given: Iterable[Any]
) -> L.FlaxLogitsProcessorList:
    """The processors for a prompt of `length` columns, and those that the caller gives.

    Raises:
        InvalidOptionError: a setting that needs another.
    """
    own = [item if jax.tree_util.all_leaves([item]) is False else _Opaque(item) for item in given]
    found = processors.processors_for(_made, config, length, max_length, encoder_ids, eos, own)
    return L.FlaxLogitsProcessorList(found)
