"""Questions to a hub's API: asked again of a hub that is busy, and given up in time, whatever it sends meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .http_file import AGAIN, wait_of
from .trouble import chain_of, status_of, trouble

__all__ = ["ask", "within"]

DEADLINE = 25.0  # seconds for an answer, all tries together
TRIES = 3
PAUSE = 0.25  # seconds before the second try, and twice as long before each further one

_STEP = 0.1  # seconds

T = TypeVar("T")


def ask(question: Callable[[], T]) -> T:
    """What the question gives, once the hub has time for it.

    Raises:
        TimeoutError: there is no whole answer after `DEADLINE` seconds. What the question raises, too.
    """
    until = time.monotonic() + DEADLINE
    for attempt in range(1, TRIES + 1):
        try:
            return within(until - time.monotonic(), question)
        except trouble() as error:
            wait = max(wait_of(_headers_of(error)), PAUSE * 2 ** (attempt - 1))
            if status_of(error) not in AGAIN or attempt == TRIES or time.monotonic() + wait > until:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def within(seconds: float, question: Callable[[], T]) -> T:
    """What the question gives, if it does so in time.

    huggingface_hub limits the silence between two bytes and not their number: a hub that drips would be listened to
    for ever. So it is asked in a thread, which is left to itself when the time is over.

    Raises:
        TimeoutError: it takes longer. What the question raises, too.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(question())
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that asked
            failed.append(error)

    thread = threading.Thread(target=work, name="pretrained-ask", daemon=True)
    thread.start()
    # By steps, so that a process which was stopped for a while does not take that for the hub's silence.
    for _ in range(max(1, round(seconds / _STEP))):
        thread.join(_STEP)
        if not thread.is_alive():
            break
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError("no whole answer in time")
    return found[0]


def _headers_of(error: BaseException) -> Any:
    """The headers of the answer that an error is about."""
    for part in chain_of(error):
        headers = getattr(getattr(part, "response", None), "headers", None)
        if headers is not None:
            return headers
    return {}
