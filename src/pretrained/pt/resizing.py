"""Embeddings with another number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..configuration import PretrainedConfig
from ..errors import OptionError
from ..sizes import check_positive, rounded
from .init import fill_untouched, mark_untouched, owner_of, reset
from .new_rows import drawn_like
from .quantization.base import refuse_quantized
from .reshape import put_everywhere, replacement, set_sizes, with_parameters

__all__ = ["resize_layers", "resize_positions", "resize_rows", "resize_tokens", "rounded"]


def resize_tokens(model: Any, num_tokens: int | None, multiple: int | None, mean_resizing: bool) -> Any:
    """The input embeddings of `model`, with `num_tokens` rows, rounded up; head and config follow."""
    layer = model.get_input_embeddings()
    if num_tokens is None and multiple is None:
        return layer
    old = _weight_of(layer).shape[0]
    size = rounded(old if num_tokens is None else num_tokens, multiple)
    model.tie_weights()  # a move to the meta device, for one, leaves copies of what was tied
    # Classes that override it need not know the second keyword.
    model._resize_token_embeddings(size, **({} if mean_resizing else {"mean_resizing": False}))
    model.config.get_text_config().vocab_size = size
    _replace_in_configs(model, "vocab_size", old, size)
    for module in model.modules():
        if module is model or module.__dict__.get("vocab_size") == old:
            module.__dict__["vocab_size"] = size
    model.tie_weights()
    return model.get_input_embeddings()


def _replace_in_configs(model: nn.Module, key: str, old: int, new: int) -> None:
    """Sets `key` to `new` in every config of the model and its parts that says `old`."""
    for config in {id(found): found for found in _configs(model)}.values():
        if getattr(config, key, None) == old:
            setattr(config, key, new)


def _configs(model: nn.Module) -> Iterator[PretrainedConfig]:
    todo = [module.__dict__.get("config") for module in model.modules()]
    while todo:
        if isinstance(config := todo.pop(), PretrainedConfig):
            yield config
            todo += [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]


def resize_layers(model: Any, size: int, mean_resizing: bool) -> Any:
    """Changes the input embeddings and the head, tied or not; returns the former."""
    layer = model.get_input_embeddings()
    old = _weight_of(layer).shape[0]
    head = model.get_output_embeddings()
    if head is not None:
        refuse_quantized(model, head, "change the vocabulary")
    axis = 0 if head is None else _vocabulary_axis(head, old)
    resize_rows(model, layer, size, mean_resizing)
    if head is not None and head is not layer:
        resize_rows(model, head, size, mean_resizing, axis)
    return layer


def _weight_of(layer: Any) -> Tensor:
    weight = layer._parameters.get("weight")
    if not isinstance(layer, nn.Embedding) or weight is None:
        raise OptionError(
            f"the input embeddings are of type {type(layer).__name__}, which is no torch.nn.Embedding with a weight of "
            "its own: the class must override _resize_token_embeddings",
            key="new_num_tokens",
        )
    return weight


def _vocabulary_axis(head: nn.Module, num_tokens: int) -> int:
    """Along which axis of its weight a head has the vocabulary: 1 in layers that are laid out as `(hidden, vocab)`."""
    weight = head._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        raise OptionError(
            f"the output embeddings are of type {type(head).__name__}, without a weight of two axes: the class must "
            "override _resize_token_embeddings",
            key="new_num_tokens",
        )
    if isinstance(head, (nn.Linear, nn.Embedding)) or weight.shape[1] != num_tokens:
        return 0
    return 1 if weight.shape[0] != num_tokens or "nf" in head.__dict__ else 0


@torch.no_grad()
def resize_rows(model: Any, layer: nn.Module, size: int, mean_resizing: bool, axis: int = 0) -> None:
    """Gives `layer` `size` rows along `axis`, in place, and every other layer of `model` that is tied to it.

    The biases along the axis follow, theirs too. Rows go and come at the end. The parameters are new objects.
    """
    old = layer.get_parameter("weight")
    num_old, num_new = old.shape[axis], max(0, size - old.shape[axis])
    if size == num_old:
        return
    added = {}
    if num_new and not old.is_meta:
        added = _mean_values(layer, num_new, axis) if mean_resizing else _initial_values(model, layer, num_new, axis)
    weight = replacement(old, _resized(old, size, added.get("weight"), axis))
    places = put_everywhere(model, old, weight)
    if not any(slot.module is layer for slot in places):  # it is not, or not yet, a part of the model
        setattr(layer, "weight", weight)  # noqa: B010 - a module's attribute
    for module in {id(module): module for module in (layer, *(slot.module for slot in places))}.values():
        set_sizes(module, weight)
        bias = module._parameters.get("bias")
        if bias is not None and bias.shape == (num_old,):
            new_bias = replacement(bias, _resized(bias, size, _bias_values(bias, num_new, added.get("bias")), 0))
            put_everywhere(model, bias, new_bias)
            module.bias = new_bias


def _resized(old: Tensor, size: int, added: Tensor | None, axis: int) -> Tensor:
    """The first `size` rows of `old`, then `added`, in memory of their own."""
    shape = list(old.shape)
    shape[axis] = size
    new = torch.empty(shape, dtype=old.dtype, device=old.device)
    num_kept = min(size, old.shape[axis])
    new.narrow(axis, 0, num_kept).copy_(old.narrow(axis, 0, num_kept))
    if added is not None:
        new.narrow(axis, num_kept, size - num_kept).copy_(added)
    return new


def _mean_values(layer: nn.Module, num_new: int, axis: int) -> dict[str, Tensor]:
    weight = layer.get_parameter("weight")
    rows = drawn_like(weight.T if axis else weight, num_new)
    return {"weight": rows.T if axis else rows}


def _bias_values(bias: Tensor, num_new: int, given: Tensor | None) -> Tensor | None:
    """New entries of a bias: the given ones, else the mean of the old."""
    if not num_new or bias.is_meta:
        return None
    return given if given is not None else bias.float().mean().expand(num_new)


def _initial_values(model: Any, layer: nn.Module, num_new: int, axis: int) -> dict[str, Tensor]:
    """What a layer like this of `num_new` rows has at first: by its constructor, then by `_init_weights`."""
    parameters = dict(layer._parameters)
    for name, old in layer._parameters.items():
        if old is not None:
            shape = list(old.shape)
            shape[axis if old.ndim == 2 else 0] = num_new
            memory = torch.empty(shape, dtype=old.dtype, device=old.device)
            mark_untouched(memory)
            parameters[name] = nn.Parameter(memory, False)
    fresh = with_parameters(layer, parameters)
    if "padding_idx" in layer.__dict__:
        fresh.padding_idx = None  # none of the new rows is
    fresh.__dict__.pop("_is_hf_initialized", None)
    reset(fresh)
    owner_of(model, layer)._init_weights(fresh)
    for name, parameter in fresh.named_parameters(recurse=False):
        fill_untouched(f"new rows of {type(layer).__name__}.{name}", parameter.data)
    return {name: parameter.data for name, parameter in fresh.named_parameters(recurse=False)}


def resize_positions(model: Any, num_positions: int) -> None:
    """Gives the table of positions another number of rows, and the configs of the model that number."""
    check_positive("new_num_position_embeddings", num_positions)
    found = model.get_position_embeddings()
    old = model.config.max_position_embeddings
    for layer in found if isinstance(found, tuple) else (found,):
        # Some tables begin with rows that no position has.
        resize_rows(model, layer, layer.num_embeddings - old + int(num_positions), mean_resizing=False)
    _replace_in_configs(model, "max_position_embeddings", old, int(num_positions))
