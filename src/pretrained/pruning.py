"""Attention heads to be taken out: the table of them, checked, for every framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .errors import ConfigError, InvalidOptionError, PretrainedError

__all__ = ["Kept", "checked_table", "joined_tables", "kept_heads", "kept_rows"]


def checked_table(
    config: Any, heads_to_prune: Any, error: type[ConfigError] | type[InvalidOptionError]
) -> dict[int, list[int]]:
    """{layer: [heads]} as a caller or a config gives it, with layers counted from 0 and heads in order.

    Raises:
        InvalidOptionError or ConfigError, as `error` says: it is no such table, or there is no such layer or head.
    """
    if not isinstance(heads_to_prune, Mapping):
        found = f"{heads_to_prune!r:.80}"
        raise error(f"heads_to_prune must be {{layer: [heads]}}, found {found}", key="heads_to_prune")
    num_layers, num_heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    table: dict[int, list[int]] = {}
    for layer, heads in heads_to_prune.items():
        _check_index("layer", layer, num_layers, error, may_be_negative=True)
        if isinstance(heads, str) or not isinstance(heads, Iterable):
            raise error(f"heads_to_prune[{layer}] must be a list of heads, found {heads!r:.80}", key="heads_to_prune")
        wanted = list(heads)
        for head in wanted:
            _check_index(f"head of layer {layer}", head, num_heads, error)
        place = layer + num_layers if layer < 0 else layer
        table[place] = sorted({*table.get(place, ()), *wanted})
    return table


def _check_index(
    what: str, value: Any, count: Any, error: type[PretrainedError], may_be_negative: bool = False
) -> None:
    is_counted = isinstance(count, int)
    low = -count if may_be_negative and is_counted else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (is_counted and value >= count):
        limit = f"; there are {count}, from 0 on" if is_counted else ""
        raise error(f"cannot prune {what} {value!r:.40}: there is no such {what}{limit}", key="heads_to_prune")


def joined_tables(first: Mapping[int, Iterable[int]], second: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    """The heads of both, by layer."""
    layers = sorted({*first, *second})
    return {layer: sorted({*first.get(layer, ()), *second.get(layer, ())}) for layer in layers}


class Kept(NamedTuple):
    """The heads of a layer: how many there were, and the places among them of those that stay."""

    before: int
    places: list[int]

    def groups(self, size: int) -> Kept:
        """The same of the groups of `size` heads that share keys and values; whole groups go."""
        return Kept(self.before // size, sorted({place // size for place in self.places}))


def kept_heads(num_heads: int, before: Iterable[int], gone: Iterable[int]) -> Kept:
    """The heads of a layer of `num_heads` at first that stay when those of `before` are gone and those of `gone` go."""
    there = [head for head in range(num_heads) if head not in set(before)]
    return Kept(len(there), [index for index, head in enumerate(there) if head not in set(gone)])


def kept_rows(size: int, heads: Kept, num_blocks: int) -> list[int]:
    """Which of `size` rows stay: those of the heads that stay, in each of the blocks that the rows are."""
    block = size // num_blocks
    row = block // heads.before
    return [start + place * row + i for start in range(0, size, block) for place in heads.places for i in range(row)]
