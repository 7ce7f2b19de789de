"""The tensors in the tree of an HDF5 file: what may be there at all, and where the elements lie."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..._types import Shape
from ...errors import MissingFrameworkError, PretrainedError
from ..files import fill, place
from ..tensors import BITS, count_elements
from .opening import FlawError

__all__ = ["SourceFile", "Stored", "find_tensors", "import_h5py", "library_errors"]

MAX_OBJECTS = 1_000_000
MAX_DEPTH = 64
MAX_READ = 512 << 20  # bytes that the library may read of what is no data; a read counts for at least MIN_READ
MIN_READ = 256
MIN_UNPACKED, MAX_RATIO = 64 << 20, 100  # bytes; times the size of the file
MAX_NAME = 1024

# What h5py raises where the HDF5 library complains, and where a file says what Python cannot hold.
_COMPLAINTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LIST, _FIRST_PART = b"weight_names", b"weight_names0"  # a long list is split into weight_names0, weight_names1, …
_INTEGERS = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
_DTYPES = _INTEGERS | {"bool", "float16", "float32", "float64"}
_PACKED = frozenset({1, 2, 3, 32000})  # deflate, shuffle, fletcher32 and h5py's lzf; no filter is fetched from outside


def import_h5py(file: Path) -> Any:
    """The module h5py.

    Raises:
        MissingFrameworkError: It is not installed.
    """
    try:
        import h5py
    except ImportError as cause:
        reason = "h5py is needed to read HDF5 files: pip install 'pretrained[h5]'"
        raise MissingFrameworkError(f"{place(file)}: {reason}", path=file, key="h5py", reason=reason) from cause
    return h5py


@contextmanager
def library_errors(tensor: str | None = None) -> Iterator[None]:
    """Turns what h5py raises about a file, or a tensor of it, into a complaint."""
    try:
        yield
    except _COMPLAINTS as cause:
        if isinstance(cause, PretrainedError):
            raise
        text = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise FlawError(f"is damaged or cut off: {text}", tensor=tensor) from cause


class SourceFile(io.RawIOBase):
    """An open file for the HDF5 library, which reads through it: never past the end, and not for ever."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__()
        self._file = io.FileIO(fd, closefd=True)
        self._size, self._at, self._left = size, 0, MAX_READ + 2 * size

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new position."""
        self._at = offset + (0 if whence == io.SEEK_SET else self._at if whence == io.SEEK_CUR else self._size)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the whole buffer; fewer bytes than that are an error, since the library would not notice."""
        view = memoryview(buffer)
        self._left -= max(len(view), MIN_READ)
        if self._left < 0:
            raise OSError("its structure is read over and over")
        if self._at < 0 or self._at + len(view) > self._size or fill(self._file.fileno(), view, self._at) != len(view):
            raise OSError("it refers to bytes beyond its end")
        self._at += len(view)
        return len(view)

    def close(self) -> None:
        """Closes the descriptor."""
        self._file.close()
        super().close()


class Stored(NamedTuple):
    """A dataset: its path in the file, and where its elements lie; `offset` is -1 where they do not lie plainly."""

    path: bytes
    dtype: str
    shape: Shape
    offset: int
    nbytes: int


class _Dataset(NamedTuple):
    """A dataset in the tree. `level`: how many of the parts of its path are the layer; -1 outside of any layer."""

    parts: tuple[str, ...]
    level: int
    node: Any


@dataclass
class _Layer:
    """A group that lists its tensors: how many, and how many were found."""

    listed: int
    found: int = 0


@dataclass
class _Tree:
    """A walk through the groups of a file."""

    h5py: Any
    layers: dict[tuple[str, ...], _Layer] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    num_objects: int = 0

    def datasets(self, group: Any, parts: tuple[str, ...] = (), level: int = -1) -> Iterator[_Dataset]:
        """The datasets below a group, in the order of their names."""
        address = self.h5py.h5o.get_info(group).addr
        if address in self.seen or len(parts) > MAX_DEPTH:
            raise FlawError(f"the group {_path(parts)!r} is linked twice, or lies too deep", key=_path(parts))
        self.seen.add(address)
        if (listed := self._num_listed(group, parts)) is not None:
            if level >= 0:
                raise FlawError(f"the layer {_path(parts)!r} lies in another one", key=_path(parts))
            level = len(parts)
            self.layers[parts] = _Layer(listed)
        for name in self._links(group, parts):
            inner = (*parts, name)
            with library_errors(_path(inner)):
                node = self.h5py.h5o.open(group, name.encode("utf-8"))
            if isinstance(node, self.h5py.h5g.GroupID):
                yield from self.datasets(node, inner, level)
            elif isinstance(node, self.h5py.h5d.DatasetID):
                yield _Dataset(inner, level, node)
            else:
                raise FlawError("is neither a group nor a dataset", tensor=_path(inner))

    def _num_listed(self, group: Any, parts: tuple[str, ...]) -> int | None:
        """How many tensors the attributes of a group list; None if it is no layer."""
        h5a = self.h5py.h5a
        if not h5a.exists(group, _LIST):
            if not h5a.exists(group, _FIRST_PART):
                return None
            count = part = 0
            while h5a.exists(group, name := _LIST + str(part).encode()):
                count, part = count + self._num_names(group, name, parts), part + 1
            return count
        return self._num_names(group, _LIST, parts)

    def _num_names(self, group: Any, attribute: bytes, parts: tuple[str, ...]) -> int:
        shape = self.h5py.h5a.open(group, attribute).shape
        if shape is None or len(shape) != 1:
            where = f"the attribute {attribute.decode()} of the group {_path(parts)!r}"
            raise FlawError(f"{where} is no list", key=_path(parts))
        return int(shape[0])

    def _links(self, group: Any, parts: tuple[str, ...]) -> list[str]:
        """The names in a group, all of which are plain links to what is in the file."""
        names: list[bytes] = []

        def add(name: bytes) -> bool | None:
            names.append(name)
            # An exception would not get out of the library here; anything but None makes it stop.
            return True if self.num_objects + len(names) > MAX_OBJECTS else None

        group.links.iterate(add)
        self.num_objects += len(names)
        if self.num_objects > MAX_OBJECTS:
            raise FlawError(f"more than {MAX_OBJECTS} objects", limit=MAX_OBJECTS)
        if len(set(names)) != len(names):
            raise FlawError(f"the group {_path(parts)!r} has two objects of one name", key=_path(parts))
        return [self._checked(group, name, parts) for name in names]

    def _checked(self, group: Any, name: bytes, parts: tuple[str, ...]) -> str:
        text = name.decode("utf-8", "backslashreplace")
        whole = _path((*parts, text))
        if len(name) > MAX_NAME or b"/" in name or name in (b"", b".", b"..") or text.encode("utf-8") != name:
            raise FlawError("its name is none that a tensor can have", tensor=whole)
        if _ODD.search(text):
            raise FlawError("its name has a control character", tensor=whole)
        h5l = self.h5py.h5l
        kind = group.links.get_info(name).type
        if kind != h5l.TYPE_HARD:
            kinds = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
            raise FlawError(f"is {kinds.get(kind, 'a link of an unknown kind')}, which is not followed", tensor=whole)
        return text


def find_tensors(h5py: Any, root: Any, size: int) -> dict[str, Stored]:
    """The datasets of a file of `size` bytes by the names of their tensors.

    Raises:
        FlawError: Links, datasets of other kinds or out of range, or a tree that is none of Keras' weights.
    """
    _refuse_whole_models(h5py, root)
    tree = _Tree(h5py)
    stored: dict[str, Stored] = {}
    unpacked = 0
    for parts, level, node in tree.datasets(root):
        whole = _path(parts)
        if len(parts) > 1 and parts[-2] == "vars" and parts[-1].isdigit():
            reason = "looks like a weights file of Keras 3, which does not name its variables"
            raise FlawError(f"{reason}; load it with Keras and save the model with save_pretrained", key=whole)
        if level >= 0:
            tree.layers[parts[:level]].found += 1
        elif tree.layers:
            raise FlawError("lies in no group that has the attribute weight_names", tensor=whole)
        with library_errors(whole):
            found, cost = _Dissector(h5py, node, whole, size).dissect()
        if (name := _name_of(parts, level, stored)) in stored:
            raise FlawError(f"is called {name[:200]!r} as another tensor is", tensor=whole)
        stored[name] = found
        unpacked += cost
        if unpacked > (limit := max(MIN_UNPACKED, MAX_RATIO * size)):
            raise FlawError(f"the file grows beyond {limit} bytes when it is unpacked", tensor=whole, limit=limit)
    _check_layers(tree)
    _check_overlaps(stored)
    return stored


def _path(parts: tuple[str, ...]) -> str:
    return "/".join(parts)


def _name_of(parts: tuple[str, ...], level: int, taken: dict[str, Stored]) -> str:
    """What a tensor is called: its path without the layer and, in there, without the model."""
    if level < 0:
        return _path(parts)
    inner = parts[level:]
    name = _path(inner[1:] or inner)
    if name in taken:
        name = f"{name}@{_path(parts[:level])}"
    return name if name not in taken else f"{_path(inner[1:] or inner)}@{_path(parts[: level + 1])}"


def _refuse_whole_models(h5py: Any, root: Any) -> None:
    if h5py.h5a.exists(root, b"model_config") or root.links.exists(b"model_weights"):
        reason = "is a whole Keras model, not the weights alone"
        raise FlawError(f"{reason}; load it with Keras and save its weights with save_weights", key="model_weights")


def _check_layers(tree: _Tree) -> None:
    for parts, layer in tree.layers.items():
        if layer.listed != layer.found:
            where = f"the group {_path(parts)!r}"
            raise FlawError(f"{where} lists {layer.listed} tensors and has {layer.found}", key=_path(parts))


def _check_overlaps(stored: dict[str, Stored]) -> None:
    """Two names of one dataset may share its bytes; nothing else may."""
    plain = sorted((s.offset, s.offset + s.nbytes, name) for name, s in stored.items() if s.offset >= 0 and s.nbytes)
    last, end = (-1, -1), -1
    for start, stop, name in plain:
        if start < end and (start, stop) != last:
            raise FlawError("shares bytes with another tensor", tensor=name, offset=start)
        last, end = (start, stop), max(end, stop)


@dataclass
class _Dissector:
    """One dataset, looked at from all sides before anything of it is believed."""

    h5py: Any
    node: Any
    name: str
    size: int

    def dissect(self) -> tuple[Stored, int]:
        """Where the tensor lies, and the bytes that unpacking takes if it is packed."""
        h5d = self.h5py.h5d
        dtype, is_plain = self._dtype()
        shape = self._shape()
        nbytes = count_elements(shape) * BITS[dtype] // 8
        plan = self.node.get_create_plist()
        layout = plan.get_layout()
        if layout == h5d.VIRTUAL:
            raise self._flaw("is a virtual dataset, whose elements lie in other files")
        if plan.get_external_count():
            raise self._flaw("is stored in another file")
        path = b"/" + self.name.encode("utf-8")
        if nbytes == 0:
            return Stored(path, dtype, shape, 0 if is_plain else -1, 0), 0
        if layout == h5d.CHUNKED:
            return Stored(path, dtype, shape, -1, nbytes), self._unpacked(plan, dtype, shape)
        if self.node.get_storage_size() != nbytes:
            raise self._flaw(f"has {self.node.get_storage_size()} bytes where its shape takes {nbytes}")
        if layout != h5d.CONTIGUOUS:
            return Stored(path, dtype, shape, -1, nbytes), 0
        offset = self.node.get_offset()
        if offset is None or offset < 0 or offset + nbytes > self.size:
            raise self._flaw(f"its {nbytes} bytes from {offset} on do not lie in the file of {self.size}")
        return Stored(path, dtype, shape, offset if is_plain else -1, nbytes), 0

    def _dtype(self) -> tuple[str, bool]:
        """The name of the dtype, and whether the elements lie as this machine has them."""
        h5t = self.h5py.h5t
        kind = self.node.get_type()
        classes = {
            h5t.COMPOUND: "compound",
            h5t.VLEN: "of variable length",
            h5t.REFERENCE: "references",
            h5t.STRING: "text",
            h5t.OPAQUE: "opaque",
            h5t.ARRAY: "arrays",
            h5t.BITFIELD: "bit fields",
        }
        if (wrong := classes.get(kind.get_class())) is not None:
            raise self._flaw(f"its elements are {wrong}, not numbers")
        dtype = self.node.dtype
        # A float of other widths has the numpy type that can hold it, and its bytes are not of that type.
        if dtype.name not in _DTYPES or not kind.equal(h5t.py_create(dtype)):
            raise self._flaw(f"its elements are of a type that is not read, nearest to {dtype.name}")
        return dtype.name, dtype.name != "bool" and dtype == dtype.newbyteorder("<")

    def _shape(self) -> Shape:
        space = self.node.get_space()
        h5s = self.h5py.h5s
        if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
            raise self._flaw("has no shape")
        return tuple(int(dim) for dim in space.get_simple_extent_dims())

    def _unpacked(self, plan: Any, dtype: str, shape: Shape) -> int:
        """Bytes of all chunks when they are unpacked, once it is certain that all of them are there."""
        filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
        if unknown := filters - _PACKED:
            raise self._flaw(f"is packed by the filter {min(unknown)}, which is not read")
        chunk = plan.get_chunk()
        expected = count_elements(tuple(-(-dim // step) for dim, step in zip(shape, chunk, strict=True)))
        if (found := self.node.get_num_chunks()) != expected:
            raise self._flaw(f"has {found} of its {expected} chunks")
        return expected * count_elements(chunk) * BITS[dtype] // 8

    def _flaw(self, reason: str) -> FlawError:
        return FlawError(reason, tensor=self.name)
