"""What a GGUF file says of its model, with a check for each kind of value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..files import place
from .gguf import GgufFile
from .gguf_header import Skipped
from .gguf_names import ARCHITECTURES

__all__ = ["MAX_FACTORS", "Facts"]

MAX_FACTORS = 4096
_IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


class Facts:
    """The metadata of a model, with a check for each kind of value."""

    def __init__(self, parts: Sequence[GgufFile]) -> None:
        self.parts = parts
        self.file: Path = parts[0].path
        self.fields: Mapping[str, Any] = parts[0].fields
        self.shapes = {name: entry.shape for part in parts for name, entry in part.entries.items()}
        self.architecture: str = self.fields.get("general.architecture")  # type: ignore[assignment]
        if not isinstance(self.architecture, str) or self.architecture not in ARCHITECTURES:
            found = "is missing" if self.architecture is None else f"is {self.architecture!r:.80}"
            raise self.error("general.architecture", f"{found}; known: {', '.join(ARCHITECTURES)}. Or pass config=…")

    def error(self, key: str, reason: str) -> ConfigError:
        """The error to raise for a key of the metadata, or a tensor that is one in all but name."""
        return ConfigError(f"{place(self.file)}: {key} {reason}", path=self.file, key=key, reason=f"{key} {reason}")

    def full(self, key: str) -> str:
        """The key with the architecture before it, as the file has it."""
        return f"{self.architecture}.{key}"

    def get(self, key: str) -> Any:
        """The value that the architecture has under this key; None if it has none."""
        return self.fields.get(self.full(key))

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(self.full(key), "is missing")
        if type(value) is not int or value < 1:
            raise self.error(self.full(key), f"should be a positive whole number, and is {value!r:.80}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(self.full(key), "is missing")
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(self.full(key), f"should be a positive number, and is {value!r:.80}")
        return float(value)

    def vocab_size(self) -> int:
        """Rows of the embeddings: what is said, else the tokens that are listed, else the rows there are."""
        tokens = self.fields.get("tokenizer.ggml.tokens")
        listed = tokens.num if isinstance(tokens, Skipped) and tokens.what == "strings" else 0
        rows = self.shapes.get("token_embd.weight") or (None,)
        return self.count("vocab_size", listed or rows[0])

    def token_ids(self) -> dict[str, int]:
        """The ids of special tokens that are known."""
        found = {}
        for name, short in _IDS.items():
            key = f"tokenizer.ggml.{short}_token_id"
            value = self.fields.get(key)
            if value is None or value == 2**32 - 1:  # llama.cpp's way to say that there is none
                continue
            if type(value) is not int or value < 0:
                raise self.error(key, f"should be the number of a token, and is {value!r:.80}")
            found[name] = value
        return found

    def table(self, name: str, size: int) -> list[float]:
        """The positive numbers `(size,)` of a tensor."""
        part, entry = next((part, part.entries[name]) for part in self.parts if name in part.entries)
        if entry.shape != (size,) or size > MAX_FACTORS:
            raise self.error(name, f"has the shape {list(entry.shape)}, where {size} are expected")
        values = [float(value) for value in part.read(entry)]
        if not all(0 < value < math.inf for value in values):
            raise self.error(name, "holds a factor that is not positive")
        return values
