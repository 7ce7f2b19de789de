"""What one server serves, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import anyio

from .partials import Partials
from .people import NOBODY, People, User
from .repository import Repository, Shelf
from .store import Store

__all__ = ["Site"]


@dataclass
class Site:
    """Shelves of repositories and the people who come to them.

    Attributes:
        shelves: where repositories are; the first that has a name wins.
        people: everybody with a token.
        store: the shelf that can be written to, if there is one.
        is_closed: whether nothing is shown without a token.
        max_file: bytes of the largest file that is taken.
        url: the address by which clients know the server, if it is not the one they ask under.
        partials: uploads that are being written to.
        slow: how much may go on at once of what takes long and anybody may ask for.
    """

    shelves: Sequence[Shelf]
    people: People
    store: Store | None = None
    is_closed: bool = False
    max_file: int = 50 * 10**9
    url: str | None = None
    partials: Partials = field(default_factory=Partials)
    slow: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))

    def find(self, kind: str, repo_id: str) -> Repository | None:
        """The repository of that name."""
        for shelf in self.shelves:
            if (found := shelf.find(kind, repo_id)) is not None:
                return found
        return None

    def listed(self, kind: str, user: User) -> Iterator[Repository]:
        """All of a kind that a user may know of."""
        seen = set()
        for shelf in self.shelves:
            for repo in shelf.listed(kind):
                if repo.id not in seen and self.may_see(user, repo):
                    seen.add(repo.id)
                    yield repo

    def identify(self, header: str | None) -> User | None:
        """Who sent an Authorization header; None if its token is nobody's.

        A server without users asks for no token, and clients send the one they have for another Hub: it is not looked
        at.
        """
        if not self.people or header is None:
            return NOBODY
        scheme, _, token = header.partition(" ")
        return self.people.owning(token.strip()) if scheme.lower() == "bearer" else None

    def may_see(self, user: User, repo: Repository) -> bool:
        """Whether a user may know that a repository exists."""
        if self.is_closed and not user.is_known:
            return False
        return not repo.private or user.owns(repo.id)

    def may_read(self, user: User, repo: Repository) -> bool:
        """Whether a user may have the files of a repository."""
        if not self.may_see(user, repo):
            return False
        if not repo.gated or user.owns(repo.id):
            return True
        return user.is_known and user.name in repo.readers
