"""The server itself: which shelves a folder has, and a uvicorn that serves them."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from ..errors import InvalidOptionError, MissingFrameworkError, SourceError
from .cache import CacheShelf, is_cache
from .folders import FolderShelf
from .people import People
from .repository import Shelf
from .store import Store, has_store

__all__ = ["HubServer", "default_memory", "shelves_of"]

_NEEDED = ("starlette", "uvicorn")
MAX_CONNECTIONS = 512
KEEP_ALIVE = 30  # seconds an idle connection is kept: clients come back


def default_memory() -> Path:
    """Where checksums of served folders are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "pretrained" / "serve-digests.json"


def shelves_of(root: Path, memory: Path | None = None, *, writable: bool = False) -> tuple[list[Shelf], Store | None]:
    """What there is to serve in a folder: the store, if there is one or one is to be, and what else lies there.

    Raises:
        SourceError: it is no folder.
        CheckpointBusyError: another server writes to it.
    """
    if writable:
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        raise SourceError(f"no folder {root} to serve", path=root)
    real = root.resolve()
    store = Store(real, writable=writable) if writable or has_store(real) else None
    other: Shelf = CacheShelf(real, memory) if is_cache(real) else FolderShelf(real, memory)
    return ([other] if store is None else [store, other]), store


@dataclass
class HubServer:
    """A Hub that is served from a thread of this process, or from the caller's own.

        with HubServer(Path("models")) as hub:
            AutoModel.from_pretrained("org/name", endpoint=hub.url)

    Attributes:
        root: the folder.
        host: address to listen on.
        port: 0 for any that is free; the one that was found, once it listens.
        people: users and organisations.
        hosts: further names of the server.
        is_closed: whether nothing is shown without a token.
        writable: whether users may write, into a store below the folder.
        max_file: bytes of the largest file that is taken.
        public_url: the address by which clients know the server, where a proxy stands before it.
        memory: where checksums are kept from one run to the next; None to compute them anew.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 0
    people: People | None = None
    hosts: Collection[str] = ()
    is_closed: bool = False
    writable: bool = False
    max_file: int = 50 * 10**9
    public_url: str | None = None
    memory: Path | None = None

    def __post_init__(self) -> None:
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise MissingFrameworkError(
                f"serving needs {' and '.join(missing)}: pip install 'pretrained[serve]'", key=missing[0]
            )
        self.people = self.people or People()
        if self.is_closed and not self.people:
            raise InvalidOptionError("nobody could read anything: add --token USER=TOKEN", key="require_token")
        if self.writable and not self.people:
            raise InvalidOptionError("nobody could write anything: add --token USER=TOKEN", key="writable")
        self._thread: threading.Thread | None = None
        self._shelves, self._store = shelves_of(Path(self.root), self.memory, writable=self.writable)

    @property
    def shelves(self) -> list[Shelf]:
        """What is served."""
        return self._shelves

    @property
    def url(self) -> str:
        """The address for HF_ENDPOINT; the port is known once `bind` was called."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def bind(self) -> None:
        """Takes the port. Raises SourceError if somebody else has it."""
        import uvicorn

        from .app import Application
        from .patience import PatientProtocol
        from .site import Site

        assert self.people is not None
        store = self._store if self.writable else None
        url = self.public_url.rstrip("/") if self.public_url else None
        site = Site(self._shelves, self.people, store, self.is_closed, self.max_file, url)
        named = {urlsplit(url).hostname or ""} if url else set()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((self.host, self.port))
            self._socket.listen()  # from here on clients wait where otherwise they would be refused
        except OSError as error:
            self._socket.close()
            raise SourceError(f"cannot listen on {self.host} port {self.port}: {error.strerror}") from error
        self.port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                Application(site, {self.host, socket.gethostname(), *named, *self.hosts}),
                log_config=None,
                access_log=False,
                lifespan="off",
                http=PatientProtocol,
                ws="none",
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=5,
            )
        )

    def run(self) -> None:
        """Serves until the process is told to end (SIGINT, SIGTERM)."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def close(self) -> None:
        """Gives the port and the store back."""
        self._socket.close()
        for shelf in self._shelves:
            shelf.close()

    def __enter__(self) -> HubServer:
        self.bind()
        self._thread = threading.Thread(target=self.run, name="pretrained-serve", daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
            if not self._thread.is_alive():
                raise SourceError(f"the server at {self.url} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
