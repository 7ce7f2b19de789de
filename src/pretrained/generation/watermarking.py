"""What a watermark is made of; the processors of each framework apply it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError

__all__ = ["WATERMARKS", "SynthIDTextWatermarkingConfig", "WatermarkingConfig", "as_watermark"]

MAX_TABLE = 2**24  # numbers in the table that SynthID draws from


class _Watermark:
    """What both kinds do alike."""

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """A watermark of the values of a file; keywords override.

        Raises:
            ConfigError: a value that there is not, that is missing, or that is out of range.
        """
        values = {**config_dict, **kwargs}
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):  # type: ignore[arg-type]
            raise _refused(unknown[0], f"is nothing that a {cls.__name__} has")
        try:
            made = cls(**values)
        except TypeError as error:
            raise _refused("keys", str(error)) from None
        made.validate()
        return made

    def to_dict(self) -> dict[str, Any]:
        """The values, JSON-ready."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def validate(self) -> None:
        """Raises ConfigError, naming the key, where a value is out of range."""


@dataclass
class WatermarkingConfig(_Watermark):
    """Tokens that the last ones choose become likelier (Kirchenbauer et al., arXiv 2306.04634 and 2301.10226).

    Args:
        greenlist_ratio: share of the vocabulary that is favoured, 0 to 1.
        bias: added to the favoured tokens' logits.
        hashing_key: multiplies the token that seeds the choice.
        seeding_scheme: "lefthash": the tokens before choose; "selfhash": those and the next one itself.
        context_width: how many tokens before count in "selfhash", 1 or more.
    """

    greenlist_ratio: float = 0.25
    bias: float = 2.0
    hashing_key: int = 15485863
    seeding_scheme: str = "lefthash"
    context_width: int = 1

    def validate(self) -> None:
        """Raises ConfigError, naming the key, where a value is out of range."""
        if self.seeding_scheme not in ("lefthash", "selfhash"):
            raise _refused("seeding_scheme", f"must be 'lefthash' or 'selfhash', found {self.seeding_scheme!r:.60}")
        if not (_is_number(self.greenlist_ratio) and 0 <= self.greenlist_ratio <= 1):
            raise _refused("greenlist_ratio", f"must be from 0 to 1, found {self.greenlist_ratio!r:.60}")
        if not (_is_number(self.context_width, int) and self.context_width >= 1):
            raise _refused("context_width", f"must be 1 or more, found {self.context_width!r:.60}")
        if not _is_number(self.bias):
            raise _refused("bias", f"must be a number, found {self.bias!r:.60}")
        if not _is_number(self.hashing_key, int):
            raise _refused("hashing_key", f"must be int, found {self.hashing_key!r:.60}")


@dataclass
class SynthIDTextWatermarkingConfig(_Watermark):
    """A tournament among tokens, one round for each key (Dathathri et al., Nature 634, 2024).

    Args:
        ngram_len: tokens that decide together, the next one included.
        keys: one number for each round.
        context_history_size: contexts remembered, so that none is marked twice.
        sampling_table_seed: of the table of bits that the rounds look into.
        sampling_table_size: bits of it.
        skip_first_ngram_calls: whether the first `ngram_len - 1` tokens stay unmarked.
        debug_mode: whether tokens are drawn evenly before they are marked.
    """

    ngram_len: int
    keys: list[int]
    context_history_size: int = 1024
    sampling_table_seed: int = 0
    sampling_table_size: int = 2**16
    skip_first_ngram_calls: bool = False
    debug_mode: bool = False

    def validate(self) -> None:
        """Raises ConfigError, naming the key, where a value is out of range."""
        for name in ("ngram_len", "context_history_size", "sampling_table_size"):
            if not (_is_number(value := getattr(self, name), int) and value >= 1):
                raise _refused(name, f"must be 1 or more, found {value!r:.60}")
        if self.sampling_table_size > MAX_TABLE:
            raise _refused("sampling_table_size", f"must be at most {MAX_TABLE}, found {self.sampling_table_size}")
        if not (isinstance(self.keys, list) and self.keys and all(_is_number(key, int) for key in self.keys)):
            raise _refused("keys", f"must be a list of integers, found {self.keys!r:.60}")


WATERMARKS = (WatermarkingConfig, SynthIDTextWatermarkingConfig)


def as_watermark(value: Any) -> WatermarkingConfig | SynthIDTextWatermarkingConfig:
    """A watermark, or the values of one, as a watermark whose values are in range.

    Raises:
        ConfigError: it is neither, or a value is out of range.
    """
    if isinstance(value, WATERMARKS):
        value.validate()
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"watermarking_config must be a WatermarkingConfig or a dict, found {type(value).__name__}",
            key="watermarking_config",
        )
    kind = SynthIDTextWatermarkingConfig if "ngram_len" in value else WatermarkingConfig
    made: WatermarkingConfig | SynthIDTextWatermarkingConfig = kind.from_dict(value)
    return made


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _refused(key: str, complaint: str) -> ConfigError:
    return ConfigError(f"watermarking_config: {key!r} {complaint}", key="watermarking_config")
