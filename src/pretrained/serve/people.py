"""Users and organisations: whose token a request has, and what its owner may do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidOptionError
from .names import is_repo_id, is_word, split_id

__all__ = ["NOBODY", "People", "User"]

MIN_TOKEN = 8  # characters
MAX_TOKEN = 512


@dataclass(frozen=True)
class User:
    """Somebody who sent a token, or nobody.

    Attributes:
        name: what they are called; "" for nobody.
        orgs: organisations they belong to.
    """

    name: str = ""
    orgs: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether there was a token."""
        return bool(self.name)

    def owns(self, repo_id: str) -> bool:
        """Whether a repository is theirs, alone or with others."""
        namespace, _ = split_id(repo_id)
        return bool(namespace) and (namespace == self.name or namespace in self.orgs)


NOBODY = User()


class People:
    """Everybody with a token.

    Tokens themselves are not kept: only their digests, which is all that comparing needs.

    Args:
        tokens: user → token.
        orgs: organisation → users.
    """

    def __init__(
        self, tokens: Mapping[str, str] | None = None, orgs: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        tokens, orgs = tokens or {}, orgs or {}
        for name in (*tokens, *orgs):
            if not is_word(name) or not is_repo_id(f"{name}/x"):
                raise InvalidOptionError(f"{name!r:.100} is no name of a user or an organisation", key="token")
        for name, token in tokens.items():
            if (
                not MIN_TOKEN <= len(token) <= MAX_TOKEN
                or not token.isascii()
                or not token.isprintable()
                or " " in token
            ):
                raise InvalidOptionError(
                    f"the token of {name} must have {MIN_TOKEN} to {MAX_TOKEN} printable characters and no space",
                    key="token",
                )
        if both := sorted(set(tokens) & set(orgs)):
            raise InvalidOptionError(f"{both[0]} is a user; an organisation needs another name", key="org")
        for org, members in orgs.items():
            if unknown := [name for name in members if name not in tokens]:
                raise InvalidOptionError(f"{unknown[0]!r:.100} of {org} has no token: add --token", key="org")
        digests = [(_digest(token), name) for name, token in tokens.items()]
        if len({digest for digest, _ in digests}) < len(digests):
            raise InvalidOptionError("two users have the same token", key="token")
        self._digests = digests
        self._users = {
            name: User(name, tuple(sorted(org for org, members in orgs.items() if name in members))) for name in tokens
        }

    def __bool__(self) -> bool:
        return bool(self._users)

    def find(self, name: object) -> User | None:
        """The user of that name."""
        return self._users.get(name) if isinstance(name, str) else None

    def owning(self, token: str) -> User | None:
        """The user whose token this is; every token is compared, whichever it is, in the same time."""
        given = _digest(token)
        found = None
        for digest, name in self._digests:
            if hmac.compare_digest(digest, given):
                found = name
        return None if found is None else self._users[found]

    def __repr__(self) -> str:
        return f"People({', '.join(self._users)})"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
