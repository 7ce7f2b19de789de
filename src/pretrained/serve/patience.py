"""Connections on which no request comes are ended, so that clients who say nothing keep nobody out for long."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PatientProtocol"]

PATIENCE = 20.0  # seconds for the head of a request, which uvicorn itself awaits for ever


class PatientProtocol(H11Protocol):
    """uvicorn's protocol for one connection, which looks now and then whether the same request is still awaited."""

    _timer: asyncio.TimerHandle | None = None
    _awaited: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._awaited = _After(self.cycle)
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self._awaited is not None and self._awaited.cycle is self.cycle:
            self.transport.close()
            return
        self._awaited = _After(self.cycle) if is_waiting else None
        self._timer = self.loop.call_later(PATIENCE, self._look)


class _After:
    """The request that comes after another one, or after none."""

    def __init__(self, cycle: Any) -> None:
        self.cycle = cycle
