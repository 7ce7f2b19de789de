"""Loading into and saving from any NNX module: the same engine, report and safety, without a base class."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from flax import nnx

from .._types import PathLike
from ..checkpoint.dtypes import DtypePolicy
from ..checkpoint.find import Weights, find_checkpoint, settle
from ..checkpoint.formats.memory import MEMORY, StateDict
from ..checkpoint.plan_load import ParamSpec
from ..configuration import CONFIG_NAME
from ..errors import SaveError, unknown_argument
from ..hub.ref import resolve
from ..loading import Stopwatch, load_weights
from ..options import SaveOptions, split_load_options, unknown_keyword
from ..report import LoadReport, SaveReport
from .backend import FlaxBackend
from .init import draw_all
from .saving import save_arrays
from .structure import Structure

__all__ = ["load_into", "save"]


class _Backend(FlaxBackend):
    """A load into a module that is there already: what the checkpoint lacks keeps its value."""

    def __init__(self, structure: Structure, module: nnx.Module) -> None:
        super().__init__()
        self._places, self._module = structure.by_name, module

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """The parameters, in torch's layout."""
        return [ParamSpec(p.name, p.torch_shape, p.dtype) for p in self._places.values()]

    def initialise(self, model: Structure, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Draws what has no value yet."""
        values = _values_of(self._module)
        empty = [self._places[spec.name] for spec in specs]
        empty = [place for place in empty if isinstance(values[place.path], jax.ShapeDtypeStruct)]
        dtypes = {place.name: policy.dtype_of(place.name) for place in empty}
        self._initial = draw_all(model, empty, jax.random.key(0), dtypes)

    def bind(self, model: Structure, values: MutableMapping[str, Any]) -> None:
        """Puts the arrays into the module."""
        made = self._put_here(values)
        made |= {self._places[name].path: array for name, array in self._initial.items()}
        nnx.update(self._module, model.state(_values_of(self._module) | made))

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Nothing: the module's mode is its owner's."""


def _values_of(module: nnx.Module) -> dict[tuple[str, ...], Any]:
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {tuple(map(str, path)): variable.get_value() for path, variable in flat}


def load_into(module: nnx.Module, source: PathLike | Mapping[str, Any], **kwargs: Any) -> LoadReport:
    """Fills an NNX module with the weights of a checkpoint. If anything fails the module is as it was.

    Args:
        module: any; one of `nnx.eval_shape` too. Flax's own layers are filled from what torch calls them.
        source: a folder, a weight file, a hub name, or a mapping of torch's names to arrays.
        kwargs: `dtype` (the module's own by default; "auto" for the checkpoint's), `strict`, `key_mapping`,
            `ignore_mismatched_sizes`, `mmap`, `variant`, `use_safetensors`, and where to look: `subfolder`,
            `revision`, `cache_dir`, `token`, `local_files_only`.

    Returns:
        What was loaded, missing and unexpected.

    Raises:
        SourceError, WeightsFormatError, MismatchError, OptionError: as `from_pretrained`.
    """
    options, rest = split_load_options(kwargs, can_quantize=False)
    if rest:
        raise unknown_keyword(next(iter(rest)))
    structure, watch = Structure(module, lambda rng: module), Stopwatch()
    backend = _Backend(structure, module)
    with watch.time("find"):
        if isinstance(source, Mapping):
            container = StateDict(source, backend.describe)
            weights = Weights({MEMORY: container}, container.entries)
        else:
            weights = find_checkpoint(settle(resolve(source, options.source)), options.weights)
    if options.dtype is None:
        own = {place.name: place.dtype for place in structure.places if "float" in place.dtype}
        common = next(iter(own.values()), "float32")
        options = replace(options, dtype={"": common, **{n: d for n, d in own.items() if d != common}})
    return load_weights(structure, type(module), weights, options, backend, watch=watch)


def save(module: nnx.Module, directory: PathLike, **kwargs: Any) -> SaveReport:
    """Writes the parameters of any NNX module into a folder under torch's names, all or nothing.

    Args:
        module: any.
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
    structure, values = Structure(module, lambda rng: module), _values_of(module)
    for place in structure.places:
        if isinstance(values[place.path], jax.ShapeDtypeStruct):
            raise SaveError(f"cannot save {place.name}: it has no values", tensor=place.name)
    arrays = {place.name: values[place.path] for place in structure.places}
    named: dict[str, Any] = {place.name: (place, ()) for place in structure.places}
    return save_arrays(directory, named, arrays, options, {} if to_json is None else {CONFIG_NAME: to_json()})
