"""Everything push_to_hub takes beside what is pushed: names, defaults, and what became of older ones."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InvalidOptionError, OptionError
from .source_options import Secret

__all__ = ["PUSH_KEYWORDS", "PushOptions", "push_options"]


@dataclass(frozen=True)
class PushOptions:
    """Where to push, and as what.

    Attributes:
        repo_id: organisation/name, or a name of the user's own.
        commit_message, commit_description: of the one commit.
        private: whether a repository that is made now is private; None leaves it to the hub.
        create_pr: proposes the commit as a pull request.
        revision: the branch, made if it is not there; None for main.
        tags: words for the model's card.
        base_model: the repository it comes from, for the card. license: its license, for the card.
        token, endpoint: as for from_pretrained.
    """

    repo_id: str
    commit_message: str | None = None
    commit_description: str | None = None
    private: bool | None = None
    create_pr: bool = False
    revision: str | None = None
    tags: tuple[str, ...] = ()
    base_model: str | None = None
    license: str | None = None
    token: Any = field(default=None, repr=False)
    endpoint: str | None = None


# What release 4 of transformers called things; None means that there is nothing to do.
_MOVED = {
    "organization": "write repo_id='organization/name'",
    "repo_url": "pass repo_id='organization/name'",
    "repo_path_or_name": "pass repo_id='organization/name'",
    "repo_name": "pass repo_id='organization/name'",
    "temp_dir": "leave it out: nothing is written to a folder first",
}
PUSH_KEYWORDS = frozenset({f.name for f in fields(PushOptions)} | {"use_auth_token"})
_STRINGS = ("repo_id", "commit_message", "commit_description", "revision", "base_model", "license", "endpoint")


def push_options(keywords: Mapping[str, Any], *, others: frozenset[str] = frozenset()) -> PushOptions:
    """The options among the keywords, which have no others but `others`.

    Raises:
        OptionError: a keyword nobody knows; of one that was renamed, the message says what to write now.
        InvalidOptionError: a value that it cannot have.
    """
    known: dict[str, Any] = {}
    for name, value in keywords.items():
        if name in _MOVED and value is not None:
            raise OptionError(f"push_to_hub has no {name}= any more: {_MOVED[name]}", key=name)
        if name == "use_auth_token" and value is not None:
            message = "use_auth_token= is deprecated: use token="
            warnings.warn(message, DeprecationWarning, stacklevel=4)
            known.setdefault("token", value)
        elif name in PUSH_KEYWORDS and name != "use_auth_token":
            if not (name == "token" and value is None):
                known[name] = value
        elif name not in others and name not in _MOVED and name != "use_auth_token":
            near = difflib.get_close_matches(name, PUSH_KEYWORDS | others, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"push_to_hub has no option {name!r}{hint}", key=name)
    return PushOptions(**{name: _checked(name, value) for name, value in known.items()})


def _checked(name: str, value: Any) -> Any:
    if name in _STRINGS and not (isinstance(value, str) or (value is None and name != "repo_id")):
        raise InvalidOptionError(f"{name} is a string, not a {type(value).__name__}", key=name)
    if name == "private" and not (value is None or isinstance(value, bool)):
        raise InvalidOptionError(f"private is True, False or None, not {value!r:.60}", key=name)
    if name == "create_pr":
        if not (value is None or isinstance(value, bool)):
            raise InvalidOptionError(f"create_pr is True or False, not {value!r:.60}", key=name)
        return bool(value)
    if name == "tags":
        tags = (value,) if isinstance(value, str) else tuple(value or ())
        if not all(isinstance(tag, str) for tag in tags):
            raise InvalidOptionError(f"tags are words, not {value!r:.60}", key=name)
        return tags
    if name == "token":
        if not isinstance(value, (str, bool, Secret)):
            raise InvalidOptionError(f"token is a string, True, False or None, not a {type(value).__name__}", key=name)
        return Secret(value) if isinstance(value, str) else value
    return value
