"""A file over HTTP, read in ranges, each checked to be of the file that was found."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .._types import Piece
from ..errors import CheckpointChangedError, HubError
from .connections import Answer, Connections, TransportError
from .ranges import Levels, fetch
from .urls import redacted

__all__ = ["AGAIN", "CutOffError", "HttpFile", "NoRangesError", "status_error", "wait_of"]

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
_DATE = re.compile(r"[A-Za-z0-9 ,:+\-]{10,64}")
_CODES = {
    "GatedRepo": "the repository is gated: ask for access on its page, and pass token=",
    "RepoNotFound": "no such repository, or no access to it: a private one needs token=",
}
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_EXPIRED = frozenset({400, 401, 403, 404, 410})  # what stores answer when a signature is too old


class NoRangesError(HubError):
    """The server gives whole files only."""


class CutOffError(HubError):
    """The server gives whole files only, and broke off in the middle of this one."""


class HttpFile:
    """A file at a URL; where that redirects to a signed one, it is found again when the signature has expired.

    Args:
        connections: carries the requests, and knows whose token goes where.
        locate: gives the URL to ask; called again after it stopped working.
        name: what messages call the file.
        size: bytes there are.
        digest: sha256 of its content, which what a hub says of each answer is compared with.
        is_whole: asks for the whole file at once, of a server without ranges.
    """

    def __init__(
        self,
        connections: Connections,
        locate: Callable[[], str],
        *,
        name: str,
        size: int,
        digest: str | None = None,
        is_whole: bool = False,
    ) -> None:
        self.name, self.size, self._digest = name, size, digest
        self._connections, self._locate = connections, locate
        self._is_whole = is_whole
        self._lock = threading.Lock()
        self._place: str | None = None  # where the first answer came from, or a signed URL
        self._condition: tuple[str, str] | None = None  # the header that holds the next answers to the same content
        self._seen: tuple[str, str] | None = None  # (origin, validator) of the first answer

    def __repr__(self) -> str:
        return f"HttpFile({self.name!r})"

    def fetch(self, pieces: Sequence[Piece], initializer: Callable[[], None] | None = None) -> None:
        """Reads all pieces; see ByteSource."""
        fetch(self, pieces, initializer=initializer, levels=self.levels)

    @property
    def levels(self) -> Levels:
        """Where the number of connections that did best is kept."""
        return self._connections

    def whole(self) -> HttpFile:
        """The same file for a server without ranges: one request for all of it."""
        return HttpFile(self._connections, self._locate, name=self.name, size=self.size, is_whole=True)

    def open(self, start: int, stop: int) -> Answer:
        """The answer with the bytes from `start` to `stop`, checked to be those.

        Raises:
            TransportError: another try may help.
            NoRangesError: it gives whole files only. CutOffError: the same, in the middle. HubError: it refuses.
            CheckpointChangedError: the file is another now.
        """
        if self._is_whole and start:
            raise CutOffError(f"{self.name} can only be had as a whole, and was cut off", path=self.name)
        answer = None
        for place, condition in self._places():
            headers = {} if self._is_whole else {"Range": f"bytes={start}-{stop - 1}"}
            if condition is not None:
                headers[condition[0]] = condition[1]
            answer = self._connections.open("GET", place, headers)
            if answer.status not in _EXPIRED:
                break
            answer.close()
        assert answer is not None
        if answer.status not in (200, 206):
            answer.close()
            raise self._refusal(answer, start)
        try:
            self._check(answer, start, stop)
        except BaseException:
            answer.close()
            raise
        return answer

    def _places(self) -> Iterator[tuple[str, tuple[str, str] | None]]:
        """(URL, header that holds it to the same content): the one that worked last, then one that is found anew."""
        with self._lock:
            place, condition = self._place, self._condition
        if place is not None:
            yield place, condition
            with self._lock:
                if self._place == place:  # another thread may have found the new one already
                    self._place = self._condition = None
        yield self._locate(), None

    def _check(self, answer: Answer, start: int, stop: int) -> None:
        if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise HubError(f"{self.name}: the server sends it as {coding!r:.40}, which no range is of", path=self.name)
        if self._is_whole:
            length = answer.headers.get("Content-Length")
            if answer.status != 200:
                raise HubError(f"{self.name}: a part was sent, where the whole was asked for", path=self.name)
            total = int(length) if length and length.isdecimal() else stop
        else:
            total = self._check_range(answer, start, stop)
        if total != self.size:
            raise self._changed(f"is {total} bytes long and was {self.size}")
        said, known = answer.linked, self._digest
        if said and known and said != known and _SHA256.fullmatch(said) and _SHA256.fullmatch(known):
            raise self._changed(f"has the checksum {said[:16]}… and had {known[:16]}…")
        self._note(answer)

    def _check_range(self, answer: Answer, start: int, stop: int) -> int:
        """The length of the file, once it is certain that these are the bytes that were asked for."""
        if answer.status == 200:
            raise NoRangesError(
                f"{self.name}: {redacted(answer.url)} answers a request for a range with the whole file, so it cannot "
                "be streamed. Leave out stream=True to download it",
                path=self.name,
                status=200,
                key="stream",
            )
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise HubError(f"{self.name}: the server sent another range than it was asked for", path=self.name)
        if int(match[2]) != stop - 1:
            raise self._changed(f"ends at byte {int(match[2]) + 1}, before byte {stop}")
        return self.size if match[3] == "*" else int(match[3])

    def _note(self, answer: Answer) -> None:
        """Remembers where the bytes came from and what they are called there; another name is another file."""
        condition = _condition(answer.headers)
        with self._lock:
            if condition is not None:
                here = ("/".join(redacted(answer.url).split("/")[:3]), condition[1])
                self._seen = self._seen or here
                if self._seen[0] == here[0] and self._seen[1] != here[1]:
                    raise self._changed("has another ETag")
            if self._place is None:  # of a signed URL too: it is good for some time
                self._place = answer.url
            if self._place == answer.url:
                self._condition = condition

    def _changed(self, how: str) -> CheckpointChangedError:
        return CheckpointChangedError(f"{self.name} {how}: it was replaced; load it again", path=self.name)

    def _refusal(self, answer: Answer, start: int) -> Exception:
        status = answer.status
        if status == 412:
            return self._changed("no longer has the ETag that it had")
        if status == 416:
            return self._changed(f"has no byte {start} any more")
        if status in AGAIN:
            return TransportError(f"the server answers {status}", wait_of(answer.headers), status=status)
        return status_error(self.name, answer)


def _condition(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The header that makes a server refuse unless the file is still this one; None where it has no way to say."""
    if _STRONG.fullmatch(etag := headers.get("ETag", "")):
        return "If-Match", etag
    if _DATE.fullmatch(date := headers.get("Last-Modified", "")):
        return "If-Unmodified-Since", date
    return None


def status_error(name: str, answer: Answer) -> HubError:
    """The error for an answer that is none."""
    code = answer.headers.get("X-Error-Code", "")
    said = {401: "not authorised", 403: "forbidden", 404: "not there", 410: "gone", 429: "too many requests"}
    words = _CODES.get(code) or said.get(answer.status, "server error" if answer.status >= 500 else "refused")
    return HubError(
        f"cannot read {name}: {redacted(answer.url)} answers {answer.status} ({words})", path=name, status=answer.status
    )


def wait_of(headers: Mapping[str, str]) -> float:
    """Seconds to wait, as Retry-After or a RateLimit header says."""
    text = headers.get("Retry-After", "")
    if text.strip().isdecimal():
        return float(text)
    if match := re.search(r"\bt=(\d{1,6})", headers.get("RateLimit", "")):
        return float(match[1])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds()) if until.tzinfo else 0.0
