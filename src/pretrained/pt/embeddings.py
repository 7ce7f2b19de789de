"""Input and output embeddings of a torch model."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["get_input", "set_input"]

_COMMON_NAMES = ("embed_tokens", "word_embeddings", "wte", "shared")


def get_input(model: Any) -> nn.Module:
    """The input embeddings of the base model, or of `model` itself if it holds an embedding under a usual name."""
    base = model.base_model
    if base is not model:
        return base.get_input_embeddings()
    for name in _COMMON_NAMES:
        if isinstance(layer := getattr(model, name, None), nn.Module):
            return layer
    raise NotImplementedError(f"{type(model).__name__} defines no get_input_embeddings")


def set_input(model: Any, value: nn.Module) -> None:
    """Replaces what `get_input` finds."""
    base = model.base_model
    if base is not model:
        base.set_input_embeddings(value)
        return
    for name in _COMMON_NAMES:
        if isinstance(getattr(model, name, None), nn.Module):
            setattr(model, name, value)
            return
    raise NotImplementedError(f"{type(model).__name__} defines no set_input_embeddings")
