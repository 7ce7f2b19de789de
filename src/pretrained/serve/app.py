"""The ASGI application: checks who asks and for which host, finds the answer, and turns refusals into replies."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Collection
from contextlib import suppress

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .calls import Call, split_target
from .pages import error_page
from .people import NOBODY
from .refusals import RefusedError
from .replies import refusal
from .routes import answer
from .site import Site

__all__ = ["Application"]

_LOG = logging.getLogger(__name__)
MAX_DRAINED = 64 << 20  # bytes of a body that are read to the end after its request was refused
DRAINING = 10.0  # seconds that may take
MAX_PATH = 8192  # characters
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{0,5})?")


class Application:
    """Everything that one server answers.

    Args:
        site: what is served.
        hosts: names, beside localhost and any IP address, under which clients may reach the server. A page of some
            other site can make its own name lead here, but cannot make a browser send another name than that.
    """

    def __init__(self, site: Site, hosts: Collection[str] = ()) -> None:
        self.site = site
        self._hosts = frozenset(host.lower() for host in hosts) | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith("/_lfs/"):
            scope["path"] = "/_lfs/…"  # for whoever logs it: the address of an upload is leave to upload
        request = Request(scope, receive)
        started = time.perf_counter()
        try:
            reply = await self._reply(request)
        except RefusedError as error:
            reply = error_page(error) if _is_for_people(request) else refusal(error)
            await _drain(request, reply)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001  # whatever it was, the client gets an answer and the log gets the traceback
            # Neither the body nor the query of a request is logged: either may hold what is nobody's business.
            _LOG.exception("%s %s failed", request.method, request.url.path)
            reply = refusal(RefusedError(500, "The server failed; its log says why"))
            await _drain(request, reply)
        await reply(scope, receive, send)
        taken = (time.perf_counter() - started) * 1000
        _LOG.info("%s %s %d %.0f ms", request.method, request.url.path, reply.status_code, taken)

    async def _reply(self, request: Request) -> Response:
        host = request.headers.get("host", "")
        if not self._is_ours(host):
            raise RefusedError(421, f"This server is not called {host:.100}; see --allowed-host")
        if len(request.scope["raw_path"]) > MAX_PATH:
            raise RefusedError(414, f"The path has more than {MAX_PATH} characters")
        parts = request.scope["raw_path"].decode("ascii", "replace").partition("?")[0].strip("/").split("/")
        # Storage has words of its own in that header, which are nobody's token.
        user = NOBODY if parts[0] == "_xet" else self.site.identify(request.headers.get("authorization"))
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        base = self.site.url or f"{request.url.scheme}://{host}"
        return await answer(request.method, parts, Call(request, self.site, user, split_target(parts), base))

    def _is_ours(self, header: str) -> bool:
        match = _HOST.fullmatch(header)  # the whole of it stands in the addresses that clients are given
        if match is None:
            return False
        name = match[1] or match[2]
        if name.lower() in self._hosts:
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False


def _is_for_people(request: Request) -> bool:
    """Whether it is a browser that asks for a page."""
    is_page = "text/html" in request.headers.get("accept", "") and request.method == "GET"
    return is_page and not request.url.path.startswith(("/api/", "/_"))


async def _drain(request: Request, reply: Response) -> None:
    """Reads what is left of a body, so that the connection can go on; a long one ends it."""
    count = 0
    with suppress(ClientDisconnect, RuntimeError), anyio.move_on_after(DRAINING):  # RuntimeError: it was read before
        async for piece in request.stream():
            count += len(piece)
            if count > MAX_DRAINED:
                break
        else:
            return
    reply.headers["Connection"] = "close"
