"""Many ranges of a file at once: few requests for what lies together, as many connections as make it faster.

A server gives one connection so much and no more, so several are used, and more of them as long as that helps. What is
wanted is read straight into the memory that it is for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from .._types import Piece
from ..errors import HubError
from .connections import TransportError

__all__ = ["MAX_REQUEST", "Levels", "Opener", "Stream", "fetch"]

MIN_REQUEST, MAX_REQUEST = 8 << 20, 16 << 20  # bytes; smaller ones are more round trips, larger ones end unevenly
MAX_GAP = 4096  # bytes that nobody wants, read rather than asked around
SLICE = 1 << 20  # bytes read in one call, between which others may look in
FIRST_LEVEL, MAX_LEVEL = 8, 32  # connections
TICK = 0.1  # seconds between looks at the throughput
WORTH_IT = 1.2  # by how much twice the connections have to be faster, for more of them
STALL = 60.0  # seconds that one slice may take; a server that only drips is not waited for
TRIES = 5  # of one request without a byte
PAUSE = 0.25  # seconds before the second try, and twice as long before each further one
MAX_WAIT = 30.0  # seconds that a server which asks to be left alone is left alone at most
MAX_ASKED = 300.0  # seconds; who asks for more is not asked again. Hubs count requests in windows of that length


class Stream(Protocol):
    """The bytes of one range, on their way."""

    def readinto(self, target: memoryview) -> int:
        """Bytes read into `target`; 0 at the end. Raises TransportError when they stop coming."""

    def close(self) -> None:
        """Ends it, at its end or before."""

    def abort(self) -> None:
        """Breaks it off from another thread."""


class Opener(Protocol):
    """A file of which ranges can be had."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def open(self, start: int, stop: int) -> Stream:
        """The bytes from `start` to `stop`. Raises TransportError where another try may help."""


class Levels(Protocol):
    """Where the number of connections that did best is kept for the next time."""

    level: int


class _Wanted:
    """A piece, its memory once there is some, and how much of it is still to come."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self._memory: memoryview | None = None
        self._left = piece.nbytes
        self._lock = threading.Lock()

    def memory(self) -> memoryview:
        with self._lock:
            if self._memory is None:
                self._memory = self.piece.target()
            return self._memory

    def add(self, count: int) -> None:
        """Counts bytes that were read; the last of them hands the piece over."""
        with self._lock:
            self._left -= count
            there, is_full = self.piece.nbytes - self._left, self._left == 0
        if self.piece.progress is not None:
            self.piece.progress(there)
        if is_full:
            memory, self._memory = self._memory, None
            if self.piece.done is not None and memory is not None:
                self.piece.done(memory)


class _Part(NamedTuple):
    """What of a piece one request brings: the bytes from `start` to `stop`, counted in the file."""

    wanted: _Wanted
    start: int
    stop: int


def fetch(
    opener: Opener,
    pieces: Sequence[Piece],
    *,
    initializer: Callable[[], None] | None = None,
    levels: Levels | None = None,
    count: Callable[[int], None] | None = None,
    in_one: bool = False,
) -> None:
    """Fills all pieces.

    Args:
        opener: the file.
        pieces: what is wanted of it.
        initializer: called once in each thread.
        levels: keeps the number of connections that did best.
        count: called with the number of bytes of each slice.
        in_one: asks once for all of it.

    Raises:
        HubError: the bytes do not come, however often they are asked for. What `open` and the pieces raise, too.
    """
    requests = deque(_requests(pieces, in_one))
    if requests:
        _Transfer(opener, requests, initializer, count).run(levels)


def _requests(pieces: Sequence[Piece], in_one: bool) -> Iterator[list[_Part]]:
    """The pieces in the order of the file, together where they lie together, apart where they are long."""
    ordered = sorted((piece for piece in pieces if piece.nbytes), key=lambda piece: piece.offset)
    total = sum(piece.nbytes for piece in ordered)
    limit = total if in_one else min(max(total // (2 * MAX_LEVEL), MIN_REQUEST), MAX_REQUEST)
    parts: list[_Part] = []
    room = limit
    for piece in ordered:
        wanted, start, end = _Wanted(piece), piece.offset, piece.offset + piece.nbytes
        is_split = room < piece.nbytes <= limit  # what one request can bring, one request brings
        if parts and not in_one and (start - parts[-1].stop > MAX_GAP or is_split):
            yield parts
            parts, room = [], limit
        while start < end:
            stop = min(end, start + room)
            parts.append(_Part(wanted, start, stop))
            start, room = stop, room - (stop - start)
            if room == 0:
                yield parts
                parts, room = [], limit
    if parts:
        yield parts


class _Transfer:
    """Threads that work off requests, and the one that watches them."""

    def __init__(
        self,
        opener: Opener,
        requests: deque[list[_Part]],
        initializer: Callable[[], None] | None,
        count: Callable[[int], None] | None,
    ) -> None:
        self._opener, self._requests, self._initializer, self._count = opener, requests, initializer, count
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._num_working = 0
        self._error: BaseException | None = None
        self._is_over = threading.Event()
        self._streams: dict[int, tuple[Stream, float]] = {}  # thread → what it reads, and since when the present slice
        self._num_bytes = 0

    def run(self, levels: Levels | None) -> None:
        """Returns when everything is there; raises the first error."""
        level = (levels.level if levels is not None else 0) or FIRST_LEVEL
        try:
            self._start(level)
            level = self._watch(level)
        finally:
            self._is_over.set()
            if self._num_working:
                self._abort()
            for thread in self._threads:
                thread.join()
        if levels is not None:
            levels.level = level
        if self._error is not None:
            raise self._error

    def _watch(self, level: int) -> int:
        """Waits for the end; meanwhile finds out how many connections are worth having, and which have stalled."""
        last, since, best = 0, time.monotonic(), 0.0
        while True:
            with self._changed:
                is_done = self._changed.wait_for(lambda: not self._num_working or self._error is not None, TICK)
            now = time.monotonic()
            if is_done:
                return level
            self._abort(before=now - STALL)
            rate, busy = (self._num_bytes - last) / (now - since), self._num_bytes > last
            last, since = self._num_bytes, now
            if not busy or not self._requests or level >= MAX_LEVEL:
                continue
            if rate > WORTH_IT * best:
                best, level = rate, min(MAX_LEVEL, 2 * level)
                self._start(level)
            best = max(best, rate)

    def _start(self, level: int) -> None:
        for _ in range(min(level, len(self._requests) + self._num_working) - len(self._threads)):
            thread = threading.Thread(target=self._work, name="pretrained-fetch", daemon=True)
            with self._changed:
                self._num_working += 1
            try:
                thread.start()
            except RuntimeError:
                with self._changed:
                    self._num_working -= 1
                if not self._threads:
                    raise
                return  # no more threads; those that there are do it
            self._threads.append(thread)

    def _abort(self, before: float | None = None) -> None:
        for stream, since in list(self._streams.values()):
            if before is None or since < before:
                stream.abort()

    def _work(self) -> None:
        try:
            if self._initializer is not None:
                self._initializer()
            while not self._is_over.is_set():
                try:
                    parts = self._requests.popleft()
                except IndexError:
                    return
                self._read(parts)
        except BaseException as error:  # noqa: BLE001  # raised again by `run`, in the thread that asked
            with self._changed:
                self._error = self._error or error
                self._is_over.set()
        finally:
            with self._changed:
                self._num_working -= 1
                self._changed.notify_all()

    def _read(self, parts: list[_Part]) -> None:
        """One request; what is missing of it after a cut is asked for again."""
        position, tries = parts[0].start, 0
        while position < parts[-1].stop:
            try:
                for count in self._read_on(parts, position):
                    position, tries = position + count, 0
                    self._num_bytes += count
                    if self._is_over.is_set():
                        return
            except TransportError as error:
                tries += 1
                if self._is_over.is_set():
                    return
                if error.wait > MAX_ASKED or tries >= (2 if error.is_unreachable else TRIES):
                    name, asks = self._opener.name, f", and asks to wait for {error.wait:.0f} s" if error.wait else ""
                    raise HubError(
                        f"cannot read {name}: {error.reason}{asks}", path=name, status=error.status
                    ) from None
                self._is_over.wait(min(MAX_WAIT, max(error.wait, PAUSE * 2 ** (tries - 1))))

    def _read_on(self, parts: list[_Part], position: int) -> Iterator[int]:
        """Reads from `position` to the end of the request; yields the number of bytes after each slice."""
        key = threading.get_ident()
        stream = self._opener.open(position, parts[-1].stop)
        try:
            for part in parts:
                if part.stop <= position:
                    continue
                yield from self._skip(stream, key, part.start - position)
                position = max(position, part.start)
                memory = part.wanted.memory()[
                    position - part.wanted.piece.offset : part.stop - part.wanted.piece.offset
                ]
                done = 0
                while done < len(memory):
                    count = self._next(stream, key, memory[done : done + SLICE])
                    done += count
                    part.wanted.add(count)
                    if self._count is not None:
                        self._count(count)
                    yield count
                position = part.stop
        finally:
            self._streams.pop(key, None)
            stream.close()

    def _skip(self, stream: Stream, key: int, gap: int) -> Iterator[int]:
        if gap > 0:
            rest = memoryview(bytearray(gap))
            while len(rest):
                count = self._next(stream, key, rest)
                rest = rest[count:]
                yield count

    def _next(self, stream: Stream, key: int, target: memoryview) -> int:
        self._streams[key] = (stream, time.monotonic())
        count = stream.readinto(target)
        if count == 0:
            raise TransportError("the connection was cut")
        return count
