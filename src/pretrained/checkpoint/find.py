"""Finding the weights of a snapshot: which file or shards they are, from names and headers alone."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._types import Snapshot
from ..errors import ShardIndexError, SourceError, UntrustedPathError
from ..options import WeightOptions
from .commit import recover
from .files import safe_join
from .formats.safetensors import read_header
from .index import ShardIndex, check_shards, read_index
from .tensors import Container, Entry

__all__ = ["Weights", "find_checkpoint", "is_weight_file", "open_container", "settle", "single_name", "variant_name"]

logger = logging.getLogger(__name__)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_SINGLE = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"

# (single file, index) of each format that can be read, the preferred one first.
_SAFETENSORS = ((SINGLE, INDEX),)
_TORCH = ((TORCH_SINGLE, TORCH_INDEX),)

_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_OUR_SINGLE = re.compile(r"(?:model|pytorch_model)(?:\.([^/]+?))?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)")
_OUR_INDEX = re.compile(r"(?:model\.safetensors|pytorch_model\.bin)\.index(?:\.([^/]+))?\.json")

# Weight files of other formats, for the message when ours are not there.
_FOREIGN = re.compile(
    r"(pytorch_model.*|adapter_model.*)\.bin(\.index\.json)?|tf_model.*\.h5(\.index\.json)?|flax_model.*\.msgpack(\.index\.json)?"
    r"|.*\.(ckpt\.index|gguf|safetensors|pt|pth)"
)


@dataclass
class Weights:
    """The weights of one checkpoint, headers read and checked against each other.

    Attributes:
        containers: path → opened file.
        entries: name → tensor, of all files.
        index: the index, if there are shards.
        unlisted: names that a shard holds and the index does not list.
        aliases: second names that a file notes: name → name under which the tensor is in `entries`.
    """

    containers: dict[Path, Container] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    index: ShardIndex | None = None
    unlisted: list[str] = field(default_factory=list)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors at rest."""
        return sum(entry.nbytes for entry in self.entries.values())


class _Settled:
    """A snapshot as a recorded commit leaves it, where the commit could not be put in place."""

    def __init__(self, snapshot: Snapshot, overlay: Mapping[str, Path | None]) -> None:
        self._snapshot, self._overlay = snapshot, overlay
        self.name, self.commit, self.folder = snapshot.name, snapshot.commit, snapshot.folder
        self.only = getattr(snapshot, "only", None)

    def names(self) -> Sequence[str]:
        kept = [name for name in self._snapshot.names() if name not in self._overlay]
        return sorted([*kept, *(name for name, path in self._overlay.items() if path is not None)])

    def path(self, name: str) -> Path:
        return self._overlay.get(name) or self._snapshot.path(name)


def settle(snapshot: Snapshot) -> Snapshot:
    """The snapshot with no save half done: what a killed save had recorded is finished, or seen as if it were."""
    if snapshot.folder is None:
        return snapshot
    overlay = recover(snapshot.folder)
    return _Settled(snapshot, overlay) if overlay else snapshot


def variant_name(name: str, variant: str | None) -> str:
    """`name` for a variant: model.fp16.safetensors, model.safetensors.index.fp16.json."""
    if variant is None:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{variant}{dot}{suffix}"


def single_name(variant: str | None = None) -> str:
    """The name of a checkpoint in one file."""
    return variant_name(SINGLE, variant)


def is_weight_file(name: str, variant: str | None = None) -> bool:
    """Whether `name` is a weight file or index that a save of this variant writes, or a shadow of one."""
    tag = f".{re.escape(variant)}" if variant else ""
    return bool(
        re.fullmatch(rf"model{tag}(-\d{{5}}-of-\d{{5}})?\.safetensors|model\.safetensors\.index{tag}\.json", name)
    )


def find_checkpoint(snapshot: Snapshot, options: WeightOptions) -> Weights:
    """Opens the headers of the snapshot's weights.

    Raises:
        SourceError: there are none; says which formats and variants there are instead.
        WeightsFormatError: a file is damaged, or is something else than its name says.
        ShardIndexError: index and shards contradict each other, or a single file stands beside an index.
        UntrustedPathError: the variant, or a name in an index, leads out of the folder.
    """
    if options.variant is not None and (not _VARIANT.fullmatch(options.variant) or ".." in options.variant):
        raise UntrustedPathError(f"variant {options.variant!r:.200} must be a plain word such as 'fp16'", key="variant")
    only = getattr(snapshot, "only", None)
    if only is not None:
        return _open_named(snapshot, only)
    names = snapshot.names()
    for single, index in _wanted(options):
        if index in names:
            return _open_pair(snapshot, names, single, index)
        if single in names:
            return _open_single(snapshot, single)
    raise _nothing_found(snapshot, names, options)


def _wanted(options: WeightOptions) -> list[tuple[str, str]]:
    """(single file, index) of the formats that may be read, as this variant names them."""
    chosen = {None: _SAFETENSORS + _TORCH, True: _SAFETENSORS, False: _TORCH}[options.use_safetensors]
    return [(variant_name(single, options.variant), variant_name(index, options.variant)) for single, index in chosen]


def _open_pair(snapshot: Snapshot, names: Sequence[str], single: str, index: str) -> Weights:
    """The checkpoint of an index; a single file beside it has to be one of its shards."""
    weights = _open_sharded(snapshot, index)
    if single in names and weights.index is not None and single not in weights.index.shards:
        raise ShardIndexError(
            f"{snapshot.name} holds both {single} and {index}, which does not list it: two checkpoints in one folder. "
            "Remove the stale one, or name the file to load",
            path=_path(snapshot, index),
            key=single,
        )
    return weights


def _open_named(snapshot: Snapshot, name: str) -> Weights:
    if re.fullmatch(r".+\.index(\..+)?\.json", name):
        return _open_sharded(snapshot, name)
    return _open_single(snapshot, name)


def open_container(path: Path, name: str | None = None) -> Container:
    """One weight file, opened by the reader that its name asks for; nothing but headers is read.

    Args:
        path: where it is.
        name: what it is called, where a cache keeps it under another name.

    Raises:
        WeightsFormatError: it is damaged, or something else than its name says.
    """
    if (name or path.name).endswith((".bin", ".pt", ".pth")):
        from .formats.torch_zip import read_torch

        return read_torch(path)
    return read_header(path)


def _path(snapshot: Snapshot, name: str) -> Path:
    path = snapshot.path(name)
    if snapshot.folder is not None and path == snapshot.folder / name:
        return safe_join(snapshot.folder, name)
    return path


def _is_below(snapshot: Snapshot, name: str) -> bool:
    """Whether a name with a folder in it is a file of the snapshot; listings show the folder itself only."""
    return "/" in name and snapshot.folder is not None and safe_join(snapshot.folder, name).is_file()


def _open_single(snapshot: Snapshot, name: str) -> Weights:
    container = open_container(_path(snapshot, name), name)
    return Weights({container.path: container}, container.entries, aliases=_aliases([container], container.entries))


def _aliases(containers: Iterable[Container], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Second names that a file's metadata gives to its tensors, as writers of tied weights note them."""
    return {
        alias: kept
        for container in containers
        for alias, kept in container.metadata.items()
        if kept in container.entries and alias not in entries
    }


def _open_sharded(snapshot: Snapshot, name: str) -> Weights:
    index = read_index(_path(snapshot, name))
    names = set(snapshot.names())
    if lost := [shard for shard in index.shards if shard not in names and not _is_below(snapshot, shard)]:
        tensor = next(key for key, shard in index.weight_map.items() if shard == lost[0])
        raise ShardIndexError(
            f"{index.path}: {len(lost)} of {len(index.shards)} shards are missing, {lost[0]} with {tensor} among them",
            path=index.path,
            key=lost[0],
            tensor=tensor,
        )
    by_name: dict[str, Container] = {shard: open_container(_path(snapshot, shard), shard) for shard in index.shards}
    unlisted = check_shards(index, by_name)
    if unlisted:
        logger.warning(
            "%s does not list %d tensors of its shards: %s", index.path, len(unlisted), ", ".join(unlisted[:5])
        )
    entries = {key: entry for container in by_name.values() for key, entry in container.entries.items()}
    aliases = _aliases(by_name.values(), entries)
    return Weights({c.path: c for c in by_name.values()}, entries, index, unlisted, aliases)


def _nothing_found(snapshot: Snapshot, names: Sequence[str], options: WeightOptions) -> SourceError:
    wanted = " or ".join(name for pair in _wanted(options) for name in pair)
    ours = [name for name in names if _OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name)]
    foreign = [name for name in names if _FOREIGN.fullmatch(name) and name not in ours]
    parts = [f"no weights in {snapshot.name}: looked for {wanted}"]
    if options.use_safetensors is not None:
        parts.append(f"use_safetensors={options.use_safetensors} leaves out the rest")
    if ours:
        variants = sorted({v for name in ours if (v := _variant_of(name))})
        near = difflib.get_close_matches(options.variant or "", variants, n=1)
        there = f"variant={near[0] if near else variants[0]!r}" if variants else "no variant"
        parts.append(f"there is {', '.join(ours[:6])} ({there})")
    if foreign:
        parts.append(f"there is {', '.join(foreign[:6])}, which is another format or name")
    if not ours and not foreign:
        parts.append(f"there is {', '.join(names[:12]) or 'nothing'}")
    return SourceError("; ".join(parts), path=snapshot.folder or snapshot.name)


def _variant_of(name: str) -> str | None:
    match = _OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name)
    return match[1] if match else None
