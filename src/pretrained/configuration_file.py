"""What a checkpoint says of its model: config.json or the metadata of a GGUF, and which keys a file may set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._types import Snapshot
from .checkpoint.files import read_json, safe_join
from .checkpoint.find import Weights, find_gguf
from .errors import ConfigError, SourceError
from .options import WeightOptions

__all__ = ["CONFIG_NAME", "config_path", "is_plain_key", "read_config_dict", "read_located"]

CONFIG_NAME = "config.json"

# A config file may not decide what code runs or what the process does: these are the caller's to say.
_REFUSED_KEYS = frozenset({"trust_remote_code", "code_revision", "attn_implementation"})


def is_plain_key(key: str) -> bool:
    """Whether a file may set this key: a private one, or one that decides what code runs, is the caller's to set."""
    return key == "_name_or_path" or not (key.startswith("_") or key in _REFUSED_KEYS)


def config_path(snapshot: Snapshot) -> Path:
    """Where the snapshot's config is.

    Raises:
        SourceError: there is none; lists what is there.
    """
    only = getattr(snapshot, "only", None)
    if only is not None and only.endswith(".json") and ".index." not in only:
        return snapshot.path(only)
    names, folder = snapshot.names(), snapshot.folder
    if CONFIG_NAME not in names and (folder is None or not (folder / CONFIG_NAME).exists()):
        shown = ", ".join(names[:12]) or "nothing"
        raise SourceError(
            f"no {CONFIG_NAME} beside the weights of {snapshot.name}; there is: {shown}. Pass config=…",
            path=snapshot.name,
        )
    path = snapshot.path(CONFIG_NAME)
    return safe_join(folder, CONFIG_NAME) if folder is not None and path == folder / CONFIG_NAME else path


def read_config_dict(snapshot: Snapshot, options: WeightOptions | None = None) -> dict[str, Any]:
    """The content of the snapshot's config.json, or what stands for it where the weights are a GGUF.

    Raises:
        SourceError: there is none; lists what is there.
        ConfigError: it is not a JSON object, or something else altogether.
    """
    return read_located(snapshot, find_gguf(snapshot, options or WeightOptions()))[0]


def read_located(snapshot: Snapshot, gguf: Weights | None) -> tuple[dict[str, Any], Path]:
    """(the same, the file that it is from). `gguf`: the snapshot's weights, if they are one.

    A config.json beside a GGUF is not read: the file says it itself, and the other is often but a stub.
    """
    if gguf is None:
        path = config_path(snapshot)
        return read_json(path, error=ConfigError), path
    from .checkpoint.formats.gguf_config import config_of

    return config_of(gguf.containers.values()), next(iter(gguf.containers))
