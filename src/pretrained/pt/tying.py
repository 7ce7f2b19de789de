"""Tied weights: one tensor under several names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import ConfigError
from .embeddings import EmbeddingAccessMixin

__all__ = ["tie", "tie_encoder_to_decoder", "tie_layers", "tied_names"]

logger = logging.getLogger(__name__)


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
    _tie_stacks(model)


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
    # A head that a class does not declare may be resized with the embeddings, but it is not tied to them.
    get_output = getattr(type(module), "get_output_embeddings", None)
    get_input = getattr(module, "get_input_embeddings", None)
    if get_output in (None, EmbeddingAccessMixin.get_output_embeddings) or get_input is None:
        return
    output = module.get_output_embeddings()
    source = None if output is None else get_input()
    if getattr(source, "weight", None) is not None:
        tie_layers(output, source)


def tie_layers(output: Any, source: Any) -> None:
    """Gives `output` the weight of `source`, and a bias as long as that."""
    weight = source.weight
    if getattr(output, "weight", None) is not weight:
        output.weight = weight
        if (bias := getattr(output, "bias", None)) is not None and bias.shape[0] < weight.shape[0]:
            output.bias = nn.Parameter(nn.functional.pad(bias.data, (0, weight.shape[0] - bias.shape[0])))
        if getattr(output, "out_features", None) is not None:
            output.out_features = weight.shape[0]


def _tie_stacks(model: Any) -> None:
    """Ties the encoder of an encoder-decoder to its decoder if the config says so."""
    config = model.__dict__.get("config")
    if not (getattr(config, "is_encoder_decoder", False) and getattr(config, "tie_encoder_decoder", False)):
        return
    base = model.base_model
    encoder, decoder = base._modules.get("encoder"), base._modules.get("decoder")
    if encoder is None or decoder is None:
        raise ConfigError(
            f"tie_encoder_decoder=True: {type(base).__name__} has no encoder and decoder", key="tie_encoder_decoder"
        )
    prefix = "" if base is model else f"{model.base_model_prefix}."
    model._dynamic_tied_weights_keys = tie_encoder_to_decoder(encoder, decoder, f"{prefix}encoder")


def tie_encoder_to_decoder(encoder: nn.Module, decoder: nn.Module, name: str) -> list[str]:
    """Puts the decoder's parameters into the places of the encoder that correspond to them, by name.

    Of lists of unlike length, each part of the encoder corresponds to the decoder's next part of the same class: a
    decoder has attention to the encoder in between.

    Args:
        encoder: its parameters are let go, but for those that nothing corresponds to.
        decoder: of the same build, with more parts perhaps.
        name: the encoder's, for the result.

    Returns:
        The names, in the encoder, that now hold a parameter of the decoder.

    Raises:
        ConfigError: two parameters that correspond are of different shapes.
    """
    tied = []
    for key, own in encoder._parameters.items():
        other = decoder._parameters.get(key)
        if own is None or other is None:
            continue
        if own.shape != other.shape:
            raise ConfigError(
                f"tie_encoder_decoder=True: {name}.{key} has the shape {tuple(own.shape)} and the decoder's "
                f"{tuple(other.shape)}",
                key="tie_encoder_decoder",
                tensor=f"{name}.{key}",
            )
        setattr(encoder, key, other)
        tied.append(f"{name}.{key}")
    pairs = _corresponding(encoder, decoder)
    for key, child in encoder._modules.items():
        if child is not None and key in pairs:
            tied += tie_encoder_to_decoder(child, pairs[key], f"{name}.{key}")
        elif child is not None and any(True for _ in child.parameters()):
            logger.warning("%s.%s is tied to nothing: the decoder has no such part", name, key)
    return tied


def _corresponding(encoder: nn.Module, decoder: nn.Module) -> dict[str, nn.Module]:
    """Child of the encoder, by name → child of the decoder."""
    theirs = [child for child in decoder._modules.values() if child is not None]
    if not isinstance(encoder, nn.ModuleList) or len(encoder) == len(theirs):
        return {key: child for key, child in decoder._modules.items() if child is not None}
    pairs = {}
    rest = iter(theirs)
    for key, own in encoder._modules.items():
        if (found := next((child for child in rest if type(child) is type(own)), None)) is not None:
            pairs[key] = found
    return pairs


def tied_names(model: Any) -> list[str]:
    """Names that are declared to be secondary: of a tied pair, the one that is not written."""
    found = list(model.__dict__.get("_dynamic_tied_weights_keys") or ())
    names: list[str] | None = None
    for prefix, module in model.named_modules():
        keys = getattr(type(module), "_tied_weights_keys", None) or ()
        if isinstance(keys, Mapping) and not getattr(module.__dict__.get("config"), "tie_word_embeddings", True):
            # The biases of a head are one all the same; others, for whom they are two then, use the decoder's.
            keys = [source if target.endswith(".bias") else target for target, source in keys.items()]
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
