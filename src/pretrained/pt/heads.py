"""Attention heads that are taken out of a model.

A class says how by `_prune_heads({layer: [heads]})`. An attention that can be pruned has `num_heads`, `head_dim` and
the set `pruned_heads`, shapes in its forward pass that follow from the first two, and one call of `prune_linears`,
`prune_grouped_linears` or `prune_conv1ds`. Heads keep the numbers they had at first, so a head is taken out once,
however often it is named, and a config that has `pruned_heads` builds the smaller model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InvalidOptionError
from ..pruning import checked_table, joined_tables
from .quantization.base import refuse_quantized
from .reshape import keep, with_parameters

__all__ = [
    "check_groups",
    "find_pruneable_heads_and_indices",
    "prune",
    "prune_as_configured",
    "prune_conv1d_layer",
    "prune_conv1ds",
    "prune_grouped_linear",
    "prune_grouped_linears",
    "prune_groups",
    "prune_layer",
    "prune_linear_layer",
    "prune_linears",
]


def prune(model: Any, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
    """Takes heads out of a model and adds them to `config.pruned_heads`.

    Args:
        model: one whose base model has `_prune_heads`.
        heads_to_prune: layer → heads, numbered as they were at first; a negative layer counts from the end.

    Raises:
        InvalidOptionError: there is no such layer or head. NotImplementedError: the class cannot be pruned.
    """
    table = checked_table(model.config, heads_to_prune, InvalidOptionError)
    refuse_quantized(model, None, "prune heads")
    base = model.base_model
    base._prune_heads({layer: list(heads) for layer, heads in table.items()})
    for config in {id(part.config): part.config for part in (model, base)}.values():
        config.pruned_heads = joined_tables(config.pruned_heads or {}, table)


def prune_as_configured(model: Any) -> None:
    """Takes out the heads that the config says are gone; those that are gone already stay so.

    Raises:
        ConfigError: the config names a layer or head that there is not, or the class cannot be pruned.
    """
    table = checked_table(model.config, model.config.pruned_heads, ConfigError)
    try:
        model.base_model._prune_heads({layer: list(heads) for layer, heads in table.items()})
    except (NotImplementedError, InvalidOptionError) as error:
        raise ConfigError(f"config key 'pruned_heads': {error}", key="pruned_heads") from error
    model.config.pruned_heads = table


# For attention classes


def prune_linears(
    attention: Any,
    heads: Iterable[int],
    inputs: Sequence[nn.Module],
    output: nn.Module,
    *,
    num_heads: str = "num_heads",
    head_dim: str = "head_dim",
) -> None:
    """Takes heads out of an attention with one linear layer each for queries, keys and values.

    Args:
        attention: has the two counts, under the names given, and the set `pruned_heads`; all follow.
        heads: which, numbered as they were at first.
        inputs: the layers that make queries, keys and values, `(heads * head_dim, hidden)`.
        output: the layer that takes the merged heads, `(hidden, heads * head_dim)`.
        num_heads: the attribute's name.
        head_dim: the attribute's name.
    """
    index = _take_out(attention, heads, num_heads, head_dim)
    if index is None:
        return
    for layer in inputs:
        keep(layer, index, dim=0, output=0)
    keep(output, index, dim=1, output=0)


def prune_grouped_linears(
    attention: Any,
    heads: Collection[int],
    query: nn.Module,
    keys_and_values: Sequence[nn.Module],
    output: nn.Module,
    *,
    group_size: int,
) -> None:
    """As `prune_linears`, where every `group_size` heads of queries share a head of keys and values.

    Raises:
        InvalidOptionError: part of a group is left over.
    """
    kept = _take_out_groups(attention, heads, group_size)
    if kept is None:
        return
    index, shared = kept
    keep(query, index, dim=0, output=0)
    keep(output, index, dim=1, output=0)
    for layer in keys_and_values:
        keep(layer, shared, dim=0, output=0)


def prune_grouped_linear(
    attention: Any, heads: Collection[int], inputs: nn.Module, output: nn.Module, *, group_size: int
) -> None:
    """As `prune_grouped_linears`, where queries, keys and values are, in this order, the rows of one layer `inputs`.

    Raises:
        InvalidOptionError: part of a group is left over.
    """
    width = attention.num_heads * attention.head_dim
    kept = _take_out_groups(attention, heads, group_size)
    if kept is None:
        return
    index, shared = kept
    rows = torch.cat([index, width + shared, width + width // group_size + shared])
    keep(inputs, rows, dim=0, output=0)
    keep(output, index, dim=1, output=0)


def _take_out_groups(attention: Any, heads: Collection[int], group_size: int) -> tuple[Tensor, Tensor] | None:
    """Counts whole groups out; the places of what stays of queries and of keys, or None if they were gone before."""
    check_groups(heads, attention.pruned_heads, group_size)
    gone = {head // group_size for head in attention.pruned_heads}
    groups = {head // group_size for head in heads}
    num_groups = attention.num_heads // group_size
    index = _take_out(attention, heads, "num_heads", "head_dim")
    if index is None:
        return None
    return index, find_pruneable_heads_and_indices(groups, num_groups, attention.head_dim, gone)[1]


def prune_groups(attentions: Mapping[int, Any], heads_to_prune: Mapping[int, Collection[int]]) -> None:
    """Calls `prune_heads` of the attention of each layer; where a group would be left in part, of none.

    Args:
        attentions: layer → one with `group_size` and `pruned_heads`.
        heads_to_prune: layer → heads.

    Raises:
        InvalidOptionError: part of a group is left over.
    """
    for layer, heads in heads_to_prune.items():
        check_groups(heads, attentions[layer].pruned_heads, attentions[layer].group_size)
    for layer, heads in heads_to_prune.items():
        attentions[layer].prune_heads(heads)


def check_groups(heads: Iterable[int], pruned: Collection[int], group_size: int) -> None:
    """Raises InvalidOptionError unless `heads` are whole groups, but for what is `pruned` already."""
    asked = set(heads)
    whole = {group * group_size + i for group in {head // group_size for head in asked} for i in range(group_size)}
    if rest := sorted(whole - asked - set(pruned)):
        raise InvalidOptionError(
            f"cannot prune heads {sorted(asked)}: every {group_size} heads share their keys and values, so they go "
            f"together; heads {rest} would be left over",
            key="heads_to_prune",
        )


def prune_conv1ds(attention: Any, heads: Iterable[int], inputs: nn.Module, output: nn.Module, parts: int = 3) -> None:
    """Takes heads out of an attention whose queries, keys and values are the `parts` of one layer.

    Args:
        attention: has `num_heads`, `head_dim` and the set `pruned_heads`; all follow.
        heads: which, numbered as they were at first.
        inputs: the layer that makes them, with a weight `(hidden, parts * heads * head_dim)`.
        output: the layer that takes the merged heads, with a weight `(heads * head_dim, hidden)`.
        parts: how many.
    """
    width = attention.num_heads * attention.head_dim
    index = _take_out(attention, heads, "num_heads", "head_dim")
    if index is None:
        return
    keep(inputs, torch.cat([index + part * width for part in range(parts)]), dim=1, output=1)
    keep(output, index, dim=0, output=1)


def _take_out(attention: Any, heads: Iterable[int], num_heads: str, head_dim: str) -> Tensor | None:
    """Counts the heads out; the places of what stays, or None if all of them were gone before."""
    count, size, pruned = getattr(attention, num_heads), getattr(attention, head_dim), attention.pruned_heads
    taken, index = find_pruneable_heads_and_indices(heads, count, size, pruned)
    if not taken:
        return None
    setattr(attention, num_heads, count - len(taken))
    attention.pruned_heads = set(pruned) | taken
    return index


# What classes call that prune by themselves


def find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: Collection[int]
) -> tuple[set[int], Tensor]:
    """The heads that are still there to be pruned, and the places `(kept,)` of what stays of `n_heads * head_size`.

    Args:
        heads: numbered as they were at first.
        n_heads: how many there are now.
        head_size: features of each.
        already_pruned_heads: numbered as they were at first.
    """
    gone = set(already_pruned_heads)
    taken = set(heads) - gone
    stays = torch.ones(n_heads, head_size, dtype=torch.bool, device="cpu")
    for head in taken:
        stays[head - sum(before < head for before in gone)] = False
    return taken, torch.arange(n_heads * head_size, device="cpu")[stays.view(-1)]


def prune_linear_layer(layer: nn.Linear, index: Tensor, dim: int = 0) -> nn.Linear:
    """A linear layer with only the rows (`dim` 0: outputs, bias) or columns (1: inputs) that `index` names."""
    new: nn.Linear = with_parameters(layer, layer._parameters)
    keep(new, index, dim, output=0)
    return new


def prune_conv1d_layer(layer: Any, index: Tensor, dim: int = 1) -> Any:
    """As `prune_linear_layer` for a layer whose weight is `(inputs, outputs)`, so that the outputs are `dim` 1."""
    new = with_parameters(layer, layer._parameters)
    keep(new, index, dim, output=1)
    return new


def prune_layer(layer: Any, index: Tensor, dim: int | None = None) -> Any:
    """`prune_linear_layer` or, for a layer with `(inputs, outputs)`, `prune_conv1d_layer`.

    Raises:
        InvalidOptionError: the layer is neither.
    """
    if isinstance(layer, nn.Linear):
        return prune_linear_layer(layer, index, 0 if dim is None else dim)
    if "nf" in layer.__dict__:
        return prune_conv1d_layer(layer, index, 1 if dim is None else dim)
    raise InvalidOptionError(f"a {type(layer).__name__} cannot be pruned: only Linear and Conv1D can", key="layer")
