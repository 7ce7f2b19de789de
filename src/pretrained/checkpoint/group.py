"""Several processes that save one checkpoint: what one of them cannot do, none of them has done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import SaveError, printable

__all__ = ["MAX_MESSAGE", "Group", "agree"]

MAX_MESSAGE = 1000  # bytes

_FINE, _FAILED = b"+", b"-"


class Group(Protocol):
    """The processes of one run, which all call the same functions in the same order."""

    @property
    def index(self) -> int:
        """The number of this process, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, message: bytes) -> list[bytes]:
        """What each process says, at most MAX_MESSAGE bytes; returns when all have said something.

        Raises:
            SaveError: one of them is gone.
        """


def agree(group: Group, work: Callable[[], str | None]) -> list[str]:
    """Does this process's part of something, waits for the others, and returns what each of them has to say.

    Raises:
        SaveError: another process failed; its message. Whatever `work` raises, once the others know.
    """
    try:
        said = work() or ""
    except BaseException as error:
        reason = str(error) or type(error).__name__
        group.gather(_FAILED + printable(reason, MAX_MESSAGE - 1).encode("utf-8"))
        raise
    answers = group.gather(_FINE + said.encode("utf-8"))
    for index, answer in enumerate(answers):
        if answer[:1] == _FAILED:
            reason = answer[1:].decode("utf-8", "replace")
            raise SaveError(f"process {index} of {group.size}: {reason}", reason=reason, process=index)
    return [answer[1:].decode("utf-8") for answer in answers]
