"""Finding the weights of a snapshot: which file or shards they are, from names and headers alone."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._types import Snapshot
from ..errors import OptionError, ShardIndexError, SourceError, UntrustedPathError
from ..options import WeightOptions
from .commit import recover
from .dialects import translate
from .files import safe_name
from .formats import FORMATS, format_of
from .index import ShardIndex, check_shards, read_index, without_model_names
from .opening import is_below, open_all, open_files, path_of
from .rules import Op
from .tensors import Container, Entry

__all__ = [
    "Weights",
    "find_checkpoint",
    "find_gguf",
    "has_usual_name",
    "has_weights",
    "is_weight_file",
    "settle",
    "single_name",
    "variant_name",
]

logger = logging.getLogger(__name__)

_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_NUMBERS = r"-\d{5}-of-\d{5}"
_STEMS = [form.single.rpartition(".")[::2] for form in FORMATS.values()]
_OUR_SINGLE = re.compile(
    "|".join(rf"{re.escape(stem)}(?:\.([^/]+?))?(?:{_NUMBERS})?\.{suffix}" for stem, suffix in _STEMS)
)
_OUR_INDEX = re.compile(
    "|".join(rf"{re.escape(form.index[:-5])}(?:\.([^/]+))?\.json" for form in FORMATS.values() if form.index)
)

# What from_tf and from_flax ask for, where a folder holds several formats.
_PREFERRED = {"tf": ("hdf5", "tf_bundle"), "flax": ("msgpack",)}

# Weight files under other names, for the message when none has a usual one.
_MAX_LISTED = 1000  # names of a folder that are looked at for a message
_FOREIGN = re.compile(r"adapter_model.*\.bin|.*\.index\.json|.*\.(index|gguf|safetensors|pt|pth|h5|msgpack)")


@dataclass
class Weights:
    """The weights of one checkpoint, headers read and checked against each other.

    Attributes:
        containers: path → opened file.
        entries: name → tensor, of all files; the names are torch's, whoever wrote the files.
        index: the index, if there are shards.
        unlisted: names that a shard holds and the index does not list.
        aliases: second names that a file notes: name → name under which the tensor is in `entries`.
        layouts: name → what makes the layout torch's, for tensors of another framework.
        twins: (name, tensor) of what is at rest a second time.
        skipped: names at rest of what is no weight, such as the state of an optimizer.
    """

    containers: dict[Path, Container] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    index: ShardIndex | None = None
    unlisted: list[str] = field(default_factory=list)
    aliases: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, tuple[Op, ...]] = field(default_factory=dict)
    twins: Sequence[tuple[str, Entry]] = ()
    skipped: Sequence[str] = ()

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

    def fetch(self, names: Sequence[str]) -> None:
        """Nothing: all files are in a folder."""

    def source(self, name: str) -> None:
        """None: all files are in a folder."""


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
    return variant_name(FORMATS["safetensors"].single, variant)


def is_weight_file(name: str, variant: str | None = None, form: str = "safetensors") -> bool:
    """Whether `name` is a weight file or index that a save of this variant and format writes, or that shadows one."""
    tag = f".{re.escape(variant)}" if variant else ""
    for key, written in FORMATS.items():  # those before it come first in a load, so what an earlier save left goes
        stem, suffix = map(re.escape, written.single.rpartition(".")[::2])
        if written.index and (
            re.fullmatch(rf"{stem}{tag}(?:{_NUMBERS})?\.{suffix}", name) or name == variant_name(written.index, variant)
        ):
            return True
        if key == form:
            break
    return False


def has_usual_name(name: str, variant: str | None = None) -> bool:
    """Whether a checkpoint of this variant, of whatever format, has its file or index under this name."""
    is_ours = _OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name)
    return is_ours is not None and _variant_of(name) == variant


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
    if (weights := find_gguf(snapshot, options)) is not None:
        return weights
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


def has_weights(snapshot: Snapshot, options: WeightOptions) -> bool:
    """Whether the snapshot has a file that a load would begin with."""
    if getattr(snapshot, "only", None) is not None or options.gguf_file is not None:
        return True
    names = snapshot.names()
    usual = any(name in names for pair in _wanted(options) for name in pair if name)
    return usual or _sole_gguf(names, options) is not None


def find_gguf(snapshot: Snapshot, options: WeightOptions) -> Weights | None:
    """The same where the weights are a GGUF; None where they are not. A GGUF holds the config of its model itself.

    They are one when it is named, or when there is one in the folder and no other weights.
    """
    name = options.gguf_file
    only = getattr(snapshot, "only", None)
    if name is None and only is not None:
        name = only if format_of(only) == "gguf" else None
    elif name is None:
        name = _sole_gguf(snapshot.names(), options)
    elif only is not None and only != name:
        raise OptionError(f"gguf_file={name!r:.200} beside another file, {snapshot.name}", key="gguf_file")
    return None if name is None else _gather(_open_gguf(snapshot, name))


def _sole_gguf(names: Sequence[str], options: WeightOptions) -> str | None:
    """The GGUF of a folder, or the first of its parts; None if there are several, or other weights beside it."""
    found = [name for name in names if format_of(name) == "gguf" and "/" not in name]
    if not found or options.variant is not None or options.use_safetensors:
        return None
    if any(_OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name) for name in names):
        return None
    models = {re.sub(rf"{_NUMBERS}\.gguf$", "", name) for name in found}
    return min(found) if len(models) == 1 else None


def _open_gguf(snapshot: Snapshot, name: str) -> Sequence[Container]:
    from .formats.gguf import open_gguf

    names = snapshot.names()
    if name not in names and safe_name(name, what="gguf_file") and not is_below(snapshot, name):
        found = [other for other in names if format_of(other) == "gguf"]
        there = f"there is {', '.join(found[:12])}" if found else "and no other .gguf"
        raise SourceError(f"no {name!r:.200} in {snapshot.name}; {there}", path=snapshot.name, key="gguf_file")
    if snapshot.source(name) is not None:
        return open_files(snapshot, name)
    folder = name[: name.rfind("/") + 1]
    return open_gguf(path_of(snapshot, name), name[len(folder) :], lambda other: path_of(snapshot, folder + other))


def _wanted(options: WeightOptions) -> list[tuple[str, str]]:
    """(single file, index) of the formats that may be read, as this variant names them; the preferred one first."""
    keys = [
        key for key in FORMATS if options.use_safetensors is None or (key == "safetensors") == options.use_safetensors
    ]
    if options.variant is not None:
        keys = [key for key in keys if "*" not in FORMATS[key].single]  # a free name says nothing of variants
    first = _PREFERRED.get(options.prefer or "", ())
    keys.sort(key=lambda key: key not in first)  # the sort keeps the order of the others
    pairs = [(FORMATS[key].single, FORMATS[key].index) for key in keys]
    return [
        (variant_name(single, options.variant), variant_name(index, options.variant) if index else "")
        for single, index in pairs
    ]


def _open_pair(snapshot: Snapshot, names: Sequence[str], single: str, index: str) -> Weights:
    """The checkpoint of an index; a single file beside it has to be one of its shards."""
    weights = _open_sharded(snapshot, index)
    if single in names and weights.index is not None and single not in weights.index.shards:
        raise ShardIndexError(
            f"{snapshot.name} holds both {single} and {index}, which does not list it: two checkpoints in one folder. "
            "Remove the stale one, or name the file to load",
            path=path_of(snapshot, index),
            key=single,
        )
    return weights


def _open_named(snapshot: Snapshot, name: str) -> Weights:
    if re.fullmatch(r".+\.index(\..+)?\.json", name):
        return _open_sharded(snapshot, name)
    return _open_single(snapshot, name)


def _open_single(snapshot: Snapshot, name: str) -> Weights:
    return _gather(open_files(snapshot, name))


def _gather(containers: Sequence[Container], index: ShardIndex | None = None, unlisted: Sequence[str] = ()) -> Weights:
    """The weights of opened files, under torch's names."""
    by_path = {container.path: container for container in containers}
    translated = translate(containers)
    if translated is None:
        entries = (
            containers[0].entries
            if len(containers) == 1
            else {key: entry for container in containers for key, entry in container.entries.items()}
        )
        return Weights(by_path, entries, index, list(unlisted), _aliases(containers, entries))
    entries, layouts, twins, skipped = translated
    return Weights(by_path, entries, index, list(unlisted), {}, layouts, twins, skipped)


def _aliases(containers: Iterable[Container], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Second names that a file's metadata gives to its tensors, as writers of tied weights note them."""
    return {
        alias: kept
        for container in containers
        for alias, kept in container.metadata.items()
        if kept in container.entries and alias not in entries
    }


def _open_sharded(snapshot: Snapshot, name: str) -> Weights:
    index = read_index(path_of(snapshot, name))
    if all(format_of(shard) == "hdf5" for shard in index.shards):
        index = without_model_names(index)
    listed = snapshot.names()
    names = frozenset(listed) if isinstance(listed, list) else listed  # where nothing can be listed, each is asked for
    if lost := [shard for shard in index.shards if shard not in names and not is_below(snapshot, shard)]:
        tensor = next(key for key, shard in index.weight_map.items() if shard == lost[0])
        raise ShardIndexError(
            f"{index.path}: {len(lost)} of {len(index.shards)} shards are missing, {lost[0]} with {tensor} among them",
            path=index.path,
            key=lost[0],
            tensor=tensor,
        )
    by_name = open_all(snapshot, index.shards)
    unlisted = check_shards(index, by_name)
    if unlisted:
        logger.warning(
            "%s does not list %d tensors of its shards: %s", index.path, len(unlisted), ", ".join(unlisted[:5])
        )
    return _gather(list(by_name.values()), index, unlisted)


def _nothing_found(snapshot: Snapshot, names: Sequence[str], options: WeightOptions) -> SourceError:
    wanted = " or ".join(name for pair in _wanted(options) for name in pair if name)
    ours = [name for name in names if _is_ours(name)]
    foreign = [name for name in names if _FOREIGN.fullmatch(name) and name not in ours]
    parts = [f"no weights in {snapshot.name}: looked for {wanted}"]
    if options.use_safetensors is not None:
        parts.append(f"use_safetensors={options.use_safetensors} leaves out the rest")
    if ours:
        variants = sorted({v for name in ours if (v := _variant_of(name))})
        near = difflib.get_close_matches(options.variant or "", variants, n=1)
        there = f"variant={near[0] if near else variants[0]!r}" if variants else "no variant"
        parts.append(f"there is {', '.join(ours[:6])} ({there})")
    if len(gguf := [name for name in foreign if format_of(name) == "gguf"]) > 1:
        parts.append(f"there is {', '.join(gguf[:6])}; gguf_file= says which of them")
    elif foreign:
        parts.append(f"there is {', '.join(foreign[:6])}, which is another format or name")
    below = _folders_with_weights(snapshot, names)
    if below:
        parts.append(f"there are weights in {', '.join(below[:6])}; name one with subfolder={below[0]!r}")
    if not ours and not foreign and not below:
        parts.append(f"there is {', '.join(names[:12]) or 'nothing'}")
    return SourceError("; ".join(parts), path=snapshot.folder or snapshot.name)


def _folders_with_weights(snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Folders right below the snapshot that a load could be told to read."""
    found = {parts[0] for name in names if len(parts := name.split("/")) == 2 and _is_ours(parts[1])}
    if snapshot.folder is not None:
        try:
            for item in itertools.islice(os.scandir(snapshot.folder), _MAX_LISTED):
                if item.is_dir() and not item.name.startswith("."):
                    found |= {item.name for name in os.listdir(item.path)[:_MAX_LISTED] if _is_ours(name)}
        except OSError:  # it was only to say more
            return sorted(found)
    return sorted(found)


def _is_ours(name: str) -> bool:
    return bool(_OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name))


def _variant_of(name: str) -> str | None:
    match = _OUR_SINGLE.fullmatch(name) or _OUR_INDEX.fullmatch(name)
    return match[match.lastindex] if match and match.lastindex else None
