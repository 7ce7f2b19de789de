"""A torch model's tensors on their way out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import saving
from .._types import PathLike
from ..checkpoint.plan_save import Stored
from ..configuration import CONFIG_NAME
from ..errors import InvalidOptionError, OptionError, SaveError
from ..generation.config import GENERATION_CONFIG_NAME
from ..options import SaveOptions
from ..own_code import sources_of
from ..report import SaveReport
from .offload import Resting, state_of
from .slots import bytes_of, dtype_name
from .tying import tied_names

__all__ = ["describe", "options_for", "save_model", "save_tensors"]

logger = logging.getLogger(__name__)

# Keywords that belong to a push, or to formats that are written elsewhere; harmless without them.
_IGNORED_OFF = {"token": None, "save_peft_format": True}


def options_for(
    is_main_process: bool,
    state_dict: Mapping[str, Tensor] | None,
    push_to_hub: bool,
    max_shard_size: int | str,
    safe_serialization: bool,
    variant: str | None,
    extra: Mapping[str, Any],
) -> SaveOptions:
    """The arguments of save_pretrained, checked.

    Raises:
        OptionError: a keyword nobody knows. InvalidOptionError: one that this version cannot follow.
    """
    if push_to_hub:
        raise InvalidOptionError("push_to_hub=True is not supported by this version", key="push_to_hub")
    unknown = [name for name in extra if name not in {"durable", "blocking", *_IGNORED_OFF}]
    if unknown:
        raise OptionError(f"save_pretrained has no option {unknown[0]!r}", key=unknown[0])
    for name, off in _IGNORED_OFF.items():
        if name != "token" and extra.get(name, off) != off:
            raise InvalidOptionError(f"{name}={extra[name]!r} is not supported by this version", key=name)
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,99}", variant):
        raise InvalidOptionError(f"variant {variant!r:.100} must be a plain word such as 'fp16'", key="variant")
    form = "safetensors" if safe_serialization else "torch"
    flags = {name: extra.get(name, True) for name in ("durable", "blocking")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name} is True or False, not {value!r:.60}", key=name)
    return SaveOptions(is_main_process, state_dict, max_shard_size, variant, form=form, **flags)


def save_model(
    model: Any, directory: PathLike, options: SaveOptions, save_function: Callable[..., Any] | None = None
) -> SaveReport | Future[SaveReport] | None:
    """Writes config and weights of a PreTrainedModel; None where this process writes nothing.

    With `blocking=False` the tensors are copied now and written by a thread: the report comes later. The interpreter
    does not end before they are written.
    """
    if not options.is_main_process:
        return None
    model = unwrap(model)
    state = state_of(model) if options.state_dict is None else options.state_dict
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_save or ()]
    named = {
        model._loaded_names.get(name, name): tensor
        for name, tensor in state.items()
        if not any(pattern.search(name) for pattern in ignored)
    }
    secondary = [model._loaded_names.get(name, name) for name in tied_names(model)]
    config = _config_of(model)
    texts = {**sources_of(type(config), type(model)), CONFIG_NAME: config.to_json_string()}
    if model.generation_config is not None:
        texts[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()

    def save(tensors: Mapping[str, Any]) -> SaveReport:
        return save_tensors(tensors, directory, options, secondary=secondary, texts=texts, save_function=save_function)

    if options.blocking:
        return save(named)
    pool = ThreadPoolExecutor(1, thread_name_prefix="save_pretrained")
    future = pool.submit(save, _copied(named))
    pool.shutdown(wait=False)
    future.add_done_callback(lambda done: _log_failure(done, directory))
    return future


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


def _log_failure(done: Future[SaveReport], directory: PathLike) -> None:
    """Says that a save in the background failed, for a caller who never asks the future."""
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("saving to %s failed: %s", directory, error)


def unwrap(model: Any) -> Any:
    """The model inside wrappers that hold it as `module`, as data parallelism does."""
    while isinstance(inner := getattr(model, "module", None), nn.Module) and getattr(model, "config", None) is None:
        model = inner
    return model


def _config_of(model: Any) -> Any:
    """The model's config as it is saved: with the class's name and the dtype the weights have now."""
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = dtype_name(model.dtype)
    config._note_code(type(config), type(model))
    return config


def save_tensors(
    state: Mapping[str, Any],
    directory: PathLike,
    options: SaveOptions,
    *,
    secondary: list[str] | None = None,
    texts: Mapping[str, str] | None = None,
    save_function: Callable[..., Any] | None = None,
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
        directory,
        tensors,
        lambda name: bytes_of(_loaded(state, [name])[name]),
        options,
        secondary=secondary or (),
        texts=texts,
        save_function=write,
    )


def _loaded(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of these names, those on disk read from there; tied ones are one."""
    read: dict[int, Tensor] = {}
    found = {}
    for name in names:
        tensor = state[name]
        if isinstance(tensor, Resting):
            place = tensor.store.address(tensor.name)
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
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
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
