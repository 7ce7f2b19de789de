"""JSON that somebody else wrote, parsed within bounds: size, depth, number of values, no duplicate keys, no NaN."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from math import isfinite
from typing import Any

from ..errors import ConfigError, PretrainedError, ResourceLimitError

__all__ = ["MAX_DEPTH", "MAX_VALUES", "parse_json", "place"]

MAX_DEPTH = 64
MAX_VALUES = 1_000_000  # every value costs some 100 bytes as an object, whatever it takes in the file
MAX_DIGITS = 4300  # the interpreter's own default bound

_MAX_PLACE = 600
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_ANY_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _RefusedError(Exception):
    """Something that JSON allows and we do not; `key` is the object key concerned."""

    def __init__(self, reason: str, key: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


def place(path: object) -> str:
    """`path` for the start of a message; the end of it when it is so long that the complaint would be cut off."""
    text = str(path)
    return text if len(text) <= _MAX_PLACE else "…" + text[-_MAX_PLACE:]


def parse_json(
    text: str | bytes,
    *,
    path: object,
    error: type[PretrainedError] = ConfigError,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
) -> dict[str, Any]:
    """The object that `text` describes.

    Args:
        text: UTF-8 bytes (a byte order mark is allowed) or text already decoded.
        path: Where it comes from, for messages.
        error: Class of what is raised for anything malformed.
        max_depth: Levels of nested objects and arrays.
        max_values: Upper bound for the number of values, counted by their separators.

    Raises:
        PretrainedError: As `error`; names the place, and line and column where known.
        ResourceLimitError: More than `max_values` values.
    """
    decoded = (_decode(text, path, error) if isinstance(text, bytes) else text).removeprefix("\ufeff")
    if decoded.count("[") + decoded.count("{") + decoded.count(",") > max_values:
        reason = f"holds more than {max_values} values"
        raise ResourceLimitError(f"{place(path)}: {reason}", path=path, reason=reason, limit=max_values)
    try:
        _check_depth(decoded, max_depth)
        value = json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_refuse_constant,
            parse_int=_int_parser(),
        )
        if not isinstance(value, dict):
            raise _RefusedError(f"must hold a JSON object, not {_kind(value)}")
        _check_surrogates(decoded, value)
    except json.JSONDecodeError as cause:
        where = f"line {cause.lineno} column {cause.colno}"
        reason = f"not valid JSON at {where}: {cause.msg}" if decoded.strip() else "is empty"
        raise error(f"{place(path)}: {reason}", path=path, reason=reason) from None
    except _RefusedError as cause:
        raise error(f"{place(path)}: {cause.reason}", path=path, key=cause.key, reason=cause.reason) from None
    except RecursionError:
        reason = f"nested deeper than {max_depth} levels"
        raise error(f"{place(path)}: {reason}", path=path, reason=reason) from None
    except ValueError:  # the interpreter's own bound on digits; it says so at too great a length
        reason = f"holds a number of more than {MAX_DIGITS} digits"
        raise error(f"{place(path)}: {reason}", path=path, reason=reason) from None
    return value


def _decode(raw: bytes, path: object, error: type[PretrainedError]) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        reason = "is UTF-16 text; JSON is UTF-8"
    elif b"\0" in raw:
        reason = f"holds a NUL byte at offset {raw.index(0)}: UTF-16 or UTF-32 text, or a damaged file"
    else:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as cause:
            reason = f"is not UTF-8 at byte {cause.start}"
    raise error(f"{place(path)}: {reason}", path=path, reason=reason)


def _check_depth(text: str, max_depth: int) -> None:
    """Refuses text that could exhaust the stack, before any of it is parsed."""
    if text.count("[") + text.count("{") > max_depth and _depth(text) > max_depth:
        raise _RefusedError(f"nested deeper than {max_depth} levels")


def _depth(text: str) -> int:
    raw = text.encode("utf-8", "replace")
    if b"\\" in raw:  # every quote that is left is then the beginning or the end of a string
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(raw.translate(None, _NO_STRUCTURE).split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside)), default=0)


def _check_surrogates(text: str, value: object) -> None:
    """Refuses half a surrogate pair in any string: no UTF-8 file, name or message could ever hold it again."""
    if _ANY_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise _RefusedError("holds half of a surrogate pair, which is no text") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _RefusedError(f"the key {key[:200]!r} appears twice in one object", key)
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise _RefusedError(f"the number {text[:40]} is beyond what a float can hold")
    return value


def _refuse_constant(text: str) -> float:
    raise _RefusedError(f"{text} is not JSON")


def _int_parser() -> Callable[[str], int] | None:
    # A hook per integer is slow, and needed only where the interpreter's own bound is off or does not exist (3.10.0-6).
    bound = getattr(sys, "get_int_max_str_digits", lambda: 0)()
    return None if 0 < bound <= MAX_DIGITS else _bounded_int


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _RefusedError(f"holds a number of more than {MAX_DIGITS} digits")
    return int(text)


def _kind(value: object) -> str:
    names = {
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
        int: "a number",
        float: "a number",
    }
    return names[type(value)]
