"""The reader of each format, imported when a file asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..tensors import Container
from . import format_of

__all__ = ["Sibling", "open_containers"]

Sibling = Callable[[str], Path]


def open_containers(path: Path, name: str | None = None, sibling: Sibling | None = None) -> list[Container]:
    """A weight file and the files that belong to it, opened by the reader that its name asks for; headers only.

    Args:
        path: where it is.
        name: what it is called, where a cache keeps it under another name.
        sibling: where a file is that stands beside it under the given name; the same folder if this is not given.

    Raises:
        WeightsFormatError: it is damaged, or something else than its name says.
    """
    kind = format_of(name or path.name)
    if kind == "torch":
        from .torch_zip import read_torch

        return [read_torch(path)]
    if kind == "msgpack":
        from .msgpack import read_msgpack

        return [read_msgpack(path)]
    if kind == "hdf5":
        from .hdf5 import read_hdf5

        return [read_hdf5(path)]
    if kind == "tf_bundle":
        from .tf_bundle import read_bundle

        return list(read_bundle(path, name, sibling))
    if kind == "gguf":
        from .gguf import open_gguf

        return list(open_gguf(path, name or path.name, sibling))
    from .safetensors import read_header

    return [read_header(path)]
