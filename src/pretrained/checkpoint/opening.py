"""Opening the weight files of a snapshot: as files on this machine, or by ranges where they are streamed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .._types import Snapshot
from ..errors import SourceError
from .disk import run
from .files import safe_join
from .formats import FORMATS, format_of
from .formats.readers import open_containers
from .formats.safetensors import read_remote_header
from .tensors import Container

if TYPE_CHECKING:
    from .formats.gguf import GgufFile

__all__ = ["is_below", "open_all", "open_files", "path_of", "require_small"]

# Config and weights are both read from the head of a GGUF, which can have megabytes of vocabulary.
_remote_heads: WeakKeyDictionary[Snapshot, dict[str, GgufFile]] = WeakKeyDictionary()
_MAX_UNSTREAMED = 64 << 20  # bytes of a file that a stream fetches whole, since its reader needs all of it


def path_of(snapshot: Snapshot, name: str) -> Path:
    """Where a file of the snapshot is; a link may not lead out of a folder, but for the cache it belongs to."""
    path = snapshot.path(name)
    if snapshot.folder is not None and path == snapshot.folder / name:
        return safe_join(snapshot.folder, name)
    return path


def is_below(snapshot: Snapshot, name: str) -> bool:
    """Whether a name with a folder in it is a file of the snapshot; listings show the folder itself only."""
    return "/" in name and snapshot.folder is not None and safe_join(snapshot.folder, name).is_file()


def open_files(snapshot: Snapshot, name: str) -> Sequence[Container]:
    """A weight file and what belongs to it; headers only.

    Raises:
        SourceError: it is to be streamed, and its format can only be read from a file.
        WeightsFormatError: it is damaged, or something else than its name says.
    """
    source = snapshot.source(name)
    if source is not None and format_of(name) == "safetensors":
        return [read_remote_header(source)]
    if source is not None and format_of(name) == "gguf":
        return _open_remote_gguf(snapshot, name)
    require_small(snapshot, name)
    return open_containers(path_of(snapshot, name), name, lambda other: path_of(snapshot, other))


def _open_remote_gguf(snapshot: Snapshot, name: str) -> Sequence[Container]:
    from .formats.gguf import gather_gguf, read_gguf, read_remote_gguf

    folder, known = name[: name.rfind("/") + 1], _remote_heads.setdefault(snapshot, {})

    def read(part: str) -> GgufFile:
        source = snapshot.source(folder + part)
        if source is None:
            return read_gguf(path_of(snapshot, folder + part))
        if source.name not in known:
            known[source.name] = read_remote_gguf(source)
        return known[source.name]

    return gather_gguf(name[len(folder) :], read)


def require_small(snapshot: Snapshot, name: str) -> None:
    """Raises SourceError if this is a file of a stream that would have to be fetched whole, and a large one."""
    source = snapshot.source(name)
    if source is not None and source.size > _MAX_UNSTREAMED:
        kind = FORMATS[format_of(name)].name
        raise SourceError(
            f"{source.name} is {kind}, which cannot be streamed, and too large to be fetched on the side "
            f"({source.size:,} bytes). Leave out stream=True to download it",
            path=source.name,
            key="stream",
        )


def open_all(snapshot: Snapshot, shards: Sequence[str]) -> dict[str, Container]:
    """Name → opened shard. Where they are elsewhere, several are fetched, or their headers read, at once."""
    if shards and snapshot.source(shards[0]) is None:
        snapshot.fetch(shards)
    by_name: dict[str, Container] = {}

    def read(shard: str) -> None:
        by_name[shard] = open_files(snapshot, shard)[0]

    if snapshot.folder is None:
        run(read, shards)
    else:
        for shard in shards:
            read(shard)
    return {shard: by_name[shard] for shard in shards}
