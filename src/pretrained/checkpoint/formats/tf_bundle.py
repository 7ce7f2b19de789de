"""TensorFlow's own checkpoints (model.ckpt.index and its data files), read without TensorFlow.

Every tensor has a checksum, which is compared whenever the tensor is read. So that none is used unseen, the engine is
told that only this reader can read them (`Entry.offset` is -1), though they lie there plainly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._types import PathLike
from ...errors import CheckpointChangedError, IntegrityError, PretrainedError, ShardIndexError, TensorError
from ..files import open_regular, place, read_up_to, safe_join, stamp_of
from ..tensors import BITS, Entry, FileStamp, count_elements
from ..windows import numpy_dtype, read_bytes
from .opening import FlawError, opening
from .tf_bundle_crc import crc32c, masked
from .tf_bundle_proto import DTYPES, STRING, Described, full_names, read_entry, read_num_shards
from .tf_bundle_table import MAX_INDEX, read_table, read_varint

__all__ = ["BundleFile", "data_file_name", "read_bundle"]

MAX_GRAPH = 64 << 20  # bytes

_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Objects beside the model that a tf.train.Checkpoint holds, and what an optimizer keeps for each variable.
_NO_WEIGHTS = re.compile(r"(?:^|/)(?:optimizer|_optimizer|save_counter|keras_api)/|/\.OPTIMIZER_SLOT/")
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, eq=False, repr=False)
class BundleFile:
    """One data file of a TensorFlow checkpoint, with the tensors that the index says are in it.

    Attributes:
        path: The data file.
        entries: By name, sorted.
        metadata: `format` is "tf1" for names of variables, "tf" for names of a Keras model's.
        stamp: Identity of the data file when it was opened.
        skipped: Keys of what is no tensor of numbers, or is not the model's.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp
    skipped: tuple[str, ...]
    _described: Mapping[str, Described]

    def read(self, entry: Entry) -> Any:
        """The tensor as a contiguous numpy array of its own memory, its checksum compared.

        Raises:
            CheckpointChangedError: The file is not the one that was opened.
            TensorError: The entry is not of this file, or its bytes are no values of its dtype.
            IntegrityError: The bytes do not have the recorded checksum.
        """
        import numpy as np

        if self.entries.get(entry.name) != entry:
            raise self._error(TensorError, "no such entry in this file", entry)
        described = self._described[entry.name]
        try:
            raw = np.empty(entry.nbytes, np.uint8)
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor '{entry.name[:200]}' takes {entry.nbytes} bytes") from None
        read_bytes(self, entry._replace(offset=described.offset), raw.data)
        if (found := masked(crc32c(raw))) != described.crc:
            reason = "its bytes do not have the recorded checksum (crc32c)"
            fields = {"expected": f"{described.crc:08x}", "got": f"{found:08x}"}
            raise self._error(IntegrityError, reason, entry, **fields)
        if entry.dtype == "bool" and raw.size and raw.max() > 1:
            raise self._error(TensorError, "a bool is neither 0 nor 1", entry)
        return raw.view(numpy_dtype(entry.dtype)).reshape(entry.shape)

    def _error(self, kind: type[PretrainedError], reason: str, entry: Entry, **fields: Any) -> PretrainedError:
        message = f"{place(self.path)}: tensor {entry.name[:200]!r}: {reason}"
        return kind(message, path=self.path, tensor=entry.name, reason=reason, **fields)


def data_file_name(stem: str, shard: int, num_shards: int) -> str:
    """The name of a data file."""
    return f"{stem}.data-{shard:05d}-of-{num_shards:05d}"


def read_bundle(
    path: PathLike, name: str | None = None, sibling: Callable[[str], Path] | None = None
) -> list[BundleFile]:
    """The data files of a TensorFlow checkpoint that hold tensors, in their order; no tensor is read.

    Args:
        path: the index.
        name: what the index is called, where a cache keeps it under another name.
        sibling: where the data file of a given name is; beside the index if this is not given.

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, or a damaged one.
        TensorError: The same, where one tensor is to blame.
        ShardIndexError: A data file is missing.
        ResourceLimitError: An index of more than 100 MB or a million tensors.
        CheckpointChangedError: A file changed meanwhile.
    """
    file = Path(path)
    stem = (name or file.name).removesuffix(".index")
    find = sibling or (lambda other: safe_join(file.parent, other, what="data file"))
    with opening(file, max_bytes=MAX_INDEX) as (fd, _):
        bundle = _read_index(read_up_to(fd, MAX_INDEX + 1))
        shards = {
            shard: _open_shard(file, find(data_file_name(stem, shard, bundle.num_shards)), first)
            for shard, first in sorted(bundle.used.items())
        }
        names, metadata = _names_of(bundle, shards)
        return [_as_file(path, stamp, shard, bundle, names, metadata) for shard, (path, stamp) in shards.items()]


@dataclass
class _Bundle:
    """What an index says: every tensor by key, and of each shard that is used the first key."""

    num_shards: int
    tensors: dict[str, Described] = field(default_factory=dict)
    used: dict[int, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    graph: Described | None = None


_Shards = Mapping[int, tuple[Path, FileStamp]]


def _read_index(raw: bytes) -> _Bundle:
    pairs = read_table(raw)
    if not pairs or pairs[0][0] != b"":
        raise FlawError("is no index of a TensorFlow checkpoint: its table has no header")
    bundle = _Bundle(read_num_shards(pairs[0][1]))
    for key, value in pairs[1:]:
        if key.startswith(b"\0"):
            continue  # a part of a tensor that lies in parts, which is refused by its name
        text = _key_text(key)
        try:
            described = _checked(read_entry(value), bundle.num_shards)
        except FlawError as flaw:
            raise FlawError(flaw.reason, tensor=text, limit=flaw.limit) from None
        if key == _GRAPH and described.dtype == STRING:
            bundle.graph = described
        elif described.dtype not in DTYPES:
            bundle.skipped.append(text)
            continue
        else:
            bundle.tensors[text] = described
        bundle.used.setdefault(described.shard, text)
    return bundle


def _key_text(key: bytes) -> str:
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError:
        raise FlawError("its name is not UTF-8", tensor=key.decode("utf-8", "backslashreplace")) from None
    if _ODD.search(text):
        raise FlawError("its name has a control character", tensor=text)
    return text


def _checked(described: Described, num_shards: int) -> Described:
    """What is said of a tensor, if it agrees with itself."""
    if described.num_slices:
        reason = f"lies in {described.num_slices} parts, as a partitioned variable does"
        raise FlawError(f"{reason}; load it with TensorFlow and save it whole")
    if described.dtype not in DTYPES:
        if described.dtype not in (STRING, 20, 21):  # a resource, a variant
            raise FlawError(f"its dtype has the number {described.dtype}, which is not read")
    elif (expected := count_elements(described.shape) * BITS[DTYPES[described.dtype]] // 8) != described.size:
        raise FlawError(f"has {described.size} bytes where its shape {described.shape!r:.200} takes {expected}")
    if described.shard >= num_shards:
        raise FlawError(f"lies in data file {described.shard} of {num_shards}")
    return described


def _open_shard(index: Path, file: Path, key: str) -> tuple[Path, FileStamp]:
    """A data file and its stamp."""
    try:
        with opening(file, missing=ShardIndexError) as (_, stamp):
            return file, stamp
    except ShardIndexError as cause:
        reason = f"the data file {file.name[:200]!r} {cause.reason}"
        raise ShardIndexError(
            f"{place(index)}: {reason}; tensor {key[:200]!r} lies in it",
            path=index,
            tensor=key,
            shard=file.name,
            reason=reason,
        ) from None


def _as_file(
    path: Path, stamp: FileStamp, shard: int, bundle: _Bundle, names: Mapping[str, str], metadata: Mapping[str, str]
) -> BundleFile:
    """A shard and its tensors, all of which lie in it, one beside the other."""
    here = {key: described for key, described in bundle.tensors.items() if described.shard == shard}
    end = 0
    for key, described in sorted(here.items(), key=lambda item: (item[1].offset, item[1].size)):
        if described.offset + described.size > stamp.size:
            reason = f"its {described.size} bytes from {described.offset} on do not lie in {path.name[:200]!r}"
            raise FlawError(f"{reason}, which has {stamp.size}", tensor=key, offset=described.offset)
        if described.size and described.offset < end:
            raise FlawError("shares bytes with another tensor", tensor=key, offset=described.offset)
        end = max(end, described.offset + described.size)
    entries = {
        names[key]: Entry(names[key], DTYPES[described.dtype], described.shape, path, -1, described.size)
        for key, described in here.items()
        if key in names
    }
    skipped = (*bundle.skipped, *(key for key in here if key not in names))
    return BundleFile(path, entries, metadata, stamp, skipped, {names[key]: here[key] for key in here if key in names})


def _names_of(bundle: _Bundle, shards: _Shards) -> tuple[dict[str, str], dict[str, str]]:
    """Key → name of every tensor that is the model's, and the metadata that says whose names these are."""
    if bundle.graph is None:
        return {key: key for key in bundle.tensors}, {"format": "tf1"}
    known = full_names(_read_graph(bundle.graph, *shards[bundle.graph.shard]))
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key in bundle.tensors:
        if _NO_WEIGHTS.search(key):
            continue
        full = known.get(key, "")
        name = (full.partition("/")[2] or full) if not _ODD.search(full) else ""
        if not name or name in taken:
            name = key.removesuffix(_VALUE)
        if name in taken:
            name = key
        names[key] = name
        taken.add(name)
    return names, {"format": "tf"}


def _read_graph(described: Described, path: Path, stamp: FileStamp) -> bytes:
    """The text that holds the graph of objects: its length, a checksum of that, and the text."""
    name = _GRAPH.decode()
    if described.size > MAX_GRAPH:
        raise FlawError(f"has {described.size} bytes; at most {MAX_GRAPH} are read", tensor=name, limit=MAX_GRAPH)
    if described.shape or described.offset + described.size > stamp.size:
        raise FlawError(f"its text does not lie in {path.name[:200]!r}", tensor=name, offset=described.offset)
    fd = open_regular(path, error=CheckpointChangedError, missing=CheckpointChangedError)
    with open(fd, "rb", buffering=0) as file:
        raw = read_up_to(file.fileno(), described.size, described.offset)
        if stamp_of(fd) != stamp:
            reason = "the file was changed while it was being opened"
            raise CheckpointChangedError(f"{place(path)}: {reason}", path=path, reason=reason)
    length, at = read_varint(raw, 0, len(raw))
    if at + 4 + length != len(raw) or length >> 32:
        raise FlawError(f"its text of {length} bytes is not where it should be", tensor=name, offset=described.offset)
    # The length counts as four bytes for the checksum, however many it takes.
    if masked(crc32c(length.to_bytes(4, "little") + raw[at:])) != described.crc:
        raise FlawError("its bytes do not have the recorded checksum (crc32c)", tensor=name, offset=described.offset)
    return raw[at + 4 :]
