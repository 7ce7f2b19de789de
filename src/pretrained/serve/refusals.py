"""The one exception by which a request is refused, wherever that is found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .people import User

__all__ = ["RefusedError", "missing_repo"]


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        code: the word by which clients tell errors apart (X-Error-Code), if there is one.
        headers: others that belong to the answer.
        body: fields of the JSON document beside `error`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.body = dict(body or {})


def missing_repo(user: User) -> RefusedError:
    """The same answer for a repository that is not there and one that is hidden: 401 for nobody, 404 for a user."""
    if user.is_known:
        return RefusedError(404, "Repository not found", "RepoNotFound")
    return RefusedError(401, "Repository not found, or a token is needed", "RepoNotFound")
