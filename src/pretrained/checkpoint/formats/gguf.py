"""GGUF files, as llama.cpp and its kin keep models: metadata, a list of tensors, plain numbers or quantized blocks.

Plain numbers are mapped and cast like those of any format. Blocks become float32 as they are read, by the code of the
`gguf` package.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..._types import ByteSource, PathLike, Piece
from ...errors import (
    CheckpointChangedError,
    HubError,
    MissingFrameworkError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    SourceError,
    TensorError,
    WeightsFormatError,
)
from ..disk import Extent, read_extents
from ..files import HEAD, open_regular, place, read_up_to, recognise, stamp_of
from ..head import WithHead
from ..tensors import Entry, FileStamp
from ..windows import numpy_dtype
from .gguf_header import MAX_TENSORS, WINDOW, GgufFlawError, Head, Raw, Read, Skipped, read_head, read_values
from .gguf_names import check_heads, experts_of

__all__ = ["GgufFile", "gather_gguf", "open_gguf", "read_gguf", "read_remote_gguf", "read_vocabulary"]

_MAGIC = b"GGUF"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_PIECE = 1 << 18  # elements that become float32 at a time: what numpy makes on the way then stays in the cache
_SCRATCH = 8 << 20  # bytes of blocks read at a time


@dataclass(frozen=True, eq=False, repr=False)
class GgufFile:
    """An opened GGUF file: everything its head says, checked against the size of the file.

    Attributes:
        path: The file.
        entries: By name, in the order of the file. Blocks have the dtype and the size of what they become, float32.
        metadata: What is short enough to be shown, as strings; `format` is "gguf".
        stamp: Identity of the file when its head was read; None of one that is not on this machine.
        fields: The metadata as it is. Long arrays and strings are not kept, only what they are.
        source: What reads the file where it lies, if it is not on this machine.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp | None
    fields: Mapping[str, Any]
    _raw: Mapping[str, Raw]
    source: ByteSource | None = None

    def read(self, entry: Entry) -> Any:
        """The tensor as a numpy array of its own memory; blocks as float32.

        Raises:
            CheckpointChangedError: The file is not the one whose head was read.
            TensorError: The entry is not of this file, or its blocks are of a type that `gguf` cannot read.
            MissingFrameworkError: The tensor is quantized and `gguf` is not installed.
        """
        raw = self._raw_of(entry)
        to_floats = None if raw.blocks.dtype is not None else self._dequantizer(entry)
        array = self._empty(entry)
        flat = array.reshape(-1)
        if to_floats is None:
            self._fill(flat.view("u1").data, raw.offset)
        elif flat.size:
            self._fill_from_blocks(flat, raw, to_floats)
        return array

    def raw_place(self, entry: Entry) -> tuple[int, int]:
        """(position, number) of the bytes that a tensor takes in the file. Raises TensorError."""
        raw = self._raw_of(entry)
        return raw.offset, raw.nbytes

    def as_array(self, buffer: Any, entry: Entry) -> Any:
        """The tensor as `read` gives it, of the bytes at its `raw_place`. Raises as `read` does."""
        import numpy as np

        raw = self._raw_of(entry)
        if raw.blocks.dtype is not None:
            return np.frombuffer(buffer, np.uint8).view(numpy_dtype(entry.dtype)).reshape(entry.shape)
        to_floats, array = self._dequantizer(entry), self._empty(entry)
        if array.size:
            _dequantize(np.frombuffer(buffer, np.uint8), raw, to_floats, array.reshape(-1))
        return array

    def _raw_of(self, entry: Entry) -> Raw:
        if self.entries.get(entry.name) != entry:
            raise self._error("no such entry in this file", entry)
        return self._raw[entry.name]

    def _empty(self, entry: Entry) -> Any:
        import numpy as np

        try:
            return np.empty(entry.shape, numpy_dtype(entry.dtype))
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor '{entry.name[:200]}' takes {entry.nbytes} bytes") from None

    def _fill(self, target: memoryview, offset: int) -> None:
        if not len(target):
            return
        if self.source is not None:
            self.source.fetch([Piece(offset, len(target), lambda: target)])
        else:
            read_extents(self.path, self.stamp, [Extent(offset, target)])

    def _fill_from_blocks(self, flat: Any, raw: Raw, to_floats: Callable[[Any], Any]) -> None:
        """Fills `flat` by pieces, so that neither the blocks nor what numpy makes on the way ever add up."""
        import numpy as np

        # glibc gives memory of this size back at once, and from then on keeps smaller pieces for the next to come,
        # where it would otherwise return and fault them in again for each.
        scratch = np.empty(_SCRATCH, np.uint8)
        del scratch
        _, count, nbytes, _ = raw.blocks
        blocks = np.empty(min(raw.nbytes, _SCRATCH // nbytes * nbytes), np.uint8)
        for start in range(0, raw.nbytes, len(blocks)):
            here = blocks[: raw.nbytes - start]
            self._fill(here.data, raw.offset + start)
            _dequantize(here, raw, to_floats, flat[start // nbytes * count :])

    def _dequantizer(self, entry: Entry) -> Callable[[Any], Any]:
        """What makes float32 of blocks."""
        name = self._raw[entry.name].blocks.name
        try:
            import gguf
        except ModuleNotFoundError as error:
            if error.name != "gguf":
                raise
            reason = f"is quantized ({name}), and gguf is not installed: pip install 'pretrained[gguf]'"
            message = f"{place(self.path)}: tensor {entry.name[:200]!r} {reason}"
            raise MissingFrameworkError(
                message, key="gguf", path=self.path, tensor=entry.name, reason=reason
            ) from error
        kind = gguf.GGMLQuantizationType.__members__.get(name)
        if kind is None:
            raise self._error(f"the installed gguf does not know the type {name}: pip install -U gguf", entry)

        def to_floats(blocks: Any) -> Any:
            try:
                return gguf.quants.dequantize(blocks, kind)
            except NotImplementedError:
                raise self._error(f"gguf cannot read blocks of the type {name}", entry) from None

        return to_floats

    def _error(self, reason: str, entry: Entry) -> TensorError:
        message = f"{place(self.path)}: tensor {entry.name[:200]!r}: {reason}"
        return TensorError(message, path=self.path, tensor=entry.name, reason=reason)


def _dequantize(blocks: Any, raw: Raw, to_floats: Callable[[Any], Any], target: Any) -> None:
    """The numbers of whole blocks to the beginning of `target`, so many at a time that they stay in the cache."""
    import numpy as np

    _, count, nbytes, _ = raw.blocks
    step, done = _PIECE // count * nbytes, 0
    with np.errstate(all="ignore"):  # a scale may be infinite or no number, as the file has it
        for first in range(0, len(blocks), step):
            # As one row: gguf goes by rows, and blocks know nothing of them.
            floats = to_floats(blocks[first : first + step].reshape(1, -1)).reshape(-1)
            target[done : done + len(floats)] = floats
            done += len(floats)


def open_gguf(path: Path, name: str, sibling: Callable[[str], Path] | None = None) -> list[GgufFile]:
    """A GGUF file, with the other parts of its model where it is one of several; the parts in order.

    Args:
        path: where it is.
        name: what it is called; `…-00001-of-00003.gguf` is one of three parts.
        sibling: where the file beside it is that has the given name.

    Raises:
        ShardIndexError: the parts do not belong together, or one is missing.
        SourceError, WeightsFormatError, TensorError, ResourceLimitError, CheckpointChangedError: as `read_gguf`.
    """
    beside = sibling or (lambda other: path.parent / other)
    return gather_gguf(name, lambda other: read_gguf(path if other == name else beside(other)))


def gather_gguf(name: str, read: Callable[[str], GgufFile]) -> list[GgufFile]:
    """The same of files that `read` opens by their names."""
    match = _PART.fullmatch(name)
    first = read(name)
    path = first.path
    total = first.fields.get("split.count", 1)
    if total in (0, 1):
        parts = [first]
    elif match is None or type(total) is not int or int(match[3]) != total:
        reason = f"is one of {total!r:.60} parts, and its name is not NAME-00001-of-{total!r:.60}.gguf"
        raise _not_together(path, reason, key="split.count")
    else:
        parts = _read_parts(first, match, read)
    if match is not None and len(parts) == 1 and int(match[3]) > 1:
        raise _not_together(path, "is called one of several parts, and does not say so itself", key="split.count")
    for part in parts:
        try:
            check_heads(part.entries, part.metadata)
        except GgufFlawError as flaw:
            raise _located(flaw, part.path) from None
    return parts


def _read_parts(named: GgufFile, match: re.Match[str], read: Callable[[str], GgufFile]) -> list[GgufFile]:
    """All parts of a model, checked against each other; the metadata of the first is that of all."""
    total = int(match[3])
    parts: list[GgufFile] = []
    seen: set[str] = set()
    for number in range(total):
        name = f"{match[1]}-{number + 1:05}-of-{match[3]}.gguf"
        try:
            part = named if number + 1 == int(match[2]) else read(name)
        except SourceError as cause:
            if isinstance(cause, HubError):
                raise
            raise _not_together(named.path, f"the part {name[:200]!r} is missing: {cause}", key=name) from cause
        said = part.fields.get("split.no"), part.fields.get("split.count")
        if said != (number, total):
            raise _not_together(
                part.path, f"split.no and split.count are {said}, not {(number, total)}", key="split.no"
            )
        if double := seen & part.entries.keys():
            tensor = min(double)
            raise _not_together(part.path, f"the tensor {tensor[:200]!r} is in another part too", tensor=tensor)
        seen |= part.entries.keys()
        parts.append(part if not parts else replace(part, metadata={**parts[0].metadata, **part.metadata}))
    claimed = parts[0].fields.get("split.tensors.count", len(seen))
    if claimed != len(seen):
        reason = f"split.tensors.count is {claimed!r:.60}, and the {total} parts hold {len(seen)}"
        raise _not_together(parts[0].path, reason, key="split.tensors.count")
    return parts


def _not_together(path: Path, reason: str, key: str | None = None, tensor: str | None = None) -> ShardIndexError:
    return ShardIndexError(f"{place(path)}: {reason}", path=path, reason=reason, key=key, tensor=tensor)


def read_gguf(path: PathLike) -> GgufFile:
    """Everything the head of one GGUF file says; no tensor is read.

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, another version, or a damaged one; `key` is the metadata to blame.
        TensorError: The same, where one tensor is to blame.
        ResourceLimitError: More keys, tensors or strings than any honest file has.
        CheckpointChangedError: The file changed meanwhile.
    """
    file = Path(path)
    fd = open_regular(file)
    try:
        stamp = stamp_of(fd)
        opened = _opened(lambda count, start: read_up_to(fd, count, start), file, stamp.size, stamp)
        if stamp_of(fd) != stamp:
            reason = "the file was changed while its head was read"
            raise CheckpointChangedError(f"{place(file)}: {reason}", path=file, reason=reason)
    except OSError as cause:
        if isinstance(cause, PretrainedError):
            raise
        reason = f"cannot be read: {cause.strerror or type(cause).__name__}"
        raise WeightsFormatError(f"{place(file)}: {reason}", path=file, reason=reason) from cause
    finally:
        os.close(fd)
    return opened


def read_remote_gguf(source: ByteSource) -> GgufFile:
    """The same of a file that is not on this machine, of which the head is read, window by window.

    Raises:
        WeightsFormatError, TensorError, ResourceLimitError: as `read_gguf`.
        HubError, CheckpointChangedError: as `ByteSource.fetch`.
    """
    headed = WithHead(source, WINDOW)
    return replace(_opened(headed.read, Path(source.name), source.size, None), source=headed)


def _opened(read: Read, file: Path, size: int, stamp: FileStamp | None) -> GgufFile:
    try:
        magic = read(min(HEAD, size), 0)
        if not magic.startswith(_MAGIC):
            kind = recognise(magic)
            seen = f"it {'is' if kind == 'empty' else 'looks like'} {kind}" if kind else "it does not begin with GGUF"
            raise GgufFlawError(f"is no GGUF file: {seen}", offset=0)
        head = _unstacked(read_head(read, file, size))
    except GgufFlawError as flaw:
        raise _located(flaw, file) from None
    kinds = Counter(raw.blocks.name for raw in head.raw.values())
    metadata = {key: _text(value) for key, value in head.fields.items()}
    metadata["tensor_types"] = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    return GgufFile(file, head.entries, {**metadata, "format": "gguf"}, stamp, head.fields, head.raw)


def read_vocabulary(path: PathLike) -> dict[str, Any]:
    """What a GGUF says of its tokenizer, by the keys that begin with "tokenizer.": tokens, merges, a chat template.

    Raises:
        As `read_gguf`.
    """
    file = read_gguf(path).path
    fd = open_regular(file)
    try:
        return read_values(lambda count, start: read_up_to(fd, count, start), stamp_of(fd).size, "tokenizer.")
    except GgufFlawError as flaw:
        raise _located(flaw, file) from None
    finally:
        os.close(fd)


def _unstacked(head: Head) -> Head:
    """The head with the experts of each stack one by one, as checkpoints of other formats have them.

    Whoever reads one expert then needs the memory of one.
    """
    entries, raw = {}, {}
    for name, entry in head.entries.items():
        names = experts_of(name, entry.shape, head.fields.get("general.architecture")) or []
        if not names or not head.entries.keys().isdisjoint(names):
            entries[name], raw[name] = entry, head.raw[name]
            continue
        if len(entries) + len(names) > MAX_TENSORS:
            raise GgufFlawError(f"more than {MAX_TENSORS} tensors, its experts one by one", limit=MAX_TENSORS)
        at_rest, size = head.raw[name].nbytes // len(names), entry.nbytes // len(names)
        for number, own in enumerate(names):
            place = head.raw[name].offset + number * at_rest
            offset = -1 if entry.offset < 0 else entry.offset + number * size
            entries[own] = Entry(own, entry.dtype, entry.shape[1:], entry.file, offset, size)
            raw[own] = Raw(place, at_rest, head.raw[name].blocks)
    return Head(head.fields, entries, raw)


def _text(value: Any) -> str:
    """A value of the metadata as a string."""
    if isinstance(value, Skipped):
        return f"({value.num} {value.what})"
    return str(value)


def _located(flaw: GgufFlawError, file: Path) -> PretrainedError:
    """The error to raise for a complaint about a file."""
    where = place(file)
    if flaw.tensor is not None:
        where += f": tensor {flaw.tensor[:200]!r}"
    elif flaw.key is not None:
        where += f": {flaw.key[:200]}"
    message, reason = f"{where}: {flaw.reason}", flaw.reason
    if flaw.limit is not None:
        return ResourceLimitError(message, path=file, key=flaw.key, reason=reason, limit=flaw.limit)
    kind = WeightsFormatError if flaw.tensor is None else TensorError
    return kind(message, path=file, tensor=flaw.tensor, key=flaw.key, reason=reason, offset=flaw.offset)
