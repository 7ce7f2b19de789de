"""The processes of a run of JAX, as a save needs them."""

from __future__ import annotations

import jax
import numpy as np

from ..checkpoint.group import MAX_MESSAGE
from ..errors import SaveError

__all__ = ["Processes"]

_LENGTH = 2  # bytes of a message that say how long it is


class Processes:
    """All processes that `jax.distributed.initialize` brought together."""

    @property
    def index(self) -> int:
        """The number of this process, from 0."""
        return jax.process_index()

    @property
    def size(self) -> int:
        """How many there are."""
        return jax.process_count()

    def gather(self, message: bytes) -> list[bytes]:
        """What each process says, by a collective of their devices.

        Raises:
            SaveError: a process is gone.
        """
        from jax.experimental import multihost_utils

        assert len(message) <= MAX_MESSAGE
        told = np.zeros(_LENGTH + MAX_MESSAGE, np.uint8)
        told[: _LENGTH + len(message)] = np.frombuffer(len(message).to_bytes(_LENGTH, "little") + message, np.uint8)
        try:
            rows = multihost_utils.process_allgather(told).reshape(self.size, -1)
        except jax.errors.JaxRuntimeError as error:
            reason = f"another of the {self.size} processes is gone: {error}"
            raise SaveError(f"cannot save together: {reason}", reason=reason) from error
        lengths = [int.from_bytes(row[:_LENGTH].tobytes(), "little") for row in rows]
        return [row[_LENGTH : _LENGTH + length].tobytes() for row, length in zip(rows, lengths, strict=True)]
