"""The config of a load: read or given, with the caller's keywords, and plausible beside the weights."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ._types import Snapshot
from .checkpoint.find import Weights, find_gguf, settle
from .checkpoint.formats.memory import MEMORY
from .checkpoint.tensors import count_elements
from .configuration import PretrainedConfig, config_keys
from .configuration_file import read_located
from .errors import ConfigError, OptionError
from .generation.config import GenerationConfig, read_generation_config
from .hub.ref import resolve
from .options import LoadOptions, WeightOptions, unknown_keyword

__all__ = [
    "Choose",
    "apply_keywords",
    "check_plausible",
    "generation_config_of",
    "name_of",
    "read_config",
    "read_config_with",
    "split_model_keywords",
]

logger = logging.getLogger(__name__)

_MAX_EMPTY_LAYERS = 512  # layers that a model may have whatever the checkpoint holds
_MAX_EMPTY_SIZE = 2**22  # the same for any other size: a constructor may compute a table of as many rows

Choose = Callable[[Any, "Snapshot | None"], tuple[type[PretrainedConfig], Any]]


def name_of(weights: Weights) -> str:
    """What messages call the checkpoint: its index, or its file."""
    if weights.index is not None:
        return str(weights.index.path)
    return str(next(iter(weights.containers), MEMORY))


def read_config(choose: Choose, snapshot: Snapshot | None, options: LoadOptions) -> Any:
    """The model's own config: a copy of the one that was given, or read where the caller or the checkpoint says.

    Raises:
        ConfigError: the config is damaged or impossible. OptionError: there is nowhere to read it from.
    """
    gguf = None if snapshot is None else find_gguf(snapshot, options.weights)
    return read_config_with(choose, snapshot, options, {}, gguf)[0]


def read_config_with(
    choose: Choose,
    snapshot: Snapshot | None,
    options: LoadOptions,
    keywords: Mapping[str, Any],
    gguf: Weights | None = None,
) -> tuple[Any, dict[str, Any]]:
    """(the config, keywords that are not yet in it). What is read is built with them, so that all that follows fits."""
    given, rest = options.config, dict(keywords)
    if isinstance(given, PretrainedConfig):
        config = copy.deepcopy(given)
    else:
        if given is not None:
            snapshot = settle(resolve(given, options.source))
            gguf = find_gguf(snapshot, WeightOptions())
        if snapshot is None:
            raise OptionError("without a folder or name, pass config= and state_dict=", key="config")
        found, path = read_located(snapshot, gguf)
        values = {**found, "_name_or_path": snapshot.name, "_config_file": str(path)}
        config, rest = choose(values, snapshot)[0].from_dict(values, return_unused_kwargs=True, **keywords)
        _compare_types(values, config)
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
    return config, rest


def _compare_types(values: Mapping[str, Any], config: Any) -> None:
    found, wanted = values.get("model_type"), config.model_type
    if found and wanted and found != wanted:
        logger.warning("%s is a %s checkpoint and is read as %s", values["_name_or_path"], found, wanted)


def generation_config_of(snapshot: Snapshot | None, options: LoadOptions) -> GenerationConfig | None:
    """The generation settings that were passed, or those of the checkpoint."""
    given = options.generation_config
    if isinstance(given, GenerationConfig):
        return copy.deepcopy(given)
    if given is not None:
        found: GenerationConfig = GenerationConfig.from_pretrained(given)
        return found
    return None if snapshot is None else read_generation_config(snapshot)


def apply_keywords(cls: Any, config: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Sets the config fields among the keywords; returns the constructor's arguments."""
    fields, arguments = split_model_keywords(cls, config, keywords)
    for name, value in fields.items():
        config.override(name, value)
    return arguments


def split_model_keywords(cls: Any, config: Any, keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config fields, constructor arguments) of the keywords that are no options.

    Raises:
        OptionError: a keyword is neither; names the nearest that would be.
    """
    if not keywords:
        return {}, {}
    known = config_keys(config)
    parameters = inspect.signature(cls.__init__).parameters
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = set(parameters) - {"self", "config"}
    fields = {name: value for name, value in keywords.items() if name in known}
    arguments = {name: value for name, value in keywords.items() if name not in known}
    for name in arguments:
        if name not in named and not accepts_any:
            raise unknown_keyword(name, [*known, *named])
    return fields, arguments


def check_plausible(config: Any, weights: Weights) -> None:
    """Refuses, before anything is built, a config with many more layers than tensors or a size beyond all of them."""
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > max(len(weights.entries), _MAX_EMPTY_LAYERS):
        raise ConfigError(
            f"config key 'num_hidden_layers' is {layers}, and {name_of(weights)} holds {len(weights.entries)} tensors",
            key="num_hidden_layers",
            path=name_of(weights),
        )
    sizes = {name: getattr(config, name, None) for name in type(config).positive}
    large = {name: size for name, size in sizes.items() if isinstance(size, int) and size > _MAX_EMPTY_SIZE}
    held = sum(count_elements(entry.shape) for entry in weights.entries.values()) if large else 0
    for name, size in large.items():
        if size > held:
            raise ConfigError(
                f"config key {name!r} is {size}, and {name_of(weights)} holds {held} numbers in all",
                key=name,
                path=name_of(weights),
            )
