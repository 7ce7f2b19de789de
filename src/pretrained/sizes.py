"""Sizes that a caller asks for, checked."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from .errors import InvalidOptionError

__all__ = ["check_positive", "rounded"]


def rounded(size: int, multiple: int | None) -> int:
    """`size`, rounded up to a multiple of `multiple` if there is one.

    Raises:
        InvalidOptionError: one of them is no positive integer.
    """
    check_positive("new_num_tokens", size)
    if multiple is None:
        return int(size)
    check_positive("pad_to_multiple_of", multiple)
    return -(-int(size) // int(multiple)) * int(multiple)


def check_positive(name: str, value: Any) -> None:
    """Raises InvalidOptionError unless the value is an integer above 0."""
    # numpy's integers are no int, and True is one.
    if not isinstance(value, Integral) or value is True or value <= 0:
        raise InvalidOptionError(f"{name} must be a positive integer, found {value!r:.80}", key=name)
