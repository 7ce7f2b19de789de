"""Keras 2's weight files, written: a group for each layer of a model, or in a shard each tensor by itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._types import PathLike
from .hdf5_tree import import_h5py
from .safetensors_write import Outgoing

__all__ = ["write"]

_ATTRIBUTE = 64512  # bytes of one attribute: HDF5 has no larger, so longer lists are cut up and the parts are numbered
_ALIGNED = 512  # bytes from which a tensor begins at a multiple of 64, where frameworks use it in place


def write(path: PathLike, layers: Mapping[str, Sequence[tuple[str, Outgoing]]], keras_version: str) -> None:
    """Writes a new file as Keras 2 and transformers' TensorFlow classes read it. What fails leaves no file.

    Args:
        path: A file that does not exist yet.
        layers: Layer of the model → (name of a variable, what to write of it), in order. The layer "" holds the
            tensors of a shard, which belong to no group. What several layers have is written once.
        keras_version: Noted in the file.

    Raises:
        OSError: From the system, as it was.
        MissingFrameworkError: h5py is not installed.
    """
    h5py = import_h5py(Path(path))
    try:
        with h5py.File(path, "x", alignment_threshold=_ALIGNED, alignment_interval=64) as file:
            if "" in layers:
                _write_list(file, "layer_names", [name for name, _ in layers[""]])
                _write_tensors(file, layers[""], {})
                return
            _write_list(file, "layer_names", layers)
            file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", keras_version.encode()
            written: dict[str, Any] = {}
            for layer, tensors in layers.items():
                group = file.create_group(layer)
                _write_list(group, "weight_names", [name for name, _ in tensors])
                _write_tensors(group, tensors, written)
            _write_list(file.create_group("top_level_model_weights"), "weight_names", ())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _write_tensors(group: Any, tensors: Iterable[tuple[str, Outgoing]], written: dict[str, Any]) -> None:
    """Writes tensors, or links to those that `written` has by name already."""
    import numpy as np

    for name, tensor in tensors:
        if tensor.name in written:
            group[name] = written[tensor.name]
            continue
        array = np.frombuffer(tensor.data(), np.dtype(tensor.dtype)).reshape(tensor.shape)
        written[tensor.name] = group.create_dataset(name, data=array)


def _write_list(group: Any, key: str, names: Iterable[str]) -> None:
    """An attribute that lists names, in as many parts as it takes."""
    import numpy as np

    listed = np.array([name.encode() for name in names])
    count = -(-listed.nbytes // _ATTRIBUTE) or 1
    for index, part in enumerate(np.array_split(listed, count)):
        group.attrs[key if count == 1 else f"{key}{index}"] = part
