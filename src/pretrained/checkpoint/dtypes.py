"""Which dtype each parameter gets: decided per parameter, before anything is read, without any global default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, InvalidOptionError
from .tensors import BITS, Entry

__all__ = ["DtypePolicy", "can_hold", "can_overflow", "dtype_name", "is_complex", "is_floating", "known_dtype"]

_FLOATING = frozenset(name for name in BITS if "float" in name)

# Largest finite value of each floating dtype; a cast into a smaller range can overflow to infinity.
_MAX: Mapping[str, float] = {
    "float8_e5m2": 57344.0,
    "float8_e4m3fn": 448.0,
    "float16": 65504.0,
    "bfloat16": 3.3895e38,
    "float32": 3.4028e38,
    "float64": 1.7976e308,
}


def is_floating(dtype: str) -> bool:
    """Whether the dtype holds real numbers with an exponent."""
    return dtype in _FLOATING


def is_complex(dtype: str) -> bool:
    """Whether the dtype holds complex numbers."""
    return dtype.startswith("complex")


def can_overflow(source: str, target: str) -> bool:
    """Whether a finite value of `source` can become infinite in `target`."""
    return _MAX.get(source, 0.0) > _MAX.get(target, 0.0) > 0.0


def dtype_name(dtype: Any, key: str = "dtype") -> str:
    """The plain name of a dtype given as a name, torch.float16, jnp.float16 or numpy's.

    Raises:
        InvalidOptionError: no such dtype.
    """
    name = known_dtype(dtype)
    if name is None:
        raise InvalidOptionError(f"{key}={dtype!r:.80} is no dtype; one of: {', '.join(sorted(_FLOATING))}", key=key)
    return name


def can_hold(target: str, source: str) -> bool:
    """Whether every value of the integer or boolean dtype `source` is one of `target`."""
    (low, high), (least, most) = _extremes(source), _extremes(target)
    return least <= low and high <= most


def _extremes(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    bits = BITS[dtype]
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def known_dtype(dtype: Any) -> str | None:
    """The same as `dtype_name`; None where there is no such dtype."""
    name = dtype if isinstance(dtype, str) else str(getattr(dtype, "__name__", None) or getattr(dtype, "name", dtype))
    name = name.removeprefix("torch.")
    name = {"half": "float16", "float": "float32", "double": "float64"}.get(name, name)
    return name if name in BITS else None


def _floating_name(dtype: Any, key: str = "dtype") -> str:
    name = dtype_name(dtype, key)
    if name not in _FLOATING:
        raise InvalidOptionError(f"{key}={name}: a model's dtype must be a floating one", key=key)
    return name


@dataclass(frozen=True)
class DtypePolicy:
    """The dtype of every floating parameter. Integers and booleans keep theirs: they are indices, not weights.

    Attributes:
        default: dtype of what nothing else names.
        overrides: (module or parameter name, dtype), the longest name first; `""` stands for the whole model.
        keep_fp32: parts of dotted names whose parameters stay in float32 when `default` is float16.
    """

    default: str
    overrides: tuple[tuple[str, str], ...] = ()
    keep_fp32: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, request: Any, config_dtype: Any, entries: Iterable[Entry], keep_fp32: Iterable[str] = ()
    ) -> DtypePolicy:
        """The policy for what the caller asked: a dtype, "auto" or None, or a dict of module name → dtype."""
        overrides: dict[str, str] = {}
        if isinstance(request, Mapping):
            if wrong := [name for name in request if not isinstance(name, str)]:
                raise InvalidOptionError(f"dtype: {wrong[0]!r:.80} is no module's name", key="dtype")
            overrides = {name: _floating_name(value, f"dtype[{name!r}]") for name, value in request.items()}
            request = overrides.pop("", None)
        if request is None or request == "auto":
            default = _own_dtype(config_dtype, entries)
        else:
            default = _floating_name(request)
        ordered = sorted(overrides.items(), key=lambda item: -len(item[0]))
        # bfloat16 has float32's range: what overflows in float16 does not overflow there.
        kept = frozenset(keep_fp32) if default == "float16" else frozenset()
        return cls(default, tuple(ordered), kept)

    @property
    def is_uniform(self) -> bool:
        """Whether every floating parameter gets `default`."""
        return not self.overrides and not self.keep_fp32

    def check_names(self, names: Iterable[str]) -> None:
        """Raises InvalidOptionError if an override is for a module or parameter that is not among those of `names`."""
        if not self.overrides:
            return
        known = list(names)
        for module, _ in self.overrides:
            if not any(name == module or name.startswith(module + ".") for name in known):
                raise InvalidOptionError(f"dtype: the model has no module or parameter {module!r:.200}", key="dtype")

    def dtype_of(self, name: str) -> str:
        """The dtype of the floating parameter `name`."""
        for module, dtype in self.overrides:
            if name == module or name.startswith(module + "."):
                return dtype
        if self.keep_fp32 and not self.keep_fp32.isdisjoint(name.split(".")):
            return "float32"
        return self.default


def _own_dtype(config_dtype: Any, entries: Iterable[Entry]) -> str:
    # A dict says one for each part of a composite model; the parts know their own.
    if config_dtype is not None and config_dtype != "auto" and not isinstance(config_dtype, Mapping):
        name = known_dtype(config_dtype)
        if name not in _FLOATING:
            raise ConfigError(f"config key 'dtype' is {config_dtype!r:.80}, which is no floating dtype", key="dtype")
        return str(name)
    return next((entry.dtype for entry in entries if entry.dtype in _FLOATING), "float32")
