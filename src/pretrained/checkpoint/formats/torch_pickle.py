"""The pickle in a PyTorch file, read as a list of tensors and never run.

A pickle is a program: it names functions and calls them. Here every name is looked up in a closed table of inert
values, a call is a line of ours that notes what a tensor would be made of, and nothing is ever imported or executed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from .flaws import CutOffError, FlawError
from .torch_calls import call, kind_of, set_item, storage_of
from .torch_globals import GLOBALS, Global, OrderedDict, PickledStorage

__all__ = ["Pickled", "Refer", "read_leading", "read_pickle"]

# What honest files stay far below: some 35 operations and 8 objects per tensor.
MAX_OPS = 24_000_000
MAX_OBJECTS = 5_000_000
MAX_STACK = 200_000
MAX_NAME = 256  # bytes of a module or of a name in it
MAX_LONG = 16  # bytes

Refer = Callable[[Any], Any]


class Pickled(NamedTuple):
    """What a pickle at the beginning of some bytes holds.

    Attributes:
        value: what it describes.
        end: its length in bytes.
        storages: the storages it mentions by key.
    """

    value: Any
    end: int
    storages: Mapping[str, PickledStorage]


class _Machine:
    """The state of one reading: where it is, the stack, where the marks on it are, what is remembered."""

    __slots__ = ("at", "marks", "memo", "num_objects", "raw", "refer", "stack", "storages")

    def __init__(self, raw: bytes, refer: Refer | None) -> None:
        self.raw = raw
        self.refer = refer
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, PickledStorage] = {}
        self.num_objects = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes of the program."""
        start = self.at
        if count > len(self.raw) - start:
            raise CutOffError(_CUT_OFF)
        self.at = start + count
        return self.raw[start : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def line(self) -> str:
        """The text up to the next line feed."""
        end = self.raw.find(b"\n", self.at, self.at + MAX_NAME + 1)
        if end < 0 and len(self.raw) - self.at <= MAX_NAME:
            raise CutOffError(_CUT_OFF)
        if end < 0:
            raise FlawError("a name in the pickle has no end")
        text = self.raw[self.at : end].decode("utf-8", "backslashreplace")
        self.at = end + 1
        return text

    def add(self, value: Any) -> None:
        """Pushes a value that takes memory of its own."""
        self.count(1)
        self.stack.append(value)

    def count(self, number: int) -> None:
        """Notes that so many objects are made."""
        self.num_objects += number
        if self.num_objects > MAX_OBJECTS:
            raise FlawError(f"the pickle makes more than {MAX_OBJECTS} objects", limit=MAX_OBJECTS)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise FlawError("the pickle takes a value where there is none")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise FlawError("the pickle takes a value where there is none")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        if not self.marks:
            raise FlawError("the pickle takes a mark where there is none")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


def read_pickle(raw: bytes) -> Any:
    """The value that a pickle of tensors describes: dicts, lists, tuples, scalars and `PickledTensor`.

    Raises:
        FlawError: Cut off, malformed, out of bounds, or naming or calling anything that tensors do not need.
    """
    pickled = read_leading(raw)
    if pickled.end != len(raw):
        raise FlawError(_NO_END)
    return pickled.value


def read_leading(raw: bytes, refer: Refer | None = None) -> Pickled:
    """The pickle that some bytes begin with; what comes after it is not looked at.

    Args:
        raw: the bytes.
        refer: what the pickle means by something that is kept outside of it; one of PyTorch's storages, described by
            a tuple, if this is not given.

    Raises:
        CutOffError: The bytes end before the pickle does.
        FlawError: As `read_pickle`.
    """
    machine = _Machine(raw, refer)
    stack = machine.stack
    for _ in range(MAX_OPS):
        if machine.at >= len(raw):
            raise CutOffError(_CUT_OFF)
        code = raw[machine.at]
        machine.at += 1
        if code == 0x2E:  # STOP
            if len(stack) != 1 or machine.marks:
                raise FlawError(_NO_END)
            return Pickled(stack[0], machine.at, machine.storages)
        step = _STEPS.get(code)
        if step is None:
            _refuse(machine, code)
        step(machine)
        if len(stack) > MAX_STACK or len(machine.marks) > MAX_STACK:
            raise FlawError(f"the pickle has more than {MAX_STACK} values pending", limit=MAX_STACK)
    raise FlawError(f"the pickle has more than {MAX_OPS} operations", limit=MAX_OPS)


_CUT_OFF = "the pickle is cut off"
_NO_END = "the pickle does not end where it should"
_RUNNERS: Mapping[int, str] = {
    0x69: "INST",
    0x6F: "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x50: "PERSID",
}


def _refuse(machine: _Machine, code: int) -> NoReturn:
    """Complains of an operation that PyTorch does not write for tensors."""
    if code == 0x69:
        name = f"{machine.line()}.{machine.line()}"
        raise FlawError(f"{_unneeded(name)} and makes an instance of it", key=name)
    called = _RUNNERS.get(code, f"0x{code:02x}")
    raise FlawError(f"the pickle has the operation {called}, which a file of tensors has no use for", key=called)


def _unneeded(name: str) -> str:
    return f"the pickle names the global '{name}', which a file of tensors has no use for (nothing was run)"


def _global(machine: _Machine, module: object, name: object) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
        raise FlawError("the pickle names a global with something else than text")
    found = GLOBALS.get((module, name))
    if found is None:
        full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"
        raise FlawError(_unneeded(full), key=full)
    machine.stack.append(found)


def _stack_global(machine: _Machine) -> None:
    name = machine.pop()
    _global(machine, machine.pop(), name)


def _text(size: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        raw = machine.take(machine.number(size))
        try:
            machine.add(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise FlawError("a text in the pickle is not UTF-8") from None

    return step


def _integer(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.number(size))


def _signed(machine: _Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(4), "little", signed=True))


def _long(size: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        count = machine.number(size)
        if count > MAX_LONG:
            raise FlawError(f"the pickle has a whole number of {count} bytes")
        machine.add(int.from_bytes(machine.take(count), "little", signed=True))

    return step


def _tuple(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.add(tuple(reversed(values)))

    return step


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if type(target) is not list:
        raise FlawError("the pickle appends to something that is no list")
    target.extend(values)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if not isinstance(target, dict) or len(values) % 2:
        raise FlawError("the pickle sets items of something that is no dict, or half an item")
    for key, value in zip(values[::2], values[1::2], strict=True):
        set_item(target, key, value)


def _pair(machine: _Machine) -> list[Any]:
    value = machine.pop()
    return [machine.pop(), value]


def _put(size: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        index = machine.number(size) if size else len(machine.memo)
        machine.memo[index] = machine.top()
        if len(machine.memo) > MAX_OBJECTS:
            raise FlawError(f"the pickle remembers more than {MAX_OBJECTS} objects", limit=MAX_OBJECTS)

    return step


def _get(size: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        index = machine.number(size)
        if index not in machine.memo:
            raise FlawError("the pickle recalls what it never remembered")
        machine.stack.append(machine.memo[index])

    return step


def _build(machine: _Machine) -> None:
    """Attributes of a dict: PyTorch notes the versions of modules there, which nothing of ours needs."""
    state = machine.pop()
    target = machine.top()
    if not isinstance(target, OrderedDict) or not isinstance(state, dict):
        raise FlawError(f"the pickle sets the state of a {kind_of(target)}, which a file of tensors has no use for")


def _persistent(machine: _Machine) -> None:
    """What is kept outside of the pickle: a storage as a rule."""
    token = machine.pop()
    machine.add(storage_of(machine.storages, token) if machine.refer is None else machine.refer(token))


def _reduce(machine: _Machine) -> None:
    args = machine.pop()
    function = machine.pop()
    if not isinstance(function, Global) or not isinstance(args, tuple):
        raise FlawError(f"the pickle calls a {kind_of(function)}, which a file of tensors has no use for")
    machine.count(sum(len(arg) for arg in args if type(arg) is list))  # a dict of as many items
    machine.add(call(function, args))


_STEPS: Mapping[int, Callable[[_Machine], Any]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME: a hint for streams
    0x28: lambda m: m.marks.append(len(m.stack)),
    0x30: lambda m: m.pop(),
    0x31: lambda m: m.pop_mark(),
    0x4E: lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    0x4B: _integer(1),
    0x4D: _integer(2),
    0x4A: _signed,
    0x8A: _long(1),
    0x8B: _long(4),
    0x47: lambda m: m.add(struct.unpack(">d", m.take(8))[0]),
    0x8C: _text(1),
    0x58: _text(4),
    0x55: _text(1),  # of Python 2
    0x54: _text(4),
    0x8D: _text(8),
    0x5D: lambda m: m.add([]),
    0x7D: lambda m: m.add({}),
    0x29: lambda m: m.stack.append(()),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    0x74: lambda m: m.add(tuple(m.pop_mark())),
    0x61: lambda m: _append(m, [m.pop()]),
    0x65: lambda m: _append(m, m.pop_mark()),
    0x73: lambda m: _set_items(m, _pair(m)),
    0x75: lambda m: _set_items(m, m.pop_mark()),
    0x71: _put(1),
    0x72: _put(4),
    0x94: _put(0),
    0x68: _get(1),
    0x6A: _get(4),
    0x63: lambda m: _global(m, m.line(), m.line()),
    0x93: _stack_global,
    0x52: _reduce,
    0x62: _build,
    0x51: _persistent,
}
