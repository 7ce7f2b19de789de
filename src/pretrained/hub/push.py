"""push_to_hub for whatever can be saved: a model of any framework, a config, anything with save_pretrained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..push_options import PushOptions, push_options
from .card import CardFacts
from .upload import Upload

__all__ = ["PushToHubMixin", "push_files"]

_SAVE_NAMES = frozenset({"max_shard_size", "safe_serialization", "variant", "save_peft_format"})


class PushToHubMixin:
    """Gives a class `push_to_hub`. What it writes is `_push_files`; by default, whatever save_pretrained does."""

    def push_to_hub(
        self,
        repo_id: str,
        use_temp_dir: bool | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        max_shard_size: int | str = "5GB",
        create_pr: bool = False,
        safe_serialization: bool = True,
        revision: str | None = None,
        commit_description: str | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Uploads it to a repository, in one commit; makes the repository, the branch and the card if there are none.

        Args:
            repo_id: organisation/name, or a name of your own.
            use_temp_dir: False saves to a folder of the repository's name first, and pushes that.
            commit_message: "Upload" and the name of the class by default.
            private: whether a repository that is made now is private.
            token: in place of the stored one.
            max_shard_size: bytes of one file, as for save_pretrained; each is uploaded as it is written.
            create_pr: proposes the commit as a pull request.
            safe_serialization: as for save_pretrained.
            revision: the branch, made if it is not there.
            commit_description: below the message.
            tags: words for the card.
            kwargs: `variant` and `save_peft_format` as for save_pretrained; `base_model` and `license` for a card
                that is made; `endpoint`, another hub.

        Returns:
            huggingface_hub's CommitInfo: `oid`, `commit_url`, `pr_url` and more.

        Raises:
            HubError: the hub refused, or could not be reached; the repository is as it was.
            OptionError, InvalidOptionError: a keyword nobody knows, or a value that makes no sense.
        """
        pushed = {
            "repo_id": repo_id,
            "commit_message": commit_message,
            "private": private,
            "token": token,
            "create_pr": create_pr,
            "revision": revision,
            "commit_description": commit_description,
            "tags": tags,
        }
        saved = {"max_shard_size": max_shard_size, "safe_serialization": safe_serialization}
        saved |= {name: value for name, value in kwargs.items() if name in _SAVE_NAMES}
        options = push_options(
            {**pushed, **{k: v for k, v in kwargs.items() if k not in _SAVE_NAMES}}, others=_SAVE_NAMES
        )
        with Upload(options, self._card_facts()) as upload:
            if use_temp_dir is False:
                folder = Path(options.repo_id.rpartition("/")[2])
                self._save_to(folder, saved)
                _add_all(upload, folder)
            else:
                self._push_files(upload, saved)
            return upload.commit()

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        """Gives the files to the upload. `saved` has the keywords for save_pretrained."""
        with tempfile.TemporaryDirectory(prefix="pretrained-push-") as folder:
            self._save_to(Path(folder), saved)
            _add_all(upload, Path(folder))

    def _save_to(self, folder: Path, saved: dict[str, Any]) -> None:
        """Saves to a folder, with those of the keywords that it takes."""
        self.save_pretrained(folder, **saved)  # type: ignore[attr-defined]

    def _card_facts(self) -> CardFacts:
        """What a card says if there is none."""
        return CardFacts(type(self).__name__)


def push_files(
    folder: Path,
    names: Iterable[str],
    options: PushOptions,
    facts: CardFacts,
    is_stale: Callable[[str], bool] | None = None,
) -> Any:
    """Pushes files of a folder, in one commit, which also takes out what the repository has that `is_stale`."""
    with Upload(options, facts) as upload:
        for name in names:
            upload.add(name, folder / name)
        if is_stale is not None:
            upload.remove_stale(is_stale)
        return upload.commit()


def _add_all(upload: Upload, folder: Path) -> None:
    """Every file below a folder, but for what git and we hide."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            upload.add(name, path)
