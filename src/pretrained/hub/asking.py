"""Questions to a hub's API: asked again of a hub that is busy, and given up in time, whatever it sends meanwhile.

Work that is given to a hub takes as long as it takes: only the waiting for a busy one ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from .http_file import AGAIN, wait_of
from .trouble import chain_of, status_of, trouble

__all__ = ["ask", "ask_patiently", "within"]

DEADLINE = 25.0  # seconds for an answer, all tries together
TRIES = 3
PAUSE = 0.25  # seconds before the second try, and twice as long before each further one

PATIENT_TRIES = 6
PATIENCE = 120.0  # seconds that are waited before work that must not be lost, such as the end of an upload

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
            wait = _pause(error, attempt)
            if status_of(error) not in AGAIN or attempt == TRIES or time.monotonic() + wait > until:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def ask_patiently(work: Callable[[], T], statuses: Collection[int] = AGAIN) -> T:
    """What the work gives, however long it takes, once the hub has time for it.

    Args:
        work: what may be done twice.
        statuses: HTTP statuses after which it is done again; the waits are at most `PATIENCE` seconds all together.
    """
    waited = 0.0
    for attempt in range(1, PATIENT_TRIES + 1):
        try:
            return work()
        except trouble() as error:
            wait = _pause(error, attempt)
            waited += wait
            if status_of(error) not in statuses or attempt == PATIENT_TRIES or waited > PATIENCE:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _pause(error: BaseException, attempt: int) -> float:
    """Seconds to wait after an error: as long as the hub says, or longer each time."""
    return max(wait_of(_headers_of(error)), PAUSE * 2.0 ** (attempt - 1))


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
