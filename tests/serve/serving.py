"""`pretrained serve` as a process of its own, which can be killed, and a slow way to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
USERS = ("--token", "ann=token-of-ann", "--token", "bob=token-of-bob", "--org", "acme=ann")
WRITABLE = ("--writable", *USERS)


class Served:
    """The command, started on a folder.

    Attributes:
        url: for HF_ENDPOINT.
        port: of it.
    """

    def __init__(self, root: Path, words: Sequence[str] = WRITABLE, port: int = 0) -> None:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "XDG_CACHE_HOME": str(root.parent / "memory")}
        command = [sys.executable, "-m", "pretrained", "serve", str(root), "--port", str(port), *words]
        # Without a buffer, so that `select` sees what there is.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
        self._process = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
        assert self._process.stdout is not None
        self.output = ""
        deadline = time.monotonic() + 60
        while "HF_ENDPOINT=" not in self.output:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            line = self._process.stdout.readline() if ready else b""
            if not line:
                self.kill()
                raise AssertionError(f"the server did not start: {self.stderr}")
            self.output += line.decode()
        self.url = self.output.partition("HF_ENDPOINT=")[2].split()[0]
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGINT, as by Ctrl-C."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        self.stderr = self._process.stderr.read().decode()
        self.code = self._process.wait(30)
        self._process.stdout.close()
        self._process.stderr.close()


class Turnstile:
    """A way to a port that lets so many bytes through, then none, and says so.

    Attributes:
        url: for HF_ENDPOINT.
        reached: set once `limit` bytes went the way that is counted.
    """

    def __init__(self, port: int, limit: int, *, up: bool) -> None:
        self._port, self._left, self._up = port, limit, up
        self._lock = threading.Lock()
        self.reached = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._ends += [client, server]
            for source, target, counts in ((client, server, self._up), (server, client, not self._up)):
                threading.Thread(target=self._pass, args=(source, target, counts), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while piece := source.recv(65536):
                if counts:
                    with self._lock:
                        self._left -= len(piece)
                        if self._left <= 0:
                            self.reached.set()
                            return
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Ends every connection."""
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it
            end.close()
