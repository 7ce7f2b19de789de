"""Loading into and saving from any torch module: the same engine, report and safety, without a base class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .._types import PathLike
from ..checkpoint.find import Weights, find_checkpoint, settle
from ..checkpoint.formats.memory import MEMORY, StateDict
from ..configuration import CONFIG_NAME
from ..errors import OptionError
from ..hub.ref import resolve
from ..loading import Stopwatch, load_weights
from ..options import SaveOptions, split_load_options, unknown_keyword
from ..report import LoadReport, SaveReport
from .backend import TorchBackend
from .offload import state_of
from .saving import save_tensors
from .slots import collect_slots, dtype_name
from .tying import tied_names

__all__ = ["load_into", "save"]


def load_into(module: nn.Module, source: PathLike | Mapping[str, Any], **kwargs: Any) -> LoadReport:
    """Fills a module with the weights of a checkpoint. If anything fails the module is as it was.

    A live module keeps its parameters as objects, its devices and its training mode; what the checkpoint lacks keeps
    its value. Parameters on the meta device become real.

    Args:
        module: any `nn.Module`; one on the meta device too.
        source: a folder, a weight file, a hub name, or a mapping of names to tensors.
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
    watch = Stopwatch()
    backend = TorchBackend(_constructor_of(module))
    with watch.time("find"):
        if isinstance(source, Mapping):
            container = StateDict(source, backend.describe)
            weights = Weights({MEMORY: container}, container.entries)
        else:
            weights = find_checkpoint(settle(resolve(source, options.source)), options.weights)
    if options.dtype is None:
        options = _with_own_dtypes(options, module)
    training = {id(m): m.training for m in module.modules()}
    try:
        report = load_weights(
            module, type(module), weights, options, backend, config=getattr(module, "config", None), watch=watch
        )
    except BaseException:
        backend.undo()
        raise
    for inner in module.modules():
        inner.training = training[id(inner)]
    return report


def _with_own_dtypes(options: Any, module: nn.Module) -> Any:
    """The options with the dtype each floating parameter has now."""
    from dataclasses import replace

    own = {
        name: dtype_name(group[0][1].tensor.dtype)
        for name, group in collect_slots(module).items()
        if group[0][1].tensor.is_floating_point()
    }
    common = next(iter(own.values()), "float32")
    different = {name: dtype for name, dtype in own.items() if dtype != common}
    return replace(options, dtype={"": common, **different})


def _constructor_of(module: nn.Module) -> Callable[[], nn.Module] | None:
    """How to make a fresh module of this kind, if its class says so by having a config."""
    config = getattr(module, "config", None)
    return None if config is None else lambda: type(module)(config)


def save(module: nn.Module, directory: PathLike, **kwargs: Any) -> SaveReport:
    """Writes the tensors of any module into a folder, all or nothing.

    Args:
        module: any `nn.Module`. Of tied parameters one name is written, and the others noted in the file.
        directory: made if it is not there.
        kwargs: `max_shard_size`, `variant`, `durable`; `config`: anything with `to_json_string`, for config.json.

    Raises:
        SaveError: nothing was written; what was there is as it was. OptionError: a keyword nobody knows.
    """
    config = kwargs.get("config", getattr(module, "config", None))
    known = {"max_shard_size", "variant", "durable", "state_dict"}
    for name in kwargs:
        if name not in known and name != "config":
            raise OptionError(f"save has no option {name!r}; it has {', '.join(sorted(known))} and config", key=name)
    options = SaveOptions(**{name: value for name, value in kwargs.items() if name in known})
    to_json = getattr(config, "to_json_string", None)
    texts = {} if to_json is None else {CONFIG_NAME: to_json()}
    state = state_of(module) if options.state_dict is None else options.state_dict
    return save_tensors(state, directory, options, secondary=tied_names(module), texts=texts)
