"""A TensorFlow model's parameters on their way out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import saving
from .._types import PathLike
from ..checkpoint.arrays import bytes_of
from ..checkpoint.commit import Stage
from ..checkpoint.formats import hdf5_write
from ..checkpoint.formats.safetensors import Outgoing
from ..checkpoint.plan_save import Stored
from ..checkpoint.rules import Op, apply_ops, shape_after
from ..configuration import CONFIG_NAME
from ..errors import InvalidOptionError, unknown_argument
from ..generation.config import GENERATION_CONFIG_NAME
from ..hub.card import CARD, CardFacts, repository_of
from ..options import SaveOptions
from ..own_code import sources_of
from ..push_options import PushOptions
from ..report import SaveReport
from ..saving import Destination
from ..tying import ties_of
from .keras_names import keras_name
from .serving import export
from .structure import Place

__all__ = ["array_of", "card_facts", "options_for", "push_model", "save_arrays", "save_model", "write_card"]

_FLAGS = ("durable", "is_main_process")
Named = Mapping[str, tuple[Place, tuple[Op, ...]]]  # name at rest → its place, what makes torch's layout the file's


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
    form = "safetensors" if safe_serialization else "hdf5"
    return SaveOptions(max_shard_size=max_shard_size, variant=saving.variant_word(variant), form=form, **extra)


def save_model(
    model: Any,
    place: PathLike | Destination,
    options: SaveOptions,
    push: PushOptions | None = None,
    signatures: Any = None,
    *,
    saved_model: bool = False,
) -> SaveReport | None:
    """Writes config and parameters of a model, and pushes them with `push`; None where this process writes nothing.

    With `saved_model` the folder gets a SavedModel with these signatures as well.
    """
    if not options.is_main_process:
        return None
    if options.form == "hdf5":
        report = _save_hdf5(model, place, options)
    else:
        report = save_arrays(place, _named(model), options, _texts(model), ties_of(model))
    if saved_model:
        report.files |= export(model, Path(str(place)), signatures)
    if push is not None:
        saving.push_saved(str(place), report, options, push, card_facts(model))
    return report


def push_model(model: Any, upload: Destination, saved: Mapping[str, Any]) -> None:
    """Gives a model's files to a push, each as it is written. `saved` has keywords of save_pretrained."""
    options = options_for(saved["max_shard_size"], saved["safe_serialization"], saved.get("variant"), {})
    save_model(model, saving.Uncommitted(upload), options)


def card_facts(model: Any) -> CardFacts:
    """What the card of a model says that has none."""
    count = sum(math.prod(place.shape) for place in model.structure.places)
    return CardFacts(type(model).__name__, model.config.model_type, count, (), repository_of(model.name_or_path))


def write_card(folder: PathLike, text: str) -> None:
    """Writes a card into a folder, or nothing."""
    with Stage(folder) as stage:
        stage.path(CARD).write_text(text, encoding="utf-8")
        stage.commit()


def _texts(model: Any) -> dict[str, str]:
    """The files beside the weights."""
    config = model.config
    config.architectures = [type(model).__name__.removeprefix("TF")]
    config.dtype = model.dtype
    config._note_code(type(config), type(model))
    texts: dict[str, str] = {**sources_of(type(config), type(model)), CONFIG_NAME: config.to_json_string()}
    if model.generation_config is not None:
        texts[GENERATION_CONFIG_NAME] = model.generation_config.to_json_string()
    return texts


def _places(model: Any) -> list[Place]:
    """What is written of a model."""
    ignored = [re.compile(pattern) for pattern in type(model)._keys_to_ignore_on_save or ()]
    return [place for place in model.structure.places if not any(found.search(place.name) for found in ignored)]


def _named(model: Any) -> Named:
    """The parameters of a model under torch's names."""
    places, rules = _places(model), type(model)._rules
    keys = saving.names_at_rest((place.name for place in places), model._loaded_names, rules)
    return {keys[p.name]: (p, saving.layout_ops(p.name, keys[p.name], rules)) for p in places}


def _save_hdf5(model: Any, directory: PathLike | Destination, options: SaveOptions) -> SaveReport:
    """Writes what transformers' TensorFlow classes read."""
    places = _places(model)
    names = [keras_name(model, place) for place in places]
    for place in places:
        if str(place.variable.dtype) == "bfloat16":
            raise InvalidOptionError(
                f"{place.name} is bfloat16, which HDF5 files have no type for: save safetensors, or a model of float32",
                key="safe_serialization",
            )
    named = {found.name: (p, p.kind.keras_ops(p.shape)) for found, p in zip(names, places, strict=True)}
    layers = {found.name: found.layer for found in names}
    others = type(model)._keras_shared
    shared = {found.name: others[p.name] for found, p in zip(names, places, strict=True) if p.name in others}

    def write(outgoing: Sequence[Outgoing], path: Path) -> None:
        is_whole = len(outgoing) == len(named)
        grouped: dict[str, list[tuple[str, Outgoing]]] = {}
        for tensor in outgoing:
            name = tensor.name if is_whole else tensor.name.partition("/")[2]
            grouped.setdefault(layers[tensor.name] if is_whole else "", []).append((name, tensor))
            for other in shared.get(tensor.name, ()) if is_whole else ():
                grouped.setdefault(other, []).append((name, tensor))
        hdf5_write.write(path, grouped, keras.__version__)

    return save_arrays(directory, named, options, _texts(model), write=write)


def array_of(place: Place) -> np.ndarray:
    """A parameter's elements, on the variable's own memory where that is main memory."""
    return np.asarray(tf.convert_to_tensor(place.variable.value))


def save_arrays(
    directory: PathLike | Destination,
    named: Named,
    options: SaveOptions,
    texts: Mapping[str, str],
    ties: Mapping[str, str] | None = None,
    write: Callable[[Sequence[Outgoing], Path], None] | None = None,
) -> SaveReport:
    """Writes arrays. `ties` are names that are not written → the parameter that stands in for each.

    `write` writes one file in place of our writer of safetensors.
    """
    tensors, start, spans = [], 1, {}
    for key, (place, ops) in named.items():
        stored = Stored(key, str(place.variable.dtype), shape_after(ops, place.shape), start)
        stored = stored._replace(stop=start + stored.nbytes)  # an address of its own, so that tied names share it
        spans[place.name] = stored
        tensors.append(stored)
        start = stored.stop + 1
    tied = {alias: spans[source] for alias, source in (ties or {}).items() if source in spans}
    tensors += [stored._replace(name=alias) for alias, stored in tied.items()]

    def bytes_at_rest(key: str) -> memoryview:
        place, ops = named[key]
        return bytes_of(apply_ops(ops, array_of(place)))

    def write_shard(names: list[str], path: Path) -> None:
        assert write is not None
        shard = [by_name[name] for name in names]
        write([Outgoing(t.name, t.dtype, t.shape, lambda t=t: bytes_at_rest(t.name)) for t in shard], path)  # type: ignore[misc]

    by_name = {stored.name: stored for stored in tensors}
    return saving.save(
        directory,
        tensors,
        bytes_at_rest,
        options,
        secondary=tied,
        texts=texts,
        save_function=None if write is None else write_shard,
    )
