"""A JAX model's parameters on their way out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import saving
from .._types import PathLike
from ..checkpoint.arrays import bytes_of
from ..checkpoint.boxes import whole
from ..checkpoint.formats import msgpack_write
from ..checkpoint.formats.safetensors import Outgoing
from ..checkpoint.plan_save import Stored
from ..checkpoint.rules import Op, shape_after
from ..checkpoint.write_parts import Part, Parts, assembled
from ..configuration import CONFIG_NAME
from ..errors import InvalidOptionError, SaveError, unknown_argument
from ..generation.config import GENERATION_CONFIG_NAME
from ..hub.card import CardFacts, repository_of
from ..options import SaveOptions
from ..own_code import sources_of
from ..push_options import PushOptions
from ..report import SaveReport
from ..saving import Destination
from ..tying import ties_of
from .linen import linen_name
from .processes import Processes
from .sharding import box_of, is_elsewhere, is_spread
from .structure import Place, flatten

__all__ = ["card_facts", "options_for", "push_model", "save_arrays", "save_model"]

_FLAGS = ("durable", "is_main_process")


def options_for(
    max_shard_size: int | str, safe_serialization: bool, variant: Any, extra: Mapping[str, Any]
) -> SaveOptions:
    """The arguments of save_pretrained, checked.

    Raises:
        OptionError: a keyword nobody knows. InvalidOptionError: a value that it cannot have.
    """
    for name, value in extra.items():
        if name not in _FLAGS:
            raise unknown_argument("save_pretrained", name, [*_FLAGS, *SaveOptions.__dataclass_fields__])
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name} is True or False, not {value!r:.60}", key=name)
    form = "safetensors" if safe_serialization else "msgpack"
    return SaveOptions(max_shard_size=max_shard_size, variant=saving.variant_word(variant), form=form, **extra)


def save_model(
    model: Any, place: PathLike | Destination, params: Any, options: SaveOptions, push: PushOptions | None = None
) -> SaveReport | None:
    """Writes config and parameters of a model, and pushes them with `push`; None where this process writes nothing.

    Arrays that are spread over processes are written by all of them, each its own part: all have to call this.
    """
    report = _written(model, place, params, options)
    if push is not None and report is not None:
        saving.push_saved(str(place), report, options, push, card_facts(model))
    return report


def push_model(model: Any, upload: Destination, saved: Mapping[str, Any]) -> None:
    """Gives a model's files to a push, each as it is written. `saved` has keywords of save_pretrained."""
    options = options_for(saved["max_shard_size"], saved["safe_serialization"], saved.get("variant"), {})
    save_model(model, saving.Uncommitted(upload), None, options)


def card_facts(model: Any) -> CardFacts:
    """What the card of a model says that has none."""
    count = sum(math.prod(place.shape) for place in model.structure.places)
    return CardFacts(type(model).__name__, model.config.model_type, count, (), repository_of(model.name_or_path))


def _written(model: Any, directory: PathLike | Destination, params: Any, options: SaveOptions) -> SaveReport | None:
    arrays = _arrays_of(model, model.params if params is None else params)
    group = Processes() if any(map(is_elsewhere, arrays.values())) else None
    if group is None and not options.is_main_process:
        return None
    config = model.config
    config.architectures = [type(model).__name__.removeprefix("Flax")]
    config.dtype = _main_dtype(arrays)
    config._note_code(type(config), type(model))
    texts = {**sources_of(type(config), type(model)), CONFIG_NAME: config.to_json_string()}
    if model.generation_config is not None:
        texts[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()
    places = [place for place in model.structure.places if place.name in arrays]
    if options.form == "msgpack":
        if group is not None:
            raise InvalidOptionError(
                "safe_serialization=False writes whole arrays, and these are spread over several processes: save "
                "safetensors, which any of our classes loads",
                key="safe_serialization",
            )
        named = {
            linen_name(place.name, place.kind): (place, place.kind.linen_ops(place.torch_shape)) for place in places
        }
        return save_arrays(directory, named, arrays, options, texts)
    keys = saving.names_at_rest((place.name for place in places), model._loaded_names, type(model)._rules)
    rules = type(model)._rules
    named = {keys[place.name]: (place, saving.layout_ops(place.name, keys[place.name], rules)) for place in places}
    return save_arrays(directory, named, arrays, options, texts, ties_of(model), group)


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
    directory: PathLike | Destination,
    named: Mapping[str, tuple[Place, tuple[Op, ...]]],
    arrays: Mapping[str, Any],
    options: SaveOptions,
    texts: Mapping[str, str],
    ties: Mapping[str, str] | None = None,
    group: Processes | None = None,
) -> SaveReport:
    """Writes arrays: name at rest → (its place, what makes torch's layout that of the file).

    `ties` are names that are not written → the parameter that stands in for each; `group` the processes that write.
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

    def parts_of(key: str) -> Parts:
        place, ops = named[key]
        from_memory = tuple(op.inverse for op in reversed(place.ops))
        return parts_here(arrays[place.name], group).after((*from_memory, *ops))

    def data_of(key: str) -> memoryview:
        return bytes_of(assembled(parts_of(key)).reshape(by_name[key].shape))

    by_name = {stored.name: stored for stored in tensors}
    in_parts = [key for key, (place, _) in named.items() if group is not None or is_spread(arrays[place.name])]
    write: Callable[[list[str], Path], None] | None = None
    if options.form == "msgpack":

        def write(names: list[str], path: Path) -> None:
            outgoing = [
                Outgoing(name, by_name[name].dtype, by_name[name].shape, lambda name=name: data_of(name))  # type: ignore[misc]
                for name in names
            ]
            msgpack_write.write(path, outgoing)

    return saving.save(
        directory,
        tensors,
        data_of,
        options,
        secondary=tied,
        texts=texts,
        save_function=write,
        parts_of={key: partial(parts_of, key) for key in in_parts},
        group=group,
    )


def parts_here(array: Any, group: Processes | None = None) -> Parts:
    """What this process is to write of an array: of each part that several devices hold, one device's.

    An array that is not spread over the processes of a group is the same in all of them: the first writes it.
    """
    shape = tuple(array.shape)
    if not is_elsewhere(array) and group is not None and group.index != 0:
        return Parts(shape, [])
    if not (is_spread(array) or is_elsewhere(array)):
        return Parts(shape, [Part(whole(shape), _on_host(array))])
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    return Parts(shape, [Part(box_of(shard.index, shape), _on_host(shard.data)) for shard in shards])


def _on_host(array: Any) -> np.ndarray:
    """An array of one device as numpy's, by way of another that looks at the same memory: JAX keeps the copy it makes
    of what lies on an accelerator with the array that was asked for it."""
    if isinstance(array, jax.Array):
        array = jax.make_array_from_single_device_arrays(array.shape, array.sharding, [array])
    return np.asarray(array)
