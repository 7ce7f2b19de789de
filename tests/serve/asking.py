"""Requests to a server without a client in between."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pretrained.serve.running import HubServer

TOKENS = {"ann": "token-of-ann", "bob": "token-of-bob"}


@dataclass
class Reply:
    """What a server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """Requests to a server, each on a connection of its own."""

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = {"Authorization": f"Bearer {TOKENS[user]}"} if user else {}
        if body is not None and not isinstance(body, bytes):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        path = path.removeprefix(self.hub.url)
        connection = http.client.HTTPConnection("127.0.0.1", self.hub.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}))
            for name, value in {**sent, **(headers or {})}.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            reply = connection.getresponse()
            content = reply.read()
            return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, content)
        finally:
            connection.close()

    def commit(self, repo: str, files: Mapping[str, bytes], user: str = "ann", query: str = "", **header: str) -> Reply:
        """Commits small files to main."""
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "a commit", **header}}]
        for path, content in files.items():
            value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
            lines.append({"key": "file", "value": value})
        return self.send_lines(repo, lines, user, query)

    def send_lines(self, repo: str, lines: list[Any], user: str = "ann", query: str = "") -> Reply:
        """A commit of these lines."""
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        return self("POST", f"/api/models/{repo}/commit/main{query}", body, user=user)

    def leave(self, repo: str, content: bytes, user: str = "ann", size: int | None = None) -> Any:
        """What the LFS batch answers about a content."""
        one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content) if size is None else size}
        body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [one]}
        reply = self("POST", f"/{repo}.git/info/lfs/objects/batch", body, user=user)
        assert reply.status == 200, reply.body
        return reply.json["objects"][0]
