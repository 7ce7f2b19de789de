"""A push: files uploaded as they are written, then one commit that makes them the repository's.

Whatever happens before the commit, the repository is as it was: what was uploaded belongs to nobody.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import PretrainedError, SaveError
from ..options import SourceOptions
from ..push_options import PushOptions
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
        self._removals: list[str] = []
        self._present: list[str] = []
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
            self._present = self._listed()
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

    def remove(self, name: str) -> None:
        """Takes a file out with the commit."""
        if name in self._present:
            self._removals.append(name)

    def commit(self) -> Any:
        """Makes the one commit; returns what the hub says of it.

        Raises:
            HubError: it was refused; the repository is as it was.
        """
        from huggingface_hub import CommitOperationDelete

        options = self._options
        self._add_card()
        removed = [CommitOperationDelete(path_in_repo=name) for name in self._removals if name not in self._operations]
        with self._translated():
            self.info = self._api.create_commit(
                self.repo_id,
                operations=[*self._operations.values(), *removed],
                commit_message=options.commit_message or f"Upload {self._facts.model_class}",
                commit_description=options.commit_description,
                revision=options.revision,
                create_pr=options.create_pr,
            )
        logger.info("pushed %d files to %s", len(self._operations), self.repo_id)
        return self.info

    def _make_repository(self) -> str:
        try:
            made = self._api.create_repo(self.repo_id, private=self._options.private, exist_ok=True)
            return str(made.repo_id)
        except trouble() as error:
            # Who may not make it may still write to it, or propose something.
            if not (status_of(error) in _REFUSED or isinstance(error, ValueError)):
                raise
            try:
                return str(self._api.model_info(self.repo_id).id)
            except trouble():
                raise error from None

    def _make_branch(self) -> None:
        revision = self._options.revision
        if revision is None or revision == "main" or revision.startswith("refs/"):
            return
        try:
            self._api.create_branch(self.repo_id, branch=revision, exist_ok=True)
        except trouble() as error:
            if not (self._options.create_pr and status_of(error) in _REFUSED):
                raise

    def _listed(self) -> list[str]:
        from huggingface_hub.hf_api import RepoFile

        try:
            items = self._api.list_repo_tree(self.repo_id, revision=self._options.revision, recursive=True)
            return [item.path for item in items if isinstance(item, RepoFile)]
        except trouble() as error:
            if status_of(error) == 404:  # there is a repository, and nothing in it yet
                return []
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
        self._api.preupload_lfs_files(
            self.repo_id,
            additions=[operation],
            revision=self._options.revision,
            create_pr=self._options.create_pr,
        )

    def _add_card(self) -> None:
        """A card if there is none; the tags that are missing on one that there is."""
        options, facts = self._options, self._facts
        tags = [*options.tags, *facts.tags]
        if CARD in self._operations:
            text = bytes(self._operations[CARD].path_or_fileobj).decode("utf-8", "replace")
        elif CARD in self._present:
            if not tags:
                return
            text = self._read_card()
        else:
            text = new_card(self.repo_id, facts, options.tags, options.base_model, options.license)
            self._operations[CARD] = _addition(CARD, text.encode("utf-8"))
            return
        if (changed := with_tags(text, tags)) != text:
            self._operations[CARD] = _addition(CARD, changed.encode("utf-8"))

    def _read_card(self) -> str:
        with self._translated(), tempfile.TemporaryDirectory(prefix="pretrained-card-") as folder:
            path = self._api.hf_hub_download(
                self.repo_id, CARD, revision=self._options.revision, local_dir=folder, force_download=True
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
