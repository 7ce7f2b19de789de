"""HTTP connections of our own: kept alive, several at once, read straight into memory that is already there.

huggingface_hub speaks to a hub's API. This is for bytes: nothing is buffered or copied on the way. What a redirect
leads to gets no token, https never becomes http, and no message shows a query.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import HubError, InvalidOptionError
from .urls import Origin, origin_of, redacted

__all__ = ["Answer", "Connections", "TransportError"]

CONNECT_TIMEOUT = 5.0  # seconds; a host that is there answers in one
READ_TIMEOUT = 15.0  # seconds without a byte
HEAD_TIMEOUT = 15.0  # seconds for status and headers, however slowly they drip
MAX_HOPS = 6
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_DRAIN = 1 << 16  # bytes of an answer that are read to keep its connection
_AGENT = "pretrained"


class TransportError(Exception):
    """A request that may succeed if it is tried again; `wait` is how long the server asks to leave it, in seconds."""

    def __init__(
        self, reason: str, wait: float = 0.0, *, is_unreachable: bool = False, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.is_unreachable, self.status = reason, wait, is_unreachable, status


class Answer:
    """A response whose body is read by `readinto`; close it, or its connection is lost.

    Attributes:
        status, headers: as they came.
        url: where it came from in the end.
        linked: the digest of the content, as a hub says it in the answer or on the way to a store; None if none does.
        was_redirected: whether that is another place than was asked.
    """

    def __init__(self, pool: Connections, origin: Origin, connection: http.client.HTTPConnection, url: str) -> None:
        self._pool, self._origin, self._connection = pool, origin, connection
        response = connection.getresponse()
        assert isinstance(response, _Response)
        self._response = response
        self.status: int = self._response.status
        self.headers: Mapping[str, str] = self._response.headers  # type: ignore[assignment]  # a Message is one
        self.url = url
        self.linked: str | None = None
        self.was_redirected = False

    def readinto(self, target: memoryview) -> int:
        """Bytes that were read into `target`; 0 at the end.

        Raises:
            TransportError: the connection broke.
        """
        try:
            return self._response.readinto(target)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last two are what reading gives after `abort` in another thread.
            raise TransportError(_words(error)) from None

    def close(self) -> None:
        """Gives the connection back if the body is at its end or nearly so; drops it otherwise."""
        left = self._response.length
        try:
            if left and left <= _MAX_DRAIN:
                self._response.read()
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
        if self._response.isclosed():
            self._pool.give(self._origin, self._connection)
        else:
            self._response.close()
            self._connection.close()

    def abort(self) -> None:
        """Breaks the connection off, from whatever thread; a read that waits ends with an error."""
        # Not the connection's socket: that is forgotten as soon as the server says that it will close it.
        with contextlib.suppress(OSError):  # it is down already
            self._response.raw.sock.shutdown(socket.SHUT_RDWR)


class Connections:
    """A pool of connections by origin, and what goes along to each.

    Args:
        credentials: origin → value of its Authorization header.
        proxies: scheme → URL of a proxy; those of the environment by default.
    """

    def __init__(
        self, credentials: Mapping[Origin, str] | None = None, proxies: Mapping[str, str] | None = None
    ) -> None:
        self._credentials = dict(credentials or {})
        self._proxies = dict(proxies) if proxies is not None else None
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self.level = 0  # how many at once did best so far; 0 while that is not known

    def __repr__(self) -> str:
        return f"Connections({len(self._credentials)} credentials)"

    def open(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to a request, redirects followed; whatever its status.

        Raises:
            TransportError: it broke off on the way.
            HubError: a redirect leads where none may, or the certificate is not the host's.
        """
        place, linked = url, None
        for _ in range(MAX_HOPS):
            answer = self._send(method, place, headers or {})
            linked = linked or _linked(answer.headers)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                answer.was_redirected, answer.linked = place != url, linked
                return answer
            answer.close()
            place = _target(url, place, location)
        raise HubError(f"{redacted(url)} redirects {MAX_HOPS} times and more", path=redacted(url))

    def give(self, origin: Origin, connection: http.client.HTTPConnection) -> None:
        """Keeps a connection for the next request."""
        with self._lock:
            self._idle.setdefault(origin, []).append(connection)

    def close(self) -> None:
        """Closes what is idle."""
        with self._lock:
            idle = [connection for held in self._idle.values() for connection in held]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _send(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        origin, parts = origin_of(url), urlsplit(url)
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        if (credential := self._credentials.get(origin) or _userinfo(url)) is not None:
            sent["Authorization"] = credential
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
        proxy = self._proxy(origin)
        if proxy is not None and origin.scheme == "http":
            target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
            if (credential := _userinfo(proxy)) is not None:
                sent["Proxy-Authorization"] = credential
        while True:
            connection, is_fresh = self._take(origin, proxy)
            try:
                connection.request(method, target, headers=sent)
                return Answer(self, origin, connection, url)
            except ssl.SSLCertVerificationError as error:
                connection.close()
                reason = error.verify_message or "certificate verify failed"
                raise HubError(f"{origin.host} cannot be trusted: {reason}", path=redacted(url)) from None
            except (OSError, http.client.HTTPException) as error:
                # Nobody is there, or nobody who answers in time.
                is_unreachable = connection.sock is None or isinstance(error, TimeoutError)
                connection.close()
                if is_fresh:  # one that was kept may have been closed by the server meanwhile
                    raise TransportError(_words(error), is_unreachable=is_unreachable) from None
            except ValueError:  # a header or a path that no request can hold; its text would show it
                connection.close()
                raise HubError(f"no request can be made for {redacted(url)!r:.300}", path=redacted(url)) from None

    def _take(self, origin: Origin, proxy: str | None) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            held = self._idle.get(origin)
            if held:
                return held.pop(), False
        host, port = (origin.host, origin.port) if proxy is None else origin_of(proxy)[1:]
        if origin.scheme == "http":
            return _Plain(host, port, timeout=CONNECT_TIMEOUT), True
        connection = _Encrypted(host, port, timeout=CONNECT_TIMEOUT, context=_context())
        if proxy is not None:
            known = _userinfo(proxy)
            connection.set_tunnel(origin.host, origin.port, {"Proxy-Authorization": known} if known else None)
        return connection, True

    def _proxy(self, origin: Origin) -> str | None:
        if self._proxies is None and proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        proxies = getproxies() if self._proxies is None else self._proxies
        return proxies.get(origin.scheme) or proxies.get("all")


class _Raw(io.RawIOBase):
    """What a socket brings. As long as `until` is set, all of it has to be there by then."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.until = sock, time.monotonic() + HEAD_TIMEOUT
        self._held = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if self.until:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(min(left, READ_TIMEOUT))
        return self.sock.recv_into(target)

    def close(self) -> None:
        self._held.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose status and headers come in time: a server may neither drip them nor say 100 for ever."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self.raw = _Raw(sock)
        # All that the base class wants of the socket is a file.
        only: Any = SimpleNamespace(makefile=lambda mode: io.BufferedReader(self.raw))
        super().__init__(only, *args, **kwargs)

    def begin(self) -> None:
        super().begin()
        self.raw.until = 0.0
        self.raw.sock.settimeout(READ_TIMEOUT)


class _Plain(http.client.HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


class _Encrypted(http.client.HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


def _target(url: str, place: str, location: str) -> str:
    """Where a redirect of `place` leads. Raises HubError where none may lead."""
    try:
        target = urljoin(place, location)
        scheme = urlsplit(target).scheme
        if scheme in _SCHEMES:
            origin_of(target)
    except (ValueError, InvalidOptionError):
        raise HubError(f"{redacted(url)} redirects to what is no URL", path=redacted(url)) from None
    if scheme not in _SCHEMES or (scheme == "http" and place.startswith("https:")):
        raise HubError(
            f"{redacted(url)} redirects to {scheme}://, where it may not: https leads to https alone",
            path=redacted(url),
        )
    return target


def _linked(headers: Mapping[str, str]) -> str | None:
    """The digest of a file's content, where a hub says it: its ETag is one, but a store's can be anything."""
    said = headers.get("X-Linked-Etag") or (headers.get("ETag") if headers.get("X-Repo-Commit") else None)
    return said.removeprefix("W/").strip('"') if said else None


@cache
def _context() -> ssl.SSLContext:
    """How certificates are checked; the variables are those that requests knows."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    path = next((value for name in names if (value := os.environ.get(name))), None)
    return ssl.create_default_context(
        cafile=path if path and os.path.isfile(path) else None, capath=path if path and os.path.isdir(path) else None
    )


def _userinfo(url: str) -> str | None:
    """The header for the user and password in a URL."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at:
        return None
    return f"Basic {base64.b64encode(unquote(user).encode()).decode('ascii')}"


def _words(error: BaseException) -> str:
    """What went wrong, without anything the server or the URL says."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
