"""load_into and save: for a module of whichever framework, by that framework's part of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._types import PathLike
from .errors import OptionError
from .report import LoadReport, SaveReport

__all__ = ["load_into", "save"]


def _part(module: Any) -> Any:
    """The functions for a module.

    Raises:
        OptionError: it is no module of a framework that is known here.
    """
    for base in type(module).__mro__:
        framework = base.__module__.partition(".")[0]
        if framework == "torch":
            from .pt import any_module as for_torch

            return for_torch
        if framework == "flax":
            from .flax import any_module as for_flax

            return for_flax
        if framework == "keras":
            from .tf import any_module as for_keras

            return for_keras
    raise OptionError(f"a {type(module).__name__} is no torch.nn.Module, flax.nnx.Module or keras.Layer", key="module")


def load_into(module: Any, source: PathLike | Mapping[str, Any], **kwargs: Any) -> LoadReport:
    """Fills a module with the weights of a checkpoint. If anything fails the module is as it was.

    Args:
        module: a `torch.nn.Module`, one on the meta device too; a `flax.nnx.Module`; or a Keras model or
            layer that is built.
        source: a folder, a weight file, a hub name, or a mapping of names to tensors.
        kwargs: `dtype` (the module's own by default; "auto" for the checkpoint's), `strict`, `key_mapping`,
            `ignore_mismatched_sizes`, `mmap`, `variant`, `use_safetensors`, and where to look: `subfolder`,
            `revision`, `cache_dir`, `token`, `local_files_only`.

    Returns:
        What was loaded, missing and unexpected.

    Raises:
        SourceError, WeightsFormatError, MismatchError, OptionError: as `from_pretrained`.
    """
    found: LoadReport = _part(module).load_into(module, source, **kwargs)
    return found


def save(module: Any, directory: PathLike, **kwargs: Any) -> SaveReport:
    """Writes the tensors of any module into a folder, all or nothing.

    Args:
        module: as for `load_into`. Of tied parameters one name is written, and the others noted in the file.
        directory: made if it is not there.
        kwargs: `max_shard_size`, `variant`, `durable`; `config`: anything with `to_json_string`, for config.json.

    Raises:
        SaveError: nothing was written; what was there is as it was. OptionError: a keyword nobody knows.
    """
    found: SaveReport = _part(module).save(module, directory, **kwargs)
    return found
