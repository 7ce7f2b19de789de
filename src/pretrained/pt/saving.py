"""A torch model's tensors on their way out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import saving
from .._types import PathLike
from ..adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX
from ..checkpoint.checksums import is_sums_file
from ..checkpoint.formats import safetensors
from ..checkpoint.formats.safetensors import Outgoing
from ..checkpoint.plan_save import Stored
from ..checkpoint.tensors import num_bytes
from ..configuration import CONFIG_NAME
from ..errors import InvalidOptionError, SaveError
from ..generation.config import GENERATION_CONFIG_NAME
from ..hub.card import CardFacts, repository_of
from ..options import SaveOptions
from ..own_code import sources_of
from ..push_options import PushOptions
from ..report import SaveReport
from ..saving import Destination, Uncommitted, destination
from .adapter_layers import active, is_adapted, state_of_adapter
from .offload import Resting, state_of
from .rest import layout_at_rest, split_stacks
from .slots import bytes_of, dtype_name
from .tying import tied_names

__all__ = ["card_facts", "describe", "push_model", "save_model", "save_tensors"]

logger = logging.getLogger(__name__)


def save_model(
    model: Any,
    place: PathLike | Destination,
    options: SaveOptions,
    save_function: Any = None,
    push: PushOptions | None = None,
) -> SaveReport | Future[SaveReport] | None:
    """Writes config and weights of a PreTrainedModel, or the active adapter; None where this process writes nothing.

    With `blocking=False` the tensors are copied now and written by a thread: the report comes later. The interpreter
    does not end before they are written. `save_function` stands for `torch.save`, and what such functions write is no
    safetensors file: those are written by the library. With `push`, what was written to a folder is pushed then.
    """
    if save_function is not None and not callable(save_function):
        reason = f"save_function is called for each file; a {type(save_function).__name__} cannot be"
        raise InvalidOptionError(reason, key="save_function")
    if not options.is_main_process:
        return None
    if options.form != "torch":
        save_function = None
    model = unwrap(model)
    write = (_adapter_writer if is_adapted(model) else _model_writer)(model, options, save_function)
    facts = None if push is None else card_facts(model)

    def save(tensors: Mapping[str, Any]) -> SaveReport:
        report = write.save(tensors, place)
        if push is not None and facts is not None:
            saving.push_saved(str(place), report, options, push, facts)
        return report

    return _now_or_later(save, write.tensors, place, options)


def push_model(model: Any, upload: Destination, saved: Mapping[str, Any]) -> None:
    """Gives a model's files to a push, each as it is written. `saved` has keywords of save_pretrained."""
    rest = {name: value for name, value in saved.items() if name == "save_peft_format"}
    options = saving.save_options(
        True, None, saved["max_shard_size"], saved["safe_serialization"], saved.get("variant"), rest
    )
    save_model(model, Uncommitted(upload), options)


class _Writer(NamedTuple):
    """What there is to write, and what writes it to a place."""

    tensors: Mapping[str, Any]
    save: Callable[[Mapping[str, Any], PathLike | Destination], SaveReport]


def _model_writer(model: Any, options: SaveOptions, save_function: Any) -> _Writer:
    state = state_of(model) if options.state_dict is None else options.state_dict
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_save or ()]
    state = {name: tensor for name, tensor in state.items() if not any(p.search(str(name)) for p in ignored)}
    state = split_stacks(model, state)
    names = saving.names_at_rest(state, model._loaded_names, type(model)._rules)
    named, notes = _as_written(model, state, names, options, save_function is not None)
    secondary = [names.get(name, name) for name in tied_names(model)]
    config = _config_of(model)
    texts = {**sources_of(type(config), type(model)), CONFIG_NAME: config.to_json_string()}
    if model.generation_config is not None:
        texts[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()

    def save(tensors: Mapping[str, Any], place: PathLike | Destination) -> SaveReport:
        return save_tensors(
            tensors, place, options, secondary=secondary, texts=texts, save_function=save_function, metadata=notes
        )

    return _Writer(named, save)


def card_facts(model: Any) -> CardFacts:
    """What the card of a model says that has none."""
    return CardFacts(
        type(model).__name__,
        model.config.model_type,
        sum(parameter.numel() for parameter in model.parameters()),
        tuple(model.model_tags or ()),
        repository_of(model.name_or_path),
    )


def _now_or_later(
    save: Callable[[Mapping[str, Any]], SaveReport], named: Mapping[str, Any], place: object, options: SaveOptions
) -> SaveReport | Future[SaveReport]:
    if options.blocking:
        return save(named)
    pool = ThreadPoolExecutor(1, thread_name_prefix="save_pretrained")
    future = pool.submit(save, _copied(named))
    pool.shutdown(wait=False)
    future.add_done_callback(lambda done: _log_failure(done, place))
    return future


def _adapter_writer(model: Any, options: SaveOptions, save_function: Any) -> _Writer:
    """The active adapter and nothing of the model: its config and its tensors, in one file.

    Raises:
        InvalidOptionError: several adapters are active, or `variant` is given.
    """
    names = active(model)
    if len(names) != 1:
        raise InvalidOptionError(
            f"the active adapters are {', '.join(names) or 'none'}, and one is saved at a time: call set_adapter with "
            "its name first",
            key="adapter_name",
        )
    if options.variant is not None:
        raise InvalidOptionError(f"variant={options.variant!r}: an adapter has no variants", key="variant")
    prefix = PREFIX if options.save_peft_format else ""
    state = state_of_adapter(model, names[0], options.state_dict)
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    text = _adapter_text(model.peft_config[names[0]], model)

    def save(tensors: Mapping[str, Any], place: PathLike | Destination) -> SaveReport:
        return _write_adapter(tensors, text, place, options, save_function)

    return _Writer(named, save)


def _adapter_text(config: Any, model: Any) -> str:
    """The content of adapter_config.json, as peft writes it."""
    values = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    values["inference_mode"] = True
    values["base_model_name_or_path"] = values.get("base_model_name_or_path") or model.name_or_path or None
    return json.dumps(values, indent=2, sort_keys=True)


def _write_adapter(
    tensors: Mapping[str, Any],
    text: str,
    place: PathLike | Destination,
    options: SaveOptions,
    save_function: Callable[..., Any] | None,
) -> SaveReport:
    name = ADAPTER_WEIGHTS[options.form]
    if save_function is None and options.form == "torch":
        save_function = _write_torch
    outgoing = [
        Outgoing(item.name, item.dtype, item.shape, lambda tensor=tensor: bytes_of(tensor))  # type: ignore[misc]
        for item, tensor in ((describe(key, tensor), tensor) for key, tensor in tensors.items())
    ]
    with destination(place, durable=options.durable) as target:
        path = target.path(name)
        if save_function is not None:
            save_function(dict(tensors), path)
        else:
            safetensors.write(path, outgoing, {"format": "pt"}, begin_writeback=options.durable)
        report = SaveReport(total_size=sum(num_bytes(item.shape, item.dtype) for item in outgoing))
        target.path(ADAPTER_CONFIG).write_bytes(text.encode("utf-8"))
        report.files = {name: path.stat().st_size, ADAPTER_CONFIG: len(text.encode("utf-8"))}
        for written in report.files:
            target.wrote(written)
        # The other format's file would be another adapter; lists of checksums would not be true any more.
        stale = [other for other in ADAPTER_WEIGHTS.values() if other != name]
        report.removed = target.remove_stale(lambda found: found in stale or is_sums_file(found))
        target.commit()
    logger.info("saved an adapter of %d bytes to %s", report.total_size, place)
    return report


def _as_written(
    model: Any, state: Mapping[str, Any], names: Mapping[str, str], options: SaveOptions, has_own_writer: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """(tensors under the names that a save writes; what else the files have to note)."""
    if (quantizer := model.hf_quantizer) is None:
        return {key: layout_at_rest(model, name, key, state[name]) for name, key in names.items()}, {}
    quantizer.check_save(options.form, has_own_writer)
    named, notes = quantizer.flatten(state, lambda name: names.get(name, name))
    return named, notes


def _copied(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors in CPU memory that nobody else writes to; names of one memory still share it."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    result: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.numel() == 0:
            result[name] = tensor
            continue
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True)
        result[name] = copies[key]
    return result


def _log_failure(done: Future[SaveReport], place: object) -> None:
    """Says that a save in the background failed, for a caller who never asks the future."""
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("saving to %s failed: %s", place, error)


def unwrap(model: Any) -> Any:
    """The model inside wrappers that hold it as `module`, as data parallelism does."""
    while isinstance(inner := getattr(model, "module", None), nn.Module) and getattr(model, "config", None) is None:
        model = inner
    return model


def _config_of(model: Any) -> Any:
    """The model's config as it is saved: with the class's name and the dtype the weights have now."""
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = dtype_name(_main_dtype(model))
    if model.hf_quantizer is None:
        vars(config).pop("quantization_config", None)  # of the checkpoint that the config came from
    config._note_code(type(config), type(model))
    return config


def _main_dtype(model: Any) -> torch.dtype:
    """The dtype of the parameters that are not kept in float32 for themselves; a load gives those float32 again."""
    if kept := frozenset(model._keep_in_fp32_modules or ()):
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and kept.isdisjoint(name.split(".")):
                return parameter.dtype
    found: torch.dtype = model.dtype
    return found


def save_tensors(
    state: Mapping[str, Any],
    place: PathLike | Destination,
    options: SaveOptions,
    *,
    secondary: list[str] | None = None,
    texts: Mapping[str, str] | None = None,
    save_function: Callable[..., Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> SaveReport:
    """Writes a mapping of names to tensors.

    Raises:
        SaveError: a value is no dense tensor, or has no memory; or the system refused.
    """
    tensors = [describe(name, tensor) for name, tensor in state.items()]
    write = None
    if save_function is not None:

        def write(names: list[str], path: Path) -> None:
            save_function(_loaded(state, names), str(path))

    elif options.form == "torch":

        def write(names: list[str], path: Path) -> None:
            _write_torch(_loaded(state, names), path)

    return saving.save(
        place,
        tensors,
        lambda name: bytes_of(_loaded(state, [name])[name]),
        options,
        secondary=secondary or (),
        texts=texts,
        save_function=write,
        metadata=metadata,
    )


def _loaded(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of these names, those on disk read from there; tied ones are one."""
    read: dict[int, Tensor] = {}
    found = {}
    for name in names:
        tensor = state[name]
        if isinstance(tensor, Resting):
            place = tensor.place
            tensor = read[place] = read[place] if place in read else tensor.load()
        found[name] = tensor
    return found


def _write_torch(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A .bin of torch's. Names of one memory stay so; of a larger memory only the tensor's own part is written."""
    written: dict[tuple[Any, ...], Tensor] = {}
    outgoing = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in written:
            written[key] = _apart(tensor)
        outgoing[name] = written[key]
    try:
        torch.save(outgoing, path)
    except RuntimeError as error:  # what torch makes of a full disk and the like
        raise SaveError(f"cannot write {path.name}: {error}", path=path) from error


def _apart(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous and in a storage that holds nothing else; no copy where it is that already."""
    if tensor.numel() == 0:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    flat = torch.from_numpy(np.frombuffer(bytes_of(tensor), np.uint8))
    return flat.view(tensor.dtype).view(tensor.shape)


def describe(name: str, tensor: Any) -> Stored:
    """What a save needs to know of a tensor.

    Raises:
        SaveError: it is no dense tensor, is on the meta device, or is conjugated by a flag alone.
    """
    if isinstance(tensor, Resting):
        return tensor.describe(name)
    is_composed = getattr(tensor, "__tensor_flatten__", None) is not None
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or is_composed:
        kind = tensor.layout if isinstance(tensor, Tensor) and not is_composed else type(tensor).__name__
        raise SaveError(f"cannot save {name}: a {kind} is no dense tensor", tensor=name)
    if tensor.is_meta:
        raise SaveError(f"cannot save {name}: it is on the meta device and has no values", tensor=name)
    if tensor.is_conj() or tensor.is_neg():
        reason = "it is conjugated or negated by a flag, not in memory; save tensor.resolve_conj().resolve_neg()"
        raise SaveError(f"cannot save {name}: {reason}", tensor=name)
    extent = (
        0 if tensor.numel() == 0 else 1 + sum((d - 1) * s for d, s in zip(tensor.shape, tensor.stride(), strict=True))
    )
    start = tensor.data_ptr() if extent else 0
    # Addresses of different devices may be equal; the device sets them apart.
    start += (hash(str(tensor.device)) & 0xFFFF) << 64 if tensor.device.type != "cpu" else 0
    stop = start + extent * tensor.element_size()
    return Stored(name, dtype_name(tensor.dtype), tuple(tensor.shape), start, stop, tensor.stride())
