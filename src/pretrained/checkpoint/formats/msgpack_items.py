"""msgpack as it lies in a file, one item after the other: what each is and how long, without its content.

A length is believed once the file has as many bytes left, and whatever is large is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from ..files import read_up_to
from .flaws import CutOffError, FlawError

__all__ = ["Cursor", "Item"]

WINDOW = 1 << 16


class Item(NamedTuple):
    """What stands at a place of the file.

    Attributes:
        kind: "nil", "bool", "int", "float", "str", "bin", "array", "map" or "ext".
        value: of "int" and "bool" itself; of "array" and "map" the number of what follows, of "str", "bin" and "ext"
            the bytes.
        code: the type of an ext.
    """

    kind: str
    value: int = 0
    code: int = 0


# First byte → kind, and how the length or number after it is written.
_SIZED: Mapping[int, tuple[str, str]] = {
    **{0xC4 + i: ("bin", form) for i, form in enumerate([">B", ">H", ">L"])},
    **{0xC7 + i: ("ext", form) for i, form in enumerate([">B", ">H", ">L"])},
    **{0xCC + i: ("int", form) for i, form in enumerate([">B", ">H", ">L", ">Q", ">b", ">h", ">l", ">q"])},
    **{0xD9 + i: ("str", form) for i, form in enumerate([">B", ">H", ">L"])},
    **{0xDC + i: ("array", form) for i, form in enumerate([">H", ">L"])},
    **{0xDE + i: ("map", form) for i, form in enumerate([">H", ">L"])},
}
_FLOATS: Mapping[int, int] = {0xCA: 4, 0xCB: 8}
_CONSTANTS: Mapping[int, Item] = {0xC0: Item("nil"), 0xC2: Item("bool", 0), 0xC3: Item("bool", 1)}
_FIXED_EXT: Mapping[int, int] = {0xD4 + i: 1 << i for i in range(5)}


class Cursor:
    """A place in a file of msgpack, and a window of what comes next."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size
        self.at = 0
        self._raw = b""
        self._raw_at = 0

    @property
    def left(self) -> int:
        """Bytes to the end of the file."""
        return self.size - self.at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.at - self._raw_at
        if start < 0 or start + count > len(self._raw):
            self._raw = read_up_to(self._fd, max(count, WINDOW), self.at)
            self._raw_at, start = self.at, 0
        if len(self._raw) - start < count:
            raise CutOffError("the file is cut off", offset=self.at)
        self.at += count
        return self._raw[start : start + count]

    def skip(self, count: int) -> None:
        """Passes over `count` bytes."""
        if count > self.left:
            raise CutOffError(f"the file is cut off: {count} bytes are told, and {self.left} are left", offset=self.at)
        self.at += count

    def item(self) -> Item:
        """What comes next, without its content.

        Raises:
            FlawError: It claims more than is left of the file, or is nothing at all.
        """
        first = self.take(1)[0]
        item = _short(first)
        if item is None and first in _SIZED:
            kind, form = _SIZED[first]
            (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
            item = Item(kind, value, self._code() if kind == "ext" else 0)
        elif item is None and first in _FIXED_EXT:
            item = Item("ext", _FIXED_EXT[first], self._code())
        elif item is None and first in _FLOATS:
            self.skip(_FLOATS[first])
            item = Item("float")
        if item is None:
            raise FlawError(f"has the byte 0x{first:02x}, which begins nothing", offset=self.at - 1)
        least = item.value * (2 if item.kind == "map" else 1)
        if item.kind not in ("int", "bool") and least > self.left:
            what = "items" if item.kind in ("map", "array") else "bytes"
            reason = f"the file is cut off: {item.kind} of {item.value} {what}, and {self.left} bytes are left"
            raise CutOffError(reason, offset=self.at)
        return item

    def _code(self) -> int:
        return int.from_bytes(self.take(1), "big", signed=True)


def _short(first: int) -> Item | None:
    """The item that one byte tells all of, but for its content."""
    if first < 0x80:
        return Item("int", first)
    if first < 0x90:
        return Item("map", first & 0x0F)
    if first < 0xA0:
        return Item("array", first & 0x0F)
    if first < 0xC0:
        return Item("str", first & 0x1F)
    if first >= 0xE0:
        return Item("int", first - 0x100)
    return _CONSTANTS.get(first)
