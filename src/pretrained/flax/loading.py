"""Loading JAX models: the keywords that are theirs, and parameters of files without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .._types import PathLike
from ..checkpoint.dialects import Translated, translate
from ..checkpoint.formats.readers import open_containers
from ..checkpoint.rules import apply_ops
from ..errors import InvalidOptionError, TensorError
from ..loading import Choose, load
from ..options import LoadOptions, split_load_options
from . import live
from .backend import FlaxBackend
from .sharding import Placing
from .structure import nest

__all__ = ["from_pretrained", "params_in"]


def from_pretrained(
    choose_for: Callable[[LoadOptions], Choose],
    ref: PathLike | None,
    config: Any,
    keywords: Mapping[str, Any],
    model_args: Sequence[Any] = (),
) -> Any:
    """What `FlaxPreTrainedModel.from_pretrained` and the auto classes return; `choose_for` finds the class."""
    own = {name: keywords[name] for name in live.LOAD_ARGUMENTS if name in keywords}
    rest = {name: value for name, value in keywords.items() if name not in own}
    options, arguments = split_load_options({"config": config, "dtype": own.get("param_dtype"), **rest})
    if options.placement.device_map is not None:
        raise InvalidOptionError(
            "device_map= places torch modules; for a JAX model pass mesh= and sharding_rules=", key="device_map"
        )
    settings = _settings(own)
    model, report = load(choose_for(options), ref, options, arguments, lambda: FlaxBackend(settings), model_args)
    found: tuple[Any, ...] = (model,)
    if own.get("_do_init") is False:
        found = (model, model.params)
        model._values, model._is_initialized = None, False
    if options.output_loading_info:
        found = (*found, report)
    return found[0] if len(found) == 1 else found


def _settings(own: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the model that follow from its own keywords."""
    dtype = own.get("dtype", own.get("torch_dtype"))
    found: dict[str, Any] = {"_dtype": None if dtype in (None, "auto") else _compute_dtype(dtype)}
    found["_placing"] = Placing.of(own.get("mesh"), own.get("sharding_rules"))
    if own.get("seed") is not None:
        found["seed"], found["key"] = own["seed"], jax.random.key(own["seed"])
    if own.get("input_shape") is not None:
        found["input_shape"] = own["input_shape"]
    if own.get("gradient_checkpointing"):
        found["_gradient_checkpointing"] = True
    return found


def _compute_dtype(dtype: Any) -> Any:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise InvalidOptionError(f"dtype={dtype!r:.80}: a model computes in a floating dtype of JAX", key="dtype")
    return found


def params_in(cls: Any, shard_files: Iterable[PathLike]) -> dict[str, Any]:
    """The parameters in files, as a nested dict in the layout of our models.

    Raises:
        TensorError: two files hold the same tensor. WeightsFormatError: a file is damaged.
    """
    found: dict[tuple[str, ...], Any] = {}
    for file in map(Path, shard_files):
        containers = open_containers(file, file.name, lambda other, file=file: file.parent / other)  # type: ignore[misc]
        entries = {name: entry for container in containers for name, entry in container.entries.items()}
        names = translate(containers) or Translated(entries, {}, [], [])
        by_path = {container.path: container for container in containers}
        for name, entry in names.entries.items():
            array = apply_ops(names.layouts.get(name, ()), by_path[entry.file].read(entry))
            path = tuple(name.split("."))
            if path in found:
                reason = f"{name} is in another of the files as well"
                raise TensorError(f"{file}: {reason}", path=file, tensor=name, reason=reason)
            found[path] = jax.device_put(array)
    return nest(found)
