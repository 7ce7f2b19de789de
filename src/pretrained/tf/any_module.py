"""Loading into and saving from any Keras model or layer: the same engine, report and safety, without a base class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._types import PathLike
from ..checkpoint.arrays import bytes_of
from ..checkpoint.dtypes import DtypePolicy
from ..checkpoint.find import Weights, find_checkpoint, settle
from ..checkpoint.formats.memory import MEMORY, StateDict
from ..checkpoint.plan_load import ParamSpec
from ..checkpoint.plan_save import Stored
from ..checkpoint.rules import Op, Permute, apply_ops, shape_after
from ..configuration import CONFIG_NAME
from ..errors import SaveError, unknown_argument
from ..hub.ref import resolve
from ..loading import Stopwatch, load_weights
from ..options import SaveOptions, split_load_options, unknown_keyword
from ..report import LoadReport, SaveReport
from ..saving import save as save_tensors
from .backend import TFBackend, tensor_on

__all__ = ["load_into", "save"]

# Keras's own layers: variable → (torch's name, from torch's layout to theirs by number of axes).
_KERNEL = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}
_LEAVES: Mapping[str, tuple[str, Mapping[int, tuple[int, ...]]]] = {
    "kernel": ("weight", _KERNEL),
    "embeddings": ("weight", {}),
    "gamma": ("weight", {}),
    "beta": ("bias", {}),
    "moving_mean": ("running_mean", {}),
    "moving_variance": ("running_var", {}),
}
_KNOWN = ("Dense", "Conv1D", "Conv2D", "Embedding", "LayerNormalization", "BatchNormalization", "GroupNormalization",
          "RMSNormalization")  # fmt: skip


class _Backend(TFBackend):
    """A load into a model that is there already: what the checkpoint lacks keeps its value."""

    def __init__(self, found: Mapping[str, tuple[Any, tuple[Op, ...]]]) -> None:
        super().__init__()
        self._found = found

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """The variables, in torch's layout."""
        return [
            ParamSpec(name, shape_after(_back(ops), tuple(variable.shape)), str(variable.dtype))
            for name, (variable, ops) in self._found.items()
        ]

    def initialise(self, model: Any, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Nothing: a variable has a value from the beginning."""

    def bind(self, model: Any, values: MutableMapping[str, Any]) -> None:
        """Gives the variables their values."""
        for name, array in values.items():
            variable, ops = self._found[name]
            variable.assign(tensor_on(apply_ops(ops, array)))

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Nothing: variables are what they were, with other values."""


def _back(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    return tuple(op.inverse for op in reversed(ops))


def _variables(module: Any) -> dict[str, tuple[Any, tuple[Op, ...]]]:
    """Name as torch would have it → (variable, from torch's layout to the variable's)."""
    found: dict[str, tuple[Any, tuple[Op, ...]]] = {}
    seen: set[int] = set()
    for name, owner in _layers(module, ""):
        for variable in (*owner._trainable_variables, *owner._non_trainable_variables):
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            leaf = variable.name.rpartition(".")[2]
            is_known = type(owner).__name__ in _KNOWN
            leaf, axes = _LEAVES.get(leaf, (leaf, {})) if is_known else (leaf, {})
            ops: tuple[Op, ...] = (Permute(axes[len(variable.shape)]),) if len(variable.shape) in axes else ()
            found[f"{name}{leaf}"] = variable, ops
    return found


def _layers(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(name in front of its variables, layer) of a layer and those in it: by attribute, or as the model names them."""
    yield prefix, owner
    inner = {id(layer): layer for layer in owner._layers}
    for key, value in list(vars(owner).items()):
        items = (
            [(key, value)] if not isinstance(value, (list, tuple)) else [(f"{key}.{i}", v) for i, v in enumerate(value)]
        )
        for name, layer in items:
            if not key.startswith("_") and inner.pop(id(layer), None) is not None:
                yield from _layers(layer, f"{prefix}{name}.")
    for layer in inner.values():
        if isinstance(layer, keras.layers.Layer):
            yield from _layers(layer, f"{prefix}{layer.name}.")


def load_into(module: Any, source: PathLike | Mapping[str, Any], **kwargs: Any) -> LoadReport:
    """Fills a Keras model or layer that is built with the weights of a checkpoint; after an error it is as it was.

    Args:
        module: any. Keras's own layers are filled from what torch calls them.
        source: a folder, a weight file, a hub name, or a mapping of torch's names to arrays.
        kwargs: `strict`, `key_mapping`, `ignore_mismatched_sizes`, `mmap`, `variant`, `use_safetensors`, and where to
            look: `subfolder`, `revision`, `cache_dir`, `token`, `local_files_only`.

    Returns:
        What was loaded, missing and unexpected.

    Raises:
        SourceError, WeightsFormatError, MismatchError, OptionError: as `from_pretrained`.
    """
    options, rest = split_load_options(kwargs, can_quantize=False)
    if rest:
        raise unknown_keyword(next(iter(rest)))
    found, watch = _variables(module), Stopwatch()
    backend = _Backend(found)
    with watch.time("find"):
        if isinstance(source, Mapping):
            container = StateDict(source, backend.describe)
            weights = Weights({MEMORY: container}, container.entries)
        else:
            weights = find_checkpoint(settle(resolve(source, options.source)), options.weights)
    own = {name: str(variable.dtype) for name, (variable, _) in found.items() if "float" in str(variable.dtype)}
    common = next(iter(own.values()), "float32")
    options = replace(options, dtype={"": common, **{n: d for n, d in own.items() if d != common}})
    return load_weights(module, type(module), weights, options, backend, watch=watch)


def save(module: Any, directory: PathLike, **kwargs: Any) -> SaveReport:
    """Writes the variables of any Keras model or layer into a folder under torch's names, all or nothing.

    Args:
        module: any that is built.
        directory: made if it is not there.
        kwargs: `max_shard_size`, `variant`, `durable`; `config`: anything with `to_json_string`, for config.json.

    Raises:
        SaveError: nothing was written; what was there is as it was. OptionError: a keyword nobody knows.
    """
    known = {"max_shard_size", "variant", "durable"}
    for name in kwargs:
        if name not in known and name != "config":
            raise unknown_argument("save", name, {*known, "config"})
    options = SaveOptions(**{name: value for name, value in kwargs.items() if name in known})
    to_json = getattr(kwargs.get("config"), "to_json_string", None)
    found = _variables(module)
    if not found:
        raise SaveError(f"{type(module).__name__} has no variables: build it first", path=directory)
    tensors = [
        Stored(name, str(variable.dtype), shape_after(_back(ops), tuple(variable.shape)))
        for name, (variable, ops) in found.items()
    ]

    def data_of(name: str) -> memoryview:
        variable, ops = found[name]
        return bytes_of(apply_ops(_back(ops), variable.numpy()))

    texts = {} if to_json is None else {CONFIG_NAME: to_json()}
    return save_tensors(directory, tensors, data_of, options, texts=texts)
