"""Every error this library raises, as one tree.

    PretrainedError
    ├── OptionError            (TypeError)              a keyword nobody knows, or two that contradict each other
    ├── InvalidOptionError     (ValueError)             a known keyword with a value outside its range
    ├── MissingFrameworkError  (ImportError)            the name needs a package that is not installed
    ├── SourceError            (OSError)                nothing loadable at the place that was named
    │   └── HubError                                    the hub refused or could not be reached
    ├── ConfigError            (OSError, ValueError)    config.json is not what it must be
    ├── WeightsFormatError     (OSError, ValueError)    a weight file is damaged, or is something else
    │   ├── TensorError                                 … and this tensor of it is to blame
    │   ├── ShardIndexError                             an index and its shards do not belong together
    │   └── IntegrityError                              the bytes are not the bytes that were recorded
    ├── MismatchError          (RuntimeError, ValueError)  checkpoint and model do not fit each other
    ├── UntrustedPathError     (OSError, ValueError)    a name in a file points out of its folder
    ├── UntrustedCodeError     (ValueError)             a checkpoint wants to run code of its own
    ├── ResourceLimitError     (OSError, ValueError)    larger than any honest file of its kind
    ├── CheckpointChangedError (OSError)                the files changed while they were being read
    ├── CheckpointBusyError    (OSError)                another process is saving to the folder
    └── SaveError              (OSError)                nothing was saved; what was there is as it was

Each is also the builtin that people catch today. The data of a message is on the exception too: `path`, `tensor`,
`key`, `reason`, and whatever else the class names in its docstring.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "CheckpointBusyError",
    "CheckpointChangedError",
    "ConfigError",
    "HubError",
    "IntegrityError",
    "InvalidOptionError",
    "MismatchError",
    "MissingFrameworkError",
    "OptionError",
    "PretrainedError",
    "ResourceLimitError",
    "SaveError",
    "ShardIndexError",
    "SourceError",
    "TensorError",
    "UntrustedCodeError",
    "UntrustedPathError",
    "WeightsFormatError",
]

MAX_MESSAGE = 2000  # bytes; names in a message may come from a hostile file

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")


def printable(text: object, limit: int = MAX_MESSAGE) -> str:
    """`text` as one may print it: control characters escaped, no hub token, at most `limit` bytes of UTF-8."""
    escaped = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))
    escaped = _TOKEN.sub("hf_…", escaped)
    raw = escaped.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return raw.decode("utf-8")
    return raw[: limit - 4].decode("utf-8", "ignore") + " …"


class PretrainedError(Exception):
    """The root of the tree.

    Attributes:
        path: the file or folder concerned, if any.
        tensor: the tensor concerned, under the name it has in the file.
        key: the config field, option or index entry concerned.
        reason: the complaint alone, without the place.
    """

    def __init__(
        self,
        message: str,
        *,
        path: object = None,
        tensor: str | None = None,
        key: str | None = None,
        reason: str | None = None,
        **fields: Any,
    ) -> None:
        text = printable(message)
        super().__init__(text)
        self.message = text
        self.path = None if path is None else _TOKEN.sub("hf_…", str(path))
        self.tensor = tensor
        self.key = key
        self.reason = printable(reason) if reason is not None else text
        self.fields = fields
        self.__dict__.update(fields)

    def __str__(self) -> str:
        return self.message

    def at(self, path: object) -> PretrainedError:
        """This error, with the file it is about in its message and on it; unchanged if it names one."""
        if self.path is None:
            self.message = printable(f"{path}: {self.message}")
            self.args = (self.message,)
            self.path = _TOKEN.sub("hf_…", str(path))
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # ImportError keeps `path` in a slot of its own.
        return (_rebuild, (type(self), {**self.__dict__, "path": self.path}))


def _rebuild(cls: type[PretrainedError], state: dict[str, Any]) -> PretrainedError:
    error = cls(state["message"])
    for name, value in state.items():
        setattr(error, name, value)
    return error


class OptionError(PretrainedError, TypeError):
    """A keyword that no option, config field or constructor knows, or two that exclude each other."""


class InvalidOptionError(PretrainedError, ValueError):
    """A known keyword with a value it cannot have."""


class MissingFrameworkError(PretrainedError, ImportError):
    """The name needs a package that is not installed; the message has the install line."""


class SourceError(PretrainedError, OSError):
    """Nothing loadable is where the caller pointed."""


class HubError(SourceError):
    """The hub refused, or could not be reached. `status` is the HTTP status if there was one."""

    status: int | None = None


class ConfigError(PretrainedError, OSError, ValueError):
    """A config file, or one field of it, is not what it must be."""


class WeightsFormatError(PretrainedError, OSError, ValueError):
    """A weight file is damaged, or is another kind of file. `offset` is the byte where that showed, if known."""

    offset: int | None = None


class TensorError(WeightsFormatError):
    """One tensor of a weight file is impossible."""


class ShardIndexError(WeightsFormatError):
    """An index file is malformed, or its shards are missing or are not the ones it was written for."""

    shard: str | None = None


class IntegrityError(WeightsFormatError):
    """The bytes of a file are not the recorded ones. `expected` and `got` are the digests."""

    expected: str | None = None
    got: str | None = None


class MismatchError(PretrainedError, RuntimeError, ValueError):
    """Checkpoint and model do not fit: shapes differ, names are missing in strict mode, or nothing matches at all.

    `complaints` has every one of them, also those that the message has no room for.
    """

    complaints: Sequence[str] = ()


class UntrustedPathError(PretrainedError, OSError, ValueError):
    """A path taken from a file or an option leaves the folder it must stay in."""


class UntrustedCodeError(PretrainedError, ValueError):
    """A checkpoint names code of its own and the caller did not allow it to run."""


class ResourceLimitError(PretrainedError, OSError, ValueError):
    """A file claims more than any honest file of its kind. `limit` is the bound that was passed."""

    limit: int | None = None


class CheckpointChangedError(PretrainedError, OSError):
    """A file was replaced or rewritten while it was being loaded."""


class CheckpointBusyError(PretrainedError, OSError):
    """Another process is saving to the folder."""


class SaveError(PretrainedError, OSError):
    """A save failed; the previous content of the folder is untouched. `__cause__` has the system's error."""


def unknown_name(key: str, value: object, known: Iterable[str]) -> ConfigError:
    """The error for a config field `key` whose `value` is none of the `known` names; it suggests the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"{key}={value!r} is not known.{hint} Known: {', '.join(names)}.", key=key, value=value)


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> OptionError:
    """The error for a keyword that `owner` does not take; it suggests the nearest of those it takes."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return OptionError(f"{owner} takes no {name!r:.80}{hint}", key=name)
