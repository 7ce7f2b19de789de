"""Where files come from, as the caller says it; and the secrets that go along, which show up nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InvalidOptionError, OptionError

__all__ = ["Secret", "SourceOptions", "check_choice"]

# What a pickle of the options leaves out: whoever loads it uses credentials of their own.
_SECRET_FIELDS = frozenset({"token", "storage_options", "proxies"})


class Secret:
    """A token that no message, log, repr or pickle shows; only `reveal` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The token itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_left_out, ())


def _left_out() -> None:
    """What a secret is after a pickle: nothing, so that the stored token of whoever loads it is used."""


@dataclass(frozen=True)
class SourceOptions:
    """Where files come from. Consumed by `hub.resolve`; nothing after it knows of revisions or caches.

    Attributes:
        revision: branch, tag, commit or refs/pr/N of a repository.
        subfolder: a folder inside of the place.
        cache_dir: the Hugging Face cache to use; the one that everybody uses by default.
        force_download: fetch what is in the cache too.
        local_files_only: never ask the network.
        token: a string; None for the stored one, where that belongs; True to insist on that; False for none.
        endpoint: another hub than that of HF_ENDPOINT.
        stream: True reads tensors where they lie, in ranges, and writes nothing to the disk; "auto" does so for what
            is not in the cache and would not fit on the disk.
        verify: "auto" compares checksums once, after a download; True every time; False never.
        storage_options: for the file system of an s3://, gs:// or other fsspec URL.
        proxies: scheme → URL of a proxy, for the bytes of weights.
    """

    revision: str | None = None
    subfolder: str = ""
    cache_dir: Any = None
    force_download: bool = False
    local_files_only: bool = False
    token: Any = field(default=None, repr=False)
    endpoint: str | None = None
    stream: Any = False
    verify: Any = "auto"
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    proxies: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.token, str):
            object.__setattr__(self, "token", Secret(self.token))
        if self.force_download and self.local_files_only:
            raise OptionError(
                "force_download=True and local_files_only=True exclude each other: one fetches always, the other never",
                key="force_download",
            )
        if self.stream is True and self.local_files_only:
            raise OptionError(
                "stream=True and local_files_only=True exclude each other: one reads over the network, the other never",
                key="stream",
            )
        if self.stream is True and self.verify is True:
            raise OptionError(
                "stream=True and verify=True exclude each other: a checksum is of a whole file, and a stream reads "
                "what it needs, pinned by commit and ETag. Leave out stream=True to have the file checked",
                key="verify",
            )

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: None if f.name in _SECRET_FIELDS else getattr(self, f.name) for f in fields(self)}

    def __deepcopy__(self, memo: Any) -> SourceOptions:
        return self


def check_choice(name: str, value: Any) -> Any:
    """The value of an option of a source, of the type that the rest counts on.

    Raises:
        InvalidOptionError: it is of another.
    """
    if name in ("stream", "verify"):
        default: Any = False if name == "stream" else "auto"
        if value is None:
            return default
        if not (isinstance(value, bool) or value == "auto"):
            raise InvalidOptionError(f"{name} is True, False or 'auto', not {value!r:.60}", key=name)
    elif name == "token" and not (value is None or isinstance(value, (str, bool, Secret))):
        raise InvalidOptionError(f"token is a string, True, False or None, not a {type(value).__name__}", key=name)
    elif name in ("storage_options", "proxies") and not (value is None or isinstance(value, Mapping)):
        raise InvalidOptionError(f"{name} is a dict, not a {type(value).__name__}", key=name)
    elif name == "endpoint" and value is not None and not (isinstance(value, str) and "://" in value):
        raise InvalidOptionError(f"endpoint is a URL such as https://hub.example, not {value!r:.60}", key=name)
    return value
