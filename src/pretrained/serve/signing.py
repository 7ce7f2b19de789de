"""Addresses that carry leave to do one thing, so that whoever uploads there need not show a token again."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass

from .refusals import RefusedError

__all__ = ["Leave", "sign", "unsign"]

MAX_LEAVE = 2048  # characters


@dataclass(frozen=True)
class Leave:
    """What somebody may do until when.

    Attributes:
        what: "lfs" or "xet".
        user: who.
        kind: of the repository.
        repo_id: the repository.
        until: seconds since 1970.
        oid: sha256 of the content, for one content.
        size: its bytes.
        chunk: bytes of one part of it; 0 for all at once.
    """

    what: str
    user: str
    kind: str
    repo_id: str
    until: float
    oid: str = ""
    size: int = 0
    chunk: int = 0


def sign(secret: bytes, leave: Leave) -> str:
    """The leave as a word of an address."""
    raw = json.dumps(asdict(leave), separators=(",", ":")).encode()
    return f"{_word(raw)}.{_word(_mac(secret, raw))}"


def unsign(secret: bytes, word: str, what: str) -> Leave:
    """The leave that a word is. Raises RefusedError for one that was not signed here, or is over."""
    body, _, mac = word.partition(".")
    try:
        raw = _bytes(body[:MAX_LEAVE])
        is_ours = hmac.compare_digest(_mac(secret, raw), _bytes(mac[:MAX_LEAVE]))
    except (binascii.Error, ValueError):
        is_ours = False
    if not is_ours:
        raise RefusedError(401, "This is no leave of this server's")
    leave = Leave(**json.loads(raw))
    if leave.what != what:
        raise RefusedError(403, "This leave is for something else")
    if leave.until < time.time():
        raise RefusedError(401, "This leave is over; ask for another one")
    return leave


def _mac(secret: bytes, raw: bytes) -> bytes:
    return hmac.new(secret, raw, hashlib.sha256).digest()


def _word(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(word: str) -> bytes:
    return base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
