"""Every keyword of from_pretrained and save_pretrained, once: its name, its default, and what became of it.

A keyword dies at its stage: `SourceOptions` in resolve, `WeightOptions` in find_checkpoint, the rest in the plan.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InvalidOptionError, OptionError
from .source_options import SourceOptions, check_choice

__all__ = [
    "LoadOptions",
    "PlacementOptions",
    "SaveOptions",
    "SourceOptions",
    "WeightOptions",
    "parse_size",
    "split_load_options",
    "split_source_options",
    "unknown_keyword",
]


@dataclass(frozen=True)
class WeightOptions:
    """Which of the weight files of a snapshot. Consumed by `checkpoint.find`."""

    use_safetensors: bool | None = None
    variant: str | None = None
    gguf_file: str | None = None
    prefer: str | None = None  # "tf" or "flax": whose format to read where there are several

    def __post_init__(self) -> None:
        if self.gguf_file is not None and (self.variant is not None or self.use_safetensors):
            other = "variant" if self.variant is not None else "use_safetensors"
            raise OptionError(f"gguf_file= names the weights, and {other}= asks for others", key="gguf_file")


@dataclass(frozen=True)
class PlacementOptions:
    """Which part of the model goes to which device. Consumed by the plan, which stamps a device on each parameter.

    Attributes:
        device_map: None for no placement; a device; "auto" and its like; or module → device.
        max_memory: device → bytes that the model may take there. A device that is not named is not used.
        offload_folder: where tensors are written that are to lie on disk and do not lie there as the model wants them.
        offload_buffers: whether the buffers of an offloaded module stay away too while it does not run.
    """

    device_map: Any = None
    max_memory: Mapping[Any, int] | None = None
    offload_folder: Any = None
    offload_buffers: bool = False

    def __post_init__(self) -> None:
        if self.max_memory is not None and self.device_map is None:
            raise OptionError("max_memory= says how much; device_map='auto' has to say what", key="max_memory")


@dataclass(frozen=True)
class LoadOptions:
    """Everything from_pretrained takes beside the model's own arguments."""

    source: SourceOptions = field(default_factory=SourceOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)
    placement: PlacementOptions = field(default_factory=PlacementOptions)
    config: Any = None
    state_dict: Mapping[str, Any] | None = None
    dtype: Any = None
    ignore_mismatched_sizes: bool = False
    output_loading_info: bool = False
    strict: bool = False
    key_mapping: Mapping[str, str] | None = None
    only: Any = None
    attn_implementation: str | None = None
    mmap: bool = True
    generation_config: Any = None
    trust_remote_code: bool = False
    code_revision: str | None = None
    adapter_base: Any = None
    trust_adapter_base: bool = False
    adapter_kwargs: Mapping[str, Any] | None = None
    quantization_config: Any = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False


@dataclass(frozen=True)
class SaveOptions:
    """Everything save_pretrained takes beside the folder."""

    is_main_process: bool = True
    state_dict: Mapping[str, Any] | None = None
    max_shard_size: int | str = "5GB"
    variant: str | None = None
    durable: bool = True
    form: str = "safetensors"  # or "torch", "msgpack": a key of the table of formats
    blocking: bool = True
    save_peft_format: bool = True


# Other spellings that keep working without a word.
_ALIASES = {"torch_dtype": "dtype"}

# Names of frameworks whose files are meant where a folder holds several; the format itself is always recognised.
_PREFER = {"from_tf": "tf", "from_flax": "flax"}

# Accepted for old callers; the second part says why nothing has to be done, or what to use instead.
# A load holds nothing twice and never all of a state dict, so the two about memory have nothing to switch on.
_NOT_NEEDED = frozenset({"from_pt", "low_cpu_mem_usage", "offload_state_dict", "_fast_init", "mean_resizing"})
_DEPRECATED = {
    "resume_download": "downloads are always resumed",
    "proxies": "set HTTP_PROXY and HTTPS_PROXY; proxies= goes for the bytes of weights alone",
    "mirror": "use endpoint=",
    "use_auth_token": "use token=",
}
# Known names that are only accepted with the value that means "off", until the feature is here.
_OFF_VALUES: dict[str, tuple[Any, ...]] = {
    "device_mesh": (None,),
    "tp_plan": (None,),
    "distributed_config": (None,),
}
# Older spellings of an option that still work, and what to write now.
_OLD_FLAGS = {
    "load_in_8bit": "quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
    "load_in_4bit": "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
}

_SOURCE_NAMES = frozenset(f.name for f in fields(SourceOptions))
_WEIGHT_NAMES = frozenset(f.name for f in fields(WeightOptions)) - {"prefer"}
_PLACEMENT_NAMES = frozenset(f.name for f in fields(PlacementOptions))
_LOAD_NAMES = frozenset(f.name for f in fields(LoadOptions)) - {"source", "weights", "placement"}
_OUR_NAMES = _SOURCE_NAMES | _WEIGHT_NAMES | _PLACEMENT_NAMES | _LOAD_NAMES
_FLAGS = frozenset(
    {
        "force_download",
        "local_files_only",
        "ignore_mismatched_sizes",
        "output_loading_info",
        "strict",
        "mmap",
        "trust_remote_code",
        "trust_adapter_base",
        "offload_buffers",
        *_OLD_FLAGS,
    }
)
_STRINGS = frozenset(
    {"subfolder", "revision", "variant", "gguf_file", "endpoint", "attn_implementation", "code_revision"}
)
# What a call that reads no weights may be given as well, since callers pass one set of keywords to both.
_CODE_NAMES = frozenset({"trust_remote_code", "code_revision"})
_NO_WEIGHTS = frozenset(_DEPRECATED) | _CODE_NAMES

LOAD_KEYWORDS = frozenset().union(_OUR_NAMES, _ALIASES, _PREFER, _NOT_NEEDED, _DEPRECATED, _OFF_VALUES)


def split_load_options(keywords: Mapping[str, Any], *, can_quantize: bool = True) -> tuple[LoadOptions, dict[str, Any]]:
    """(options, keywords that are not options: config fields or constructor arguments, or mistakes).

    With `can_quantize=False` those of quantization are refused, for what builds or fills a model as it is.

    Raises:
        OptionError: two spellings of one option, or options that exclude each other.
        InvalidOptionError: a value outside the option's range.
    """
    known, rest = _take_known(keywords)
    options = LoadOptions(
        source=SourceOptions(**{k: v for k, v in known.items() if k in _SOURCE_NAMES}),
        weights=WeightOptions(**{k: v for k, v in known.items() if k in _WEIGHT_NAMES or k == "prefer"}),
        placement=PlacementOptions(**{k: v for k, v in known.items() if k in _PLACEMENT_NAMES}),
        **{k: v for k, v in known.items() if k in _LOAD_NAMES},
    )
    asked = [name for name in ("quantization_config", *_OLD_FLAGS) if known.get(name)]
    if asked and not can_quantize:
        raise OptionError(
            f"{asked[0]}= is an option of from_pretrained: weights are quantized as they are read", key=asked[0]
        )
    if options.key_mapping is not None:
        _check_patterns(options.key_mapping)
    return options, rest


def split_source_options(keywords: Mapping[str, Any]) -> tuple[SourceOptions, dict[str, Any]]:
    """(source options, everything else): for calls that read no weights."""
    names = _SOURCE_NAMES | _NO_WEIGHTS
    known, _ = _take_known({k: v for k, v in keywords.items() if k in names})
    source = {k: v for k, v in known.items() if k not in _CODE_NAMES}
    return SourceOptions(**source), {k: v for k, v in keywords.items() if k not in names}


def _take_known(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    known: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in keywords.items():
        target = _ALIASES.get(name, name)
        if name in _DEPRECATED:
            _warn_deprecated(name, value, known)
        elif name in _OFF_VALUES:
            _check_off(name, value)
        elif name in _PREFER:
            if value:
                _note(known, name, "prefer", _PREFER[name])
        elif target in _OUR_NAMES:
            if name in _OLD_FLAGS and value is True:
                _warn_old_flag(name)
            _note(known, name, target, _clean(target, value))
        elif name not in _NOT_NEEDED:
            rest[name] = value
    return known, rest


def _note(known: dict[str, Any], name: str, target: str, value: Any) -> None:
    """Notes an option under its present name; None says nothing beside another spelling that says something."""
    given = known.get(target)
    if given is None:
        known[target] = value
    elif value is not None and given != value:
        raise OptionError(f"{name!r} and another spelling of {target!r} were given two values", key=target)


def _clean(name: str, value: Any) -> Any:
    """The value of an option, of the type the rest of the code counts on."""
    if name in _FLAGS and value is None:
        return name == "mmap"
    if name in _FLAGS and not isinstance(value, bool):
        raise InvalidOptionError(f"{name} is True or False, not {value!r:.60}", key=name)
    if name == "use_safetensors" and not (value is None or isinstance(value, bool)):
        raise InvalidOptionError(f"{name} is None, True or False, not {value!r:.60}", key=name)
    if name == "subfolder":
        value = "" if value is None else os.fspath(value) if isinstance(value, os.PathLike) else value
    if name in _STRINGS and not (value is None or isinstance(value, str)):
        raise InvalidOptionError(f"{name} is a string, not a {type(value).__name__}", key=name)
    if name == "state_dict" and not (value is None or isinstance(value, Mapping)):
        raise InvalidOptionError(f"state_dict is a dict of name → tensor, not a {type(value).__name__}", key=name)
    if name == "offload_folder" and not (value is None or isinstance(value, (str, os.PathLike))):
        raise InvalidOptionError(f"{name} is a path, not a {type(value).__name__}", key=name)
    if name == "adapter_kwargs" and value is not None:
        return _adapter_place(value)
    if name == "only" and value is not None:
        return _patterns(value)
    if name in _SOURCE_NAMES:
        return check_choice(name, value)
    return _memory_limits(value) if name == "max_memory" and value is not None else value


def _patterns(given: Any) -> tuple[str, ...]:
    """`only` as a tuple; one string is one pattern."""
    patterns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple, set)) else ()
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise InvalidOptionError(
            f"only is a pattern such as 'encoder.layer.0.*', or a list of them, not {given!r:.60}", key="only"
        )
    return patterns


def _memory_limits(given: Any) -> dict[Any, int]:
    """`max_memory` with bytes for sizes. 0 is a size here: nothing goes there."""
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise InvalidOptionError(f"max_memory is a dict of device → size, not a {kind}", key="max_memory")
    limits = {}
    for device, size in given.items():
        is_nothing = (type(size) is int and size == 0) or (isinstance(size, str) and _NOTHING.fullmatch(size))
        try:
            limits[device] = 0 if is_nothing else parse_size(size)
        except InvalidOptionError as error:
            raise InvalidOptionError(f"max_memory[{device!r:.40}]: {error.reason}", key="max_memory") from None
    return limits


def _adapter_place(given: Any) -> dict[str, Any]:
    """Where an adapter is, as far as that is not where the model is; checked like the options of the same names."""
    if not isinstance(given, Mapping):
        raise InvalidOptionError(f"adapter_kwargs is a dict, not a {type(given).__name__}", key="adapter_kwargs")
    if unknown := sorted(set(map(str, given)) - _SOURCE_NAMES):
        raise OptionError(
            f"adapter_kwargs has no {unknown[0]!r:.80}; it says where the adapter is, by "
            f"{', '.join(sorted(_SOURCE_NAMES))}",
            key="adapter_kwargs",
        )
    return {name: _clean(name, value) for name, value in given.items()}


def _warn_deprecated(name: str, value: Any, known: dict[str, Any]) -> None:
    if value is None:
        return
    warnings.warn(f"{name}= is deprecated: {_DEPRECATED[name]}", DeprecationWarning, stacklevel=_caller_level())
    if (target := {"use_auth_token": "token", "mirror": "endpoint", "proxies": "proxies"}.get(name)) is not None:
        _note(known, name, target, _clean(target, value))


def _warn_old_flag(name: str) -> None:
    message = f"{name}=True is deprecated: use {_OLD_FLAGS[name]}"
    warnings.warn(message, DeprecationWarning, stacklevel=_caller_level())


def _caller_level() -> int:
    """The stacklevel, for warnings.warn in the function that asks, of the line outside this package that called it."""
    package, frame, level = f"{__package__}.", sys._getframe(2), 2
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(package):
        frame, level = frame.f_back, level + 1
    return level


def _check_off(name: str, value: Any) -> None:
    if any(value is off or (isinstance(off, str) and value == off) for off in _OFF_VALUES[name]):
        return
    allowed = " or ".join(repr(off) for off in _OFF_VALUES[name])
    raise InvalidOptionError(
        f"{name}={value!r:.60} is not supported by this version; leave it out or pass {allowed}", key=name
    )


def _check_patterns(key_mapping: Mapping[str, str]) -> None:
    if not isinstance(key_mapping, Mapping):
        raise InvalidOptionError(
            f"key_mapping is a dict of pattern → replacement, not a {type(key_mapping).__name__}", key="key_mapping"
        )
    for pattern, replacement in key_mapping.items():
        try:
            compiled = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise _bad_pattern(f"{pattern!r:.200} is no regular expression: {error}") from None
        try:
            compiled.sub(replacement, "")  # a group that is not there shows at once
        except (re.error, TypeError, IndexError) as error:
            raise _bad_pattern(f"{replacement!r:.200} is no replacement for {pattern!r:.200}: {error}") from None


def _bad_pattern(reason: str) -> InvalidOptionError:
    return InvalidOptionError(f"key_mapping: {reason}", key="key_mapping")


def unknown_keyword(name: str, others: Iterable[str] = ()) -> OptionError:
    """The error for a keyword nobody knows, with the nearest name somebody does."""
    known = sorted(LOAD_KEYWORDS.union(others))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return OptionError(f"no option {name!r}{hint}", key=name)


_NOTHING = re.compile(r"\s*0+(?:\.0+)?\s*[A-Za-z]{0,3}\s*")
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def parse_size(size: int | str) -> int:
    """Bytes of a size: a number of bytes, or "500MB" (decimal), "2GiB" (binary).

    Raises:
        InvalidOptionError: not a size, or not positive.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        found = size
    else:
        match = (
            re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})\s*", size) if isinstance(size, str) else None
        )
        if match is None or match[2].upper() not in _UNITS:
            raise InvalidOptionError(
                f"{size!r} is no size; give bytes, or a string such as '500MB', '5GB' or '2GiB'", key="max_shard_size"
            )
        found = int(float(match[1]) * _UNITS[match[2].upper()])
    if found <= 0:
        raise InvalidOptionError(f"a size must be positive, found {size!r}", key="max_shard_size")
    return found
