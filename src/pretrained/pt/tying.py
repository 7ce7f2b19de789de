"""Tied weights: one tensor under several names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["tie", "tied_names"]


def tie(model: Any) -> None:
    """Makes every name that the model's classes declare as tied hold the tensor it is tied to.

    A dict-valued `_tied_weights_keys` says what is tied to what. A list only says which names are secondary; then, as
    in older releases, the output embedding is tied to the input embedding. A `_tie_weights` method of any module is
    called as well.
    """
    for prefix, module in list(model.named_modules()):
        # Looked up where they are: asking a module for an attribute it has not is the slowest thing it does.
        keys = getattr(type(module), "_tied_weights_keys", None)
        config = module.__dict__.get("config")
        if isinstance(keys, Mapping) and getattr(config, "tie_word_embeddings", True):
            _tie_by_map(model, keys, f"{prefix}." if prefix else "")
        elif config is not None and not isinstance(keys, Mapping):
            _tie_embeddings(module, config)
        if getattr(type(module), "_tie_weights", None) is not None:
            module._tie_weights()


def _tie_by_map(model: nn.Module, keys: Mapping[str, str], prefix: str) -> None:
    names: list[str] | None = None
    for target, source in keys.items():
        if _set_tied(model, prefix + target, prefix + source):
            continue
        # Not a name, then a pattern: of the names it matches, each is tied to the source with its groups filled in.
        if names is None:
            names = [name for name, _ in model.named_parameters(remove_duplicate=False) if name.startswith(prefix)]
        for name in names:
            if match := re.fullmatch(target, name[len(prefix) :]):
                _set_tied(model, name, prefix + match.expand(source))


def _set_tied(model: nn.Module, target: str, source: str) -> bool:
    """Puts the parameter `source` under the name `target` too; False if either place does not exist."""
    try:
        parameter = model.get_parameter(source)
    except AttributeError:
        return False
    owner, _, key = target.rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        return False
    if key not in module._parameters:
        return False
    if module._parameters[key] is not parameter:
        setattr(module, key, parameter)
    return True


def _tie_embeddings(module: Any, config: Any) -> None:
    if not getattr(config, "tie_word_embeddings", True):
        return
    get_output = getattr(module, "get_output_embeddings", None)
    get_input = getattr(module, "get_input_embeddings", None)
    if get_output is None or get_input is None:
        return
    output = get_output()
    source = None if output is None else get_input()
    weight = getattr(source, "weight", None)
    if weight is not None and getattr(output, "weight", None) is not weight:
        output.weight = weight
        if (bias := getattr(output, "bias", None)) is not None and bias.shape[0] < weight.shape[0]:
            output.bias = nn.Parameter(nn.functional.pad(bias.data, (0, weight.shape[0] - bias.shape[0])))
        if getattr(output, "out_features", None) is not None:
            output.out_features = weight.shape[0]


def tied_names(model: Any) -> list[str]:
    """Names that are declared to be secondary: of a tied pair, the one that is not written."""
    found = []
    names: list[str] | None = None
    for prefix, module in model.named_modules():
        keys = getattr(type(module), "_tied_weights_keys", None) or ()
        for key in keys:
            if names is None:
                names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
            head = f"{prefix}." if prefix else ""
            inner = [name for name in names if name.startswith(head)]
            if head + key in inner:
                found.append(head + key)
            else:
                pattern = re.compile(key)
                found += [name for name in inner if pattern.search(name[len(head) :])]
    return found
