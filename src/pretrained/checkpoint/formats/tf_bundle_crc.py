"""CRC-32C, the checksum of TensorFlow's checkpoints, in numpy: many lanes at once, joined at the end.

A CRC is linear: the lanes take the words in turn, each skips ahead over the words of all others, and what they come to
is moved to its place and added up.

Source: the polynomial of RFC 3720, appendix B.4; the mask is LevelDB's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["crc32c", "masked"]

_POLYNOMIAL = 0x82F63B78  # bits reversed
_FULL = 0xFFFFFFFF
_FEW, _MANY = 256, 16384  # lanes, which take a word of 4 bytes each in turn
_SMALL, _LARGE = 2048, 1 << 20  # bytes from which so many lanes are worth their while


def masked(crc: int) -> int:
    """A checksum as it is stored, so that the checksum of what holds it is not always the same."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _FULL


def crc32c(content: Any) -> int:
    """The CRC-32C of bytes, or of a flat array of uint8."""
    import numpy as np

    flat = content if isinstance(content, np.ndarray) else np.frombuffer(content, np.uint8)
    return _remainder(flat, _FULL) ^ _FULL


def _remainder(flat: Any, state: int) -> int:
    """The state after all bytes, from the state before them."""
    if flat.size >= _SMALL:
        return _in_lanes(flat, state, _MANY if flat.size >= _LARGE else _FEW)
    table = _byte_table()
    for byte in flat.tobytes():
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


def _in_lanes(flat: Any, begin: int, lanes: int) -> int:
    import numpy as np

    width = 4 * lanes
    head = flat.size % width
    if head < 4:
        head += width
    # Zeros in front change nothing as long as the state is zero; what it begins with is added to the first 4 bytes.
    first = np.zeros(2 * width, np.uint8)
    first[first.size - head :] = flat[:head]
    first[first.size - head : first.size - head + 4] ^= np.frombuffer(begin.to_bytes(4, "little"), np.uint8)
    low, high = _tables(width)
    state = np.zeros(lanes, "<u4")
    for rows in (first, flat[head:]):
        for row in rows.view("<u4").reshape(-1, lanes):
            parts = state.view("<u2")
            state = low[parts[0::2]]
            state ^= high[parts[1::2]]
            state ^= row
    # What the lanes have come to are the words of a row that is still to be taken in.
    return _remainder(state.view(np.uint8), 0)


@cache
def _byte_table() -> list[int]:
    """What each byte leaves behind once it is shifted out."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


@cache
def _tables(width: int) -> tuple[Any, Any]:
    """What `width` zero bytes make of each low and each high half of a state."""
    columns = _skip(width)
    return _table(columns[:16]), _table(columns[16:])


def _skip(count: int) -> Any:
    """What `count` zero bytes make of each single bit of a state: the columns of a matrix, `(32,)`."""
    import numpy as np

    result = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    power = np.array(_byte_table(), np.uint32)[result & 0xFF] ^ (result >> np.uint32(8))
    while count:
        if count & 1:
            result = _apply(power, result)
        power = _apply(power, power)
        count >>= 1
    return result


def _apply(columns: Any, states: Any) -> Any:
    """The product of a matrix and each state."""
    import numpy as np

    result = np.zeros_like(states)
    for bit in range(32):
        result ^= columns[bit] * ((states >> np.uint32(bit)) & np.uint32(1))
    return result


def _table(columns: Any) -> Any:
    """The product of the 16 columns and each number of 16 bits."""
    import numpy as np

    table = np.zeros(1 << 16, "<u4")
    for bit in range(16):
        table[1 << bit : 2 << bit] = table[: 1 << bit] ^ columns[bit]
    return table
