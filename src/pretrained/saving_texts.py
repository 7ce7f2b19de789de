"""Saving what is only text: configs of a model and of its generation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._types import PathLike
from .checkpoint.commit import Stage
from .errors import InvalidOptionError, OptionError
from .hub.push import PushToHubMixin, push_files
from .push_options import PUSH_KEYWORDS, PushOptions, push_options

__all__ = ["save_texts", "split_push"]


def split_push(
    push_to_hub: Any, directory: PathLike, extra: Mapping[str, Any]
) -> tuple[dict[str, Any], PushOptions | None]:
    """(keywords that are not about a push, what to push if that is asked for). The name is by default the folder's.

    Raises:
        InvalidOptionError: push_to_hub is no bool. OptionError: a keyword of a push, and none is asked for.
    """
    if not isinstance(push_to_hub, bool):
        raise InvalidOptionError(f"push_to_hub is True or False, not {push_to_hub!r:.60}", key="push_to_hub")
    about = {name: value for name, value in extra.items() if name in PUSH_KEYWORDS}
    rest = {name: value for name, value in extra.items() if name not in PUSH_KEYWORDS}
    if push_to_hub:
        name = os.path.basename(os.path.abspath(directory))
        return rest, push_options({"repo_id": name, **about})
    useless = [name for name, value in about.items() if value is not None and name not in ("token", "use_auth_token")]
    if useless:
        raise OptionError(f"{useless[0]}= is of a push; pass push_to_hub=True with it", key=useless[0])
    return rest, None


def save_texts(
    what: PushToHubMixin, directory: PathLike, texts: Mapping[str, str], keywords: Mapping[str, Any]
) -> None:
    """Writes files into a folder, all or nothing, and pushes them if the keywords say so.

    Raises:
        SaveError: nothing was written. OptionError: a keyword nobody knows. HubError: the push was refused.
    """
    extra = {name: value for name, value in keywords.items() if name != "push_to_hub"}
    rest, push = split_push(keywords.get("push_to_hub") or False, directory, extra)
    if rest:
        raise OptionError(f"save_pretrained of a config has no option {min(rest)!r}", key=min(rest))
    with Stage(directory) as stage:
        for name, text in texts.items():
            stage.path(name).write_text(text, encoding="utf-8")
        stage.commit()
    if push is not None:
        push_files(Path(directory), texts, push, what._card_facts())
