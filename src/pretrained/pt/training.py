"""What training asks of a model: activation checkpointing, gradients at the inputs, a word about padding."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidOptionError, OptionError

__all__ = [
    "checkpointed",
    "disable_checkpointing",
    "enable_checkpointing",
    "is_checkpointing",
    "may_cache",
    "require_input_gradients",
    "require_output_gradients",
    "set_checkpointing",
    "warn_if_padded",
    "warn_if_quantized",
]

logger = logging.getLogger(__name__)


def checkpointed(stack: Any, layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`layer(*args, **kwargs)`; if `stack` is in training with checkpointing on, without keeping what it computes.

    Backward then computes it again (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
    `stack` is the module with the loop over its layers; its class has `gradient_checkpointing = False`.
    """
    # A cache that is written to cannot be computed again.
    if not (stack.gradient_checkpointing and stack.training) or kwargs.get("past_key_values") is not None:
        return layer(*args, **kwargs)
    names, count = tuple(kwargs), len(args)

    def run(*values: Any) -> Any:
        return layer(*values[:count], **dict(zip(names, values[count:], strict=True)))

    # All by position: torch's reentrant kind takes no keywords and sees gradients of positional tensors only.
    return stack._gradient_checkpointing_func(run, *args, *kwargs.values())


def may_cache(model: Any, stack: Any, use_cache: bool) -> bool:
    """`use_cache`, but False with one warning where `stack` computes twice and would write to the cache twice."""
    if use_cache and stack.gradient_checkpointing and stack.training:
        if _is_first(model, "use_cache"):
            logger.warning("use_cache=True does not go with gradient checkpointing in training: no cache is returned")
        return False
    return use_cache


def warn_if_quantized(model: Any, mode: bool) -> None:
    """Says, once, that quantized weights do not train."""
    quantizer = model.hf_quantizer
    if mode and quantizer is not None and _is_first(model, "quantized"):
        remedy = (
            "Train adapters on top of them, or load without quantization"
            if quantizer.passes_gradients
            else "No gradient passes through them either: load without quantization, or by another scheme"
        )
        method = quantizer.config.quant_method
        logger.warning(
            "%d layers are quantized by %s: their weights do not train. %s", len(quantizer.layers), method, remedy
        )


def enable_checkpointing(model: Any, settings: Mapping[str, Any] | None) -> None:
    """Turns checkpointing on in every part of the model that can do it.

    Raises:
        InvalidOptionError: the class does not support it, or no part of it does. OptionError: an unknown setting.
    """
    if not model.supports_gradient_checkpointing:
        raise InvalidOptionError(
            f"{type(model).__name__} does not support gradient checkpointing", key="gradient_checkpointing"
        )
    settings = {"use_reentrant": False} if settings is None else dict(settings)
    known = {*inspect.signature(checkpoint).parameters, "preserve_rng_state"} - {"function", "args", "kwargs"}
    if unknown := sorted(set(settings) - known):
        raise OptionError(
            f"gradient_checkpointing_kwargs has no {unknown[0]!r}; torch.utils.checkpoint takes "
            f"{', '.join(sorted(known))}",
            key=unknown[0],
        )
    settings.setdefault("use_reentrant", False)
    if is_old_style(model):
        if settings != {"use_reentrant": False}:
            logger.warning("%s checkpoints by itself: settings are not used", type(model).__name__)
        model.apply(functools.partial(model._set_gradient_checkpointing, value=True))
    else:
        model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=_with(settings))
    if settings["use_reentrant"] and getattr(model, "_hf_peft_config_loaded", False):
        # Of that kind, a layer whose inputs need no gradient gets none; adapters train on frozen embeddings.
        model.enable_input_require_grads()


def _with(settings: Mapping[str, Any]) -> Callable[..., Any]:
    return functools.partial(checkpoint, **settings)


def disable_checkpointing(model: Any) -> None:
    """Turns checkpointing off again, where there is any."""
    if not model.supports_gradient_checkpointing:
        return
    if is_old_style(model):
        model.apply(functools.partial(model._set_gradient_checkpointing, value=False))
    else:
        model._set_gradient_checkpointing(enable=False)
    if getattr(model, "_hf_peft_config_loaded", False):
        model.disable_input_require_grads()


def is_old_style(model: Any) -> bool:
    """Whether the class has the hook of releases before 4.35, `_set_gradient_checkpointing(module, value)`."""
    return "value" in inspect.signature(model._set_gradient_checkpointing).parameters


def set_checkpointing(model: nn.Module, is_on: bool, function: Callable[..., Any] | None) -> None:
    """Sets the flag, and what checkpoints, in every module that has the flag.

    Raises:
        InvalidOptionError: none has.
    """
    function = function or _with({"use_reentrant": False})
    found = False
    for module in model.modules():
        if _flag(module) is not None:
            module._gradient_checkpointing_func = function  # type: ignore[assignment]
            module.gradient_checkpointing = is_on  # type: ignore[assignment]
            found = True
    if not found:
        raise InvalidOptionError(
            f"{type(model).__name__} says that it supports gradient checkpointing, but no module of it has a boolean "
            "gradient_checkpointing",
            key="gradient_checkpointing",
        )


def is_checkpointing(model: nn.Module) -> bool:
    """Whether it is on anywhere in the model."""
    return any(_flag(module) for module in model.modules())


def _flag(module: nn.Module) -> bool | None:
    # Where it can be, rather than by asking the module: that is slow for what is not there.
    flag = module.__dict__.get("gradient_checkpointing", getattr(type(module), "gradient_checkpointing", None))
    return flag if isinstance(flag, bool) else None


def require_input_gradients(model: Any) -> torch.utils.hooks.RemovableHandle:
    """Makes what the input embeddings give require a gradient, also when they are frozen; returns the hook."""
    return require_output_gradients(model.get_input_embeddings())


def require_output_gradients(layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
    """Makes what `layer` gives require a gradient; returns the hook."""
    return layer.register_forward_hook(_require_gradient)


def _require_gradient(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)


def warn_if_padded(model: Any, input_ids: Tensor | None, attention_mask: Tensor | None) -> None:
    """Warns once if the first or last tokens are padding and no mask says so; not while a graph is recorded."""
    padding = model.config.pad_token_id
    if attention_mask is not None or padding is None or input_ids is None or "padding" in model.warnings_issued:
        return
    recording = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if recording or type(input_ids) is not Tensor or input_ids.is_meta or input_ids.numel() == 0:
        return
    ends, values = input_ids[:, [0, -1]], padding if isinstance(padding, list) else [padding]
    if not any(bool((ends == value).any()) for value in values) or not _is_first(model, "padding"):
        return
    others = [name for name in ("bos", "eos", "sep") if getattr(model.config, f"{name}_token_id", None) == padding]
    logger.warning(
        "input_ids begin or end with pad_token_id=%s and there is no attention_mask: pass one, or padding is read as "
        "text%s",
        padding,
        f" (if it is padding: {', '.join(others)}_token_id is the same)" if others else "",
    )


def _is_first(model: Any, topic: str) -> bool:
    """Whether this model has not warned of it yet; from now on it has."""
    is_first = topic not in model.warnings_issued
    model.warnings_issued[topic] = True
    return is_first
