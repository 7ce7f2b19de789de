"""A JAX model's parameters on their way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from .._types import PathLike
from ..checkpoint.arrays import bytes_of
from ..checkpoint.formats import msgpack_write
from ..checkpoint.formats.safetensors import Outgoing
from ..checkpoint.plan_save import Stored
from ..checkpoint.rules import Op, apply_ops, shape_after
from ..configuration import CONFIG_NAME
from ..errors import InvalidOptionError, SaveError, unknown_argument
from ..generation.config import GENERATION_CONFIG_NAME
from ..options import SaveOptions
from ..own_code import sources_of
from ..report import SaveReport
from .linen import linen_name
from .structure import Place, flatten
from .tying import ties_of

__all__ = ["options_for", "save_arrays", "save_model"]

_FLAGS = ("durable", "is_main_process")


def options_for(
    push_to_hub: bool, max_shard_size: int | str, safe_serialization: bool, variant: Any, extra: Mapping[str, Any]
) -> SaveOptions:
    """The arguments of save_pretrained, checked.

    Raises:
        OptionError: a keyword nobody knows. InvalidOptionError: one that this version cannot follow.
    """
    if push_to_hub:
        raise InvalidOptionError("push_to_hub=True is not supported by this version", key="push_to_hub")
    for name, value in extra.items():
        if name not in _FLAGS:
            raise unknown_argument("save_pretrained", name, [*_FLAGS, *SaveOptions.__dataclass_fields__])
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name} is True or False, not {value!r:.60}", key=name)
    form = "safetensors" if safe_serialization else "msgpack"
    return SaveOptions(max_shard_size=max_shard_size, variant=saving.variant_word(variant), form=form, **extra)


def save_model(model: Any, directory: PathLike, params: Any, options: SaveOptions) -> SaveReport | None:
    """Writes config and parameters of a model; None where this process writes nothing."""
    if not options.is_main_process:
        return None
    arrays = _arrays_of(model, model.params if params is None else params)
    config = model.config
    config.architectures = [type(model).__name__.removeprefix("Flax")]
    config.dtype = _main_dtype(arrays)
    config._note_code(type(config), type(model))
    texts = {**sources_of(type(config), type(model)), CONFIG_NAME: config.to_json_string()}
    if model.generation_config is not None:
        texts[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()
    places = [place for place in model.structure.places if place.name in arrays]
    if options.form == "msgpack":
        named = {
            linen_name(place.name, place.kind): (place, place.kind.linen_ops(place.torch_shape)) for place in places
        }
        return save_arrays(directory, named, arrays, options, texts)
    keys = saving.names_at_rest((place.name for place in places), model._loaded_names, type(model)._rules)
    rules = type(model)._rules
    named = {keys[place.name]: (place, saving.layout_ops(place.name, keys[place.name], rules)) for place in places}
    return save_arrays(directory, named, arrays, options, texts, ties_of(model))


def _arrays_of(model: Any, params: Any) -> dict[str, Any]:
    """Name → array of what is to be written.

    Raises:
        SaveError: parameters are missing or of another shape.
    """
    given = flatten(params)
    ignored = [re.compile(pattern) for pattern in type(model)._keys_to_ignore_on_save or ()]
    found = {}
    for place in model.structure.places:
        value = given.get(place.path)
        if value is None or tuple(value.shape) != place.shape:
            what = "missing from params" if value is None else f"{tuple(value.shape)} in params, expected {place.shape}"
            raise SaveError(f"cannot save {place.name}: it is {what}", tensor=place.name)
        if not any(pattern.search(place.name) for pattern in ignored):
            found[place.name] = value
    return found


def _main_dtype(arrays: Mapping[str, Any]) -> str:
    names = [array.dtype.name for array in arrays.values() if "float" in array.dtype.name]
    return names[0] if names else "float32"


def save_arrays(
    directory: PathLike,
    named: Mapping[str, tuple[Place, tuple[Op, ...]]],
    arrays: Mapping[str, Any],
    options: SaveOptions,
    texts: Mapping[str, str],
    ties: Mapping[str, str] | None = None,
) -> SaveReport:
    """Writes arrays: name at rest → (its place, what makes torch's layout that of the file).

    `ties` are names that are not written → the parameter that stands in for each.
    """
    tensors, start, spans = [], 1, {}
    for key, (place, ops) in named.items():
        stored = Stored(key, arrays[place.name].dtype.name, shape_after(ops, place.torch_shape), start)
        stored = stored._replace(stop=start + stored.nbytes)  # an address of its own, so that tied names share it
        spans[place.name] = stored
        tensors.append(stored)
        start = stored.stop + 1
    tied = {alias: spans[source] for alias, source in (ties or {}).items() if source in spans}
    tensors += [stored._replace(name=alias) for alias, stored in tied.items()]

    def data_of(key: str) -> memoryview:
        place, ops = named[key]
        from_memory = tuple(op.inverse for op in reversed(place.ops))
        return bytes_of(apply_ops((*from_memory, *ops), np.asarray(arrays[place.name])))

    write: Callable[[list[str], Path], None] | None = None
    if options.form == "msgpack":
        by_name = {stored.name: stored for stored in tensors}

        def write(names: list[str], path: Path) -> None:
            outgoing = [
                Outgoing(name, by_name[name].dtype, by_name[name].shape, lambda name=name: data_of(name))  # type: ignore[misc]
                for name in names
            ]
            msgpack_write.write(path, outgoing)

    return saving.save(directory, tensors, data_of, options, secondary=tied, texts=texts, save_function=write)
