"""A push: files uploaded as they are written, then one commit that makes them the repository's.

Whatever happens before the commit, the repository is as it was: what was uploaded belongs to nobody.
"""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import PretrainedError, SaveError
from ..options import SourceOptions
from ..push_options import PushOptions
from .asking import PAUSE, ask, ask_patiently
from .auth import access_to
from .card import CARD, CardFacts, new_card, with_tags
from .snapshot import check_relative
from .trouble import cause_of, chain_of, hub_error, status_of, trouble
from .urls import check_repo_id

__all__ = ["Upload"]

logger = logging.getLogger(__name__)

_TEXTS = (".json", ".md", ".py", ".txt")  # small, and kept until the commit, which has them in itself
_MAX_KEPT = 10 << 20  # bytes; what is larger is no text to a hub
_REFUSED = (401, 402, 403)
_MOVED = (409, 412)  # somebody else has committed to the branch meanwhile
_BUSY, _BROKEN = frozenset({429}), frozenset({500, 502, 503, 504})
CONFLICTS = 8  # commits that are tried before others are left alone


class Upload:
    """One push on its way. Use as a context manager; leaving without `commit` leaves the repository as it was.

        with Upload(options, facts) as upload:
            write(upload.path("model.safetensors"))
            upload.wrote("model.safetensors")
            upload.commit()

    Attributes:
        repo_id: the repository, with its owner once that is known.
        info: what the hub says of the commit, once there is one.
    """

    def __init__(self, options: PushOptions, facts: CardFacts) -> None:
        from huggingface_hub import HfApi

        self.repo_id = check_repo_id(options.repo_id)
        if options.revision is not None:
            check_relative(options.revision, "revision")
        self.info: Any = None
        self._options, self._facts = options, facts
        self._source = SourceOptions(revision=options.revision, token=options.token, endpoint=options.endpoint)
        self._access = access_to(self._source)
        self._api = HfApi(endpoint=self._access.endpoint, token=self._access.for_client)
        self._operations: dict[str, Any] = {}
        self._stale: list[Callable[[str], bool]] = []
        self._parent: str | None = None  # the commit whose files `_present` has, by name, with git's or LFS' digest
        self._present: dict[str, str] = {}
        self._has_xet = True
        self._lock = threading.Lock()
        self._folder: Path | None = None

    def __repr__(self) -> str:
        return f"Upload({self.repo_id!r})"

    def __enter__(self) -> Upload:
        """Makes repository and branch, if they are not there."""
        with self._translated():
            self.repo_id = self._make_repository()
            self._make_branch()
            self._look()
        self._folder = Path(tempfile.mkdtemp(prefix="pretrained-push-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def present(self) -> list[str]:
        """Names of the files that the branch has now."""
        return list(self._present)

    def path(self, name: str) -> Path:
        """Where to write a file, which is gone again once it is uploaded."""
        check_relative(name, "file name")
        if self._folder is None:
            raise SaveError(f"the push to {self.repo_id} has not begun", path=self.repo_id)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def wrote(self, name: str) -> None:
        """Uploads a file that was written to its `path`, and frees that."""
        self.add(name, self.path(name))
        self.path(name).unlink()

    def add(self, name: str, path: Path) -> None:
        """Uploads a file that lies somewhere, and leaves it there."""
        check_relative(name, "file name")
        size = path.stat().st_size
        if name.endswith(_TEXTS) and size <= _MAX_KEPT:
            operation = _addition(name, path.read_bytes())
        else:
            with self._translated():
                operation = self._uploaded(name, path)
        with self._lock:
            self._operations[name] = operation

    def add_texts(self, texts: Mapping[str, str]) -> None:
        """Takes small files as they are: name → content."""
        for name, text in texts.items():
            check_relative(name, "file name")
            self._operations[name] = _addition(name, text.encode("utf-8"))

    def remove_stale(self, is_stale: Callable[[str], bool]) -> list[str]:
        """Takes files out with the commit: those that the branch has then. Returns the names of those it has now."""
        self._stale.append(is_stale)
        return sorted(name for name in self._present if is_stale(name))

    def commit(self) -> Any:
        """Makes the one commit; returns what the hub says of it.

        Raises:
            HubError: it was refused; the repository is as it was.
        """
        with self._translated():
            for attempt in range(1, CONFLICTS + 1):
                try:
                    self.info = self._committed()
                    break
                except trouble() as error:
                    if status_of(error) not in _MOVED or self._parent is None or attempt == CONFLICTS:
                        raise
                logger.info("%s was changed meanwhile; looking at it again", self.repo_id)
                time.sleep(random.uniform(0.0, PAUSE * 2**attempt))  # so that not all come again at once
                self._look()
                for name, operation in self._operations.items():
                    # What huggingface_hub compares a file with, to leave out what the branch has already.
                    operation._remote_oid = self._present.get(name)
        logger.info("pushed %d files to %s", len(self._operations), self.repo_id)
        return self.info

    def _committed(self) -> Any:
        """The commit on top of the one that was looked at, if that is still where the branch is.

        What is taken out, and what is left out because the branch has it, is only right there.
        """
        from huggingface_hub import CommitOperationDelete

        options = self._options
        operations = {**self._operations, **self._card()}
        gone = [name for name in self._present if name not in operations and any(stale(name) for stale in self._stale)]
        removed = [CommitOperationDelete(path_in_repo=name) for name in gone]
        # A server that breaks down may have made the commit. The branch has moved then, and nothing is done twice; but
        # there would be a second pull request.
        once_more = _BUSY if self._parent is None or options.create_pr else _BUSY | _BROKEN
        return ask_patiently(
            lambda: self._api.create_commit(
                self.repo_id,
                operations=[*operations.values(), *removed],
                commit_message=options.commit_message or f"Upload {self._facts.model_class}",
                commit_description=options.commit_description,
                revision=options.revision,
                create_pr=options.create_pr,
                parent_commit=self._parent,
            ),
            once_more,
        )

    def _make_repository(self) -> str:
        try:
            made = ask(lambda: self._api.create_repo(self.repo_id, private=self._options.private, exist_ok=True))
            return str(made.repo_id)
        except trouble() as error:
            # Who may not make it may still write to it, or propose something.
            if not (status_of(error) in _REFUSED or isinstance(error, ValueError)):
                raise
            try:
                return str(ask(lambda: self._api.model_info(self.repo_id)).id)
            except trouble():
                raise error from None

    def _make_branch(self) -> None:
        revision = self._options.revision
        if revision is None or revision == "main" or revision.startswith("refs/"):
            return
        try:
            ask(lambda: self._api.create_branch(self.repo_id, branch=revision, exist_ok=True))
        except trouble() as error:
            if not (self._options.create_pr and status_of(error) in _REFUSED):
                raise

    def _look(self) -> None:
        """Takes down at which commit the branch is, and which files that has."""
        from huggingface_hub.hf_api import RepoFile

        def listed() -> dict[str, str]:
            items = self._api.list_repo_tree(self.repo_id, revision=self._parent or revision, recursive=True)
            files = [item for item in items if isinstance(item, RepoFile)]
            return {file.path: file.lfs.sha256 if file.lfs is not None else file.blob_id for file in files}

        self._parent, self._present = None, {}
        revision = self._options.revision
        try:
            self._parent = ask(lambda: self._api.model_info(self.repo_id, revision=revision)).sha
            self._present = ask(listed)
        except trouble() as error:
            if status_of(error) != 404:  # there is a repository, and nothing in it yet
                raise

    def _uploaded(self, name: str, path: Path) -> Any:
        """The operation for a file whose bytes the hub has now, by Xet where it has that, by Git LFS otherwise."""
        if self._has_xet:
            operation = _addition(name, path)
            try:
                self._preupload(operation)
                return _kept(operation, path)
            except trouble() as error:
                if not _is_without_xet(error):
                    raise
                logger.info("%s has no Xet storage; files go there by Git LFS", self._access.endpoint)
                self._has_xet = False
        with path.open("rb") as file:
            operation = _addition(name, file)  # of an open file huggingface_hub makes no Xet upload
            self._preupload(operation)
            return _kept(operation, path)

    def _preupload(self, operation: Any) -> None:
        ask_patiently(
            lambda: self._api.preupload_lfs_files(
                self.repo_id,
                additions=[operation],
                revision=self._options.revision,
                create_pr=self._options.create_pr,
            )
        )

    def _card(self) -> dict[str, Any]:
        """A card if there is none; the tags that are missing on one that there is."""
        options, facts = self._options, self._facts
        tags = [*options.tags, *facts.tags]
        if CARD in self._operations:
            text = bytes(self._operations[CARD].path_or_fileobj).decode("utf-8", "replace")
        elif CARD in self._present:
            if not tags:
                return {}
            text = self._read_card()
        else:
            text = new_card(self.repo_id, facts, options.tags, options.base_model, options.license)
            return {CARD: _addition(CARD, text.encode("utf-8"))}
        changed = with_tags(text, tags)
        return {} if changed == text else {CARD: _addition(CARD, changed.encode("utf-8"))}

    def _read_card(self) -> str:
        with self._translated(), tempfile.TemporaryDirectory(prefix="pretrained-card-") as folder:
            revision = self._parent or self._options.revision
            path = ask_patiently(
                lambda: self._api.hf_hub_download(
                    self.repo_id, CARD, revision=revision, local_dir=folder, force_download=True
                )
            )
            return Path(path).read_text(encoding="utf-8")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PretrainedError:
            raise
        except trouble() as error:
            raise hub_error("push to", self.repo_id, self._access, self._source, error) from cause_of(error)


def _addition(name: str, content: Any) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)


def _kept(operation: Any, path: Path) -> Any:
    """The operation, which may outlive the file: what the commit itself will hold is in it."""
    is_uploaded = isinstance(operation.path_or_fileobj, bytes)
    if is_uploaded:
        return operation
    return _addition(operation.path_in_repo, path.read_bytes())


def _is_without_xet(error: BaseException) -> bool:
    """Whether this is what an upload says of a hub that knows nothing of Xet."""
    text = " ".join(map(str, chain_of(error)))
    return "404" in text and "xet" in text.lower()
