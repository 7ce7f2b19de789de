"""Saved adapters on their way into a torch model: config, comparison, tensors. Nothing is filled that does not fit."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..adapters import OUTSIDE, PREFIX, Adapter, adapter_of, check_values
from ..configuration_input import located
from ..errors import ConfigError, MismatchError, OptionError
from ..options import SourceOptions, split_load_options, unknown_keyword
from ..report import Keys, LoadReport
from .adapter_layers import (
    DEFAULT,
    activate,
    as_it_was,
    inject,
    peft_library,
    require_free,
    state_of_adapter,
    translated,
)
from .slots import dtype_name

__all__ = ["load", "opened"]

logger = logging.getLogger(__name__)

# What goes with an adapter; everything else of from_pretrained is about the model.
_LOAD_NAMES = frozenset(f.name for f in dataclasses.fields(SourceOptions)) | {"use_safetensors", "strict"}
_MIN_ROOM = 1 << 20  # numbers that missing tensors may come to, however small the model is


def opened(found: Adapter, *, strict: bool = False) -> Callable[[Any], LoadReport]:
    """What puts the adapter on a model, under the name "default", frozen.

    Raises:
        MissingFrameworkError: peft is not installed. ConfigError: its config asks for what is not followed.
    """
    config = _config_from(found.config, found.path)

    def attach(model: Any) -> LoadReport:
        with as_it_was(model, DEFAULT) as undo, translated(model):
            return _fill(model, DEFAULT, config, _tensors_of(found), undo, _Terms(str(found.weights.path), strict))

    return attach


def load(
    model: Any, name: str, given: tuple[Any, Any, Any], keywords: Mapping[str, Any], *, is_trainable: bool
) -> LoadReport:
    """Puts a saved adapter on a model; `given` is a place, a config and tensors, each of which may be None."""
    peft_library()
    require_free(model, name)
    options, rest = split_load_options(keywords)
    if unknown := [key for key in (*rest, *keywords) if key not in _LOAD_NAMES | {"adapter_kwargs"}]:
        raise unknown_keyword(unknown[0])
    ref, config, tensors = given
    if tensors is not None and config is None:
        raise OptionError("adapter_state_dict= needs peft_config= beside it", key="adapter_state_dict")
    found = None if tensors is not None else adapter_of(ref, options)
    source = "adapter_state_dict" if found is None else str(found.weights.path)
    if config is None and found is not None:
        config = _config_from(found.config, found.path)
    elif isinstance(config, Mapping):
        check_values(config, "peft_config")
        config = _config_from(config, "peft_config")
    elif not isinstance(config, peft_library().PeftConfig):
        raise OptionError(
            f"peft_config is a config of peft or a dict, not a {type(config).__name__}", key="peft_config"
        )
    config = copy.deepcopy(config)
    with as_it_was(model, name) as undo, translated(model):
        held = dict(tensors) if found is None else _tensors_of(found)
        return _fill(model, name, config, held, undo, _Terms(source, options.strict, is_trainable))


def _config_from(values: Mapping[str, Any], path: object) -> Any:
    """A config of peft from the checked content of adapter_config.json.

    Raises:
        ConfigError: a list or dict that is not understood here says something, or peft refuses a value.
    """
    peft = peft_library()
    cls = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[values["peft_type"]]
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    kept = {}
    for key, value in values.items():
        is_plain = isinstance(value, (bool, int, float, str))
        says_nothing = not value and (key in OUTSIDE or not (is_plain or key in _FOLLOWED))
        if value is None or says_nothing or key in ("auto_mapping", "peft_version", "runtime_config"):
            continue
        if key not in fields:
            logger.warning("%s: %r is nothing that peft %s knows; it is not used", path, key, peft.__version__)
            continue
        if key in OUTSIDE or not (is_plain or key in _FOLLOWED):
            raise ConfigError(
                f"{path}: adapter key {key!r} is {value!r:.120}, which is not followed here; load it with peft itself, "
                "if you trust it",
                path=path,
                key=key,
            )
        kept[key] = value
    with located(cls.__name__, str(path)):
        return cls(**{key: value for key, value in kept.items() if key != "peft_type"})


_FOLLOWED = frozenset(
    {
        "target_modules", "modules_to_save", "exclude_modules", "feedforward_modules", "target_parameters",
        "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
    }
)  # fmt: skip


def _tensors_of(found: Adapter) -> dict[str, Tensor]:
    from .backend import TorchBackend

    read, backend = found.weights.read, TorchBackend()
    return {name: backend.from_array(read(entry), entry.dtype) for name, entry in found.weights.entries.items()}


@dataclasses.dataclass(frozen=True)
class _Terms:
    """How an adapter is loaded: what messages call it, whether what is missing is an error, whether it is trained."""

    source: str
    strict: bool = False
    is_trainable: bool = False


def _fill(
    model: Any, name: str, config: Any, tensors: Mapping[str, Tensor], undo: Callable[[], None], terms: _Terms
) -> LoadReport:
    """Puts the adapter in without memory, compares, then gives it its tensors."""
    config.inference_mode = not terms.is_trainable
    given = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    trial = copy.deepcopy(config)
    start = getattr(config, "init_lora_weights", True)
    if isinstance(start, str):
        trial.init_lora_weights = True  # some starts compute with the layer's own weights, or change them
    inject(model, trial, name, is_empty=True)
    model._hf_peft_config_loaded = True
    report = _compare(model, name, given, terms)
    embedded = {key: given[key] for key in _embedding_names(model) if key in given}
    held = {key: tensor for key, tensor in given.items() if key not in report.unexpected_keys and key not in embedded}
    is_empty = not report.missing_keys and not (isinstance(start, str) and start.startswith(("pissa", "olora")))
    if not is_empty:
        undo()
        inject(model, config, name)
        model._hf_peft_config_loaded = True
        held = {**state_of_adapter(model, name), **held}
    model.peft_config[name].init_lora_weights = start
    peft_library().set_peft_model_state_dict(model, held, adapter_name=name, low_cpu_mem_usage=is_empty)
    with torch.no_grad():
        for key, tensor in embedded.items():
            model.get_parameter(key).copy_(tensor)
    activate(model, name, is_trainable=terms.is_trainable)
    if not report.is_clean:
        logger.warning("%s", report.render())
    return report


def _compare(model: Any, name: str, given: Mapping[str, Tensor], terms: _Terms) -> LoadReport:
    """What of the file has a place in the layers that were put in, and what has not.

    Raises:
        MismatchError: shapes or kinds differ, or nothing matches; with `strict`, anything missing or unexpected.
    """
    wanted = state_of_adapter(model, name)
    rows = {key: model.get_parameter(key) for key in _embedding_names(model) if key in given and key not in wanted}
    missing = Keys(key for key in wanted if key not in given)
    unexpected = Keys(key for key in given if key not in wanted and key not in rows)
    complaints = [*_misfits(given, wanted), *_misfits(given, rows)]
    if terms.strict:
        complaints += [f"{key} is missing" for key in missing] + [f"{key} is unexpected" for key in unexpected]
    if len(missing) == len(wanted):
        complaints.append(
            f"no tensor is for the layers that its config names; it has {next(iter(given), 'none')}, and the model "
            f"wants {next(iter(wanted), 'none')}"
        )
    room = max(_MIN_ROOM, sum(param.numel() for param in model.parameters() if not param.is_meta))
    if (size := sum(wanted[key].numel() for key in missing)) > room:
        complaints.append(f"its config asks for {size} numbers that it lacks, more than the model itself has")
    if complaints:
        shown = "; ".join(complaints[:8]) + (f"; and {len(complaints) - 8} more" if len(complaints) > 8 else "")
        raise MismatchError(
            f"{terms.source} does not fit {type(model).__name__}: {shown}", path=terms.source, complaints=complaints
        )
    used = [tensor for key, tensor in given.items() if key not in unexpected]
    return LoadReport(
        missing_keys=missing,
        unexpected_keys=unexpected,
        num_loaded=len(used),
        bytes_read=sum(tensor.numel() * tensor.element_size() for tensor in used),
        source=terms.source,
        model=type(model).__name__,
        dtype=dtype_name(used[0].dtype) if used else "",
    )


def _misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    for key, place in wanted.items():
        found = given.get(key)
        if found is None:
            continue
        if found.shape != place.shape:
            yield f"{key} has shape {list(found.shape)}, expected {list(place.shape)}"
        elif found.is_floating_point() != place.is_floating_point() or found.is_complex():
            yield f"{key} has dtype {dtype_name(found.dtype)}, expected {dtype_name(place.dtype)}"


def _embedding_names(model: Any) -> set[str]:
    """Names of the weights of the model's own embeddings, which go with an adapter for another vocabulary."""
    weights = set()
    for get in (model.get_input_embeddings, model.get_output_embeddings):
        try:
            layer = get()
        except NotImplementedError:
            continue
        own = None if layer is None else getattr(layer, "base_layer", layer)._parameters.get("weight")
        weights |= set() if own is None else {id(own)}
    return {name for name, param in model.named_parameters(remove_duplicate=False) if id(param) in weights}
