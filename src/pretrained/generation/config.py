"""GenerationConfig: the generation settings that a checkpoint brings along, kept as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._types import PathLike, Snapshot
from ..checkpoint.files import read_json, safe_join
from ..checkpoint.find import settle
from ..configuration_fields import from_json_value, to_json_value
from ..errors import ConfigError, SourceError
from ..hub.push import PushToHubMixin
from ..hub.ref import resolve
from ..hub.upload import Upload
from ..options import split_source_options
from ..saving_texts import save_texts

__all__ = ["GENERATION_CONFIG_NAME", "GenerationConfig", "read_generation_config"]

GENERATION_CONFIG_NAME = "generation_config.json"


class GenerationConfig(PushToHubMixin):
    """Settings of generation as attributes; what is given or read is kept and written back.

    Args:
        kwargs: settings by name.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            if callable(getattr(type(self), name, None)) or name.startswith("__"):
                raise ConfigError(f"generation setting {name!r} would replace the method of that name", key=name)
            self.__dict__[name] = value

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **kwargs: Any) -> GenerationConfig:
        """The settings of a generation_config.json; keywords override."""
        return cls(**{name: from_json_value(value) for name, value in values.items()} | kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name: PathLike, **kwargs: Any) -> GenerationConfig:
        """The settings of a folder or hub repository.

        Raises:
            SourceError: there is no generation_config.json. ConfigError: it is damaged.
        """
        source, rest = split_source_options(kwargs)
        snapshot = settle(resolve(pretrained_model_name, source))
        config = read_generation_config(snapshot)
        if config is None:
            raise SourceError(f"no {GENERATION_CONFIG_NAME} in {snapshot.name}", path=snapshot.name)
        return cls(**vars(config) | rest)

    def to_dict(self) -> dict[str, Any]:
        """Every setting, JSON-ready."""
        return {name: to_json_value(value) for name, value in self.__dict__.items()}

    def to_json_string(self) -> str:
        """The text of generation_config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: PathLike, **kwargs: Any) -> None:
        """Writes generation_config.json into the folder, all or nothing; with `push_to_hub=True` pushes it too."""
        save_texts(self, save_directory, {GENERATION_CONFIG_NAME: self.to_json_string()}, kwargs)

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        upload.add_texts({GENERATION_CONFIG_NAME: self.to_json_string()})

    def _save_to(self, folder: Path, saved: dict[str, Any]) -> None:
        self.save_pretrained(folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"GenerationConfig {self.to_json_string()}"


def read_generation_config(snapshot: Snapshot) -> GenerationConfig | None:
    """The snapshot's generation settings; None if it has none. Raises ConfigError when the file is damaged."""
    if GENERATION_CONFIG_NAME not in snapshot.names():
        return None
    path: Path = snapshot.path(GENERATION_CONFIG_NAME)
    if snapshot.folder is not None and path == snapshot.folder / GENERATION_CONFIG_NAME:
        path = safe_join(snapshot.folder, GENERATION_CONFIG_NAME)
    return GenerationConfig.from_dict(read_json(path, error=ConfigError))
