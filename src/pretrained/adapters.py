"""Adapters at rest: the folder of one (adapter_config.json and its tensors), and the base model that it is for.

A file decides nothing here that is the caller's to say: which other place a base model is loaded from, or what code
runs. What an adapter may ask for is a closed list; whatever is not on it is refused, not passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ._types import Snapshot
from .checkpoint.files import read_json, safe_join, safe_name
from .checkpoint.find import has_weights, settle
from .checkpoint.formats.readers import open_containers
from .checkpoint.tensors import Container
from .errors import ConfigError, InvalidOptionError, OptionError, SourceError, UntrustedPathError
from .hub.ref import resolve
from .options import LoadOptions, SourceOptions, WeightOptions

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "OUTSIDE",
    "PREFIX",
    "Adapter",
    "adapter_at",
    "adapter_of",
    "check_values",
    "is_quick",
    "with_base",
]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = {"safetensors": "adapter_model.safetensors", "torch": "adapter_model.bin"}
PREFIX = "base_model.model."  # what names at rest begin with

# Kinds of adapter that are layers put into a model, each by itself.
_METHODS = ("LORA", "IA3", "LOHA", "LOKR", "OFT", "HRA", "LN_TUNING")
_MODULE_NAMES = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules", "target_parameters")
_LISTED = ("modules_to_save", "target_parameters")  # these may not be a pattern
# What reaches for other files or modules, or needs peft's own loader.
OUTSIDE = frozenset(
    {
        "megatron_config", "loftq_config", "corda_config", "eva_config", "lora_ga_config", "arrow_config",
        "kasa_config", "monteclora_config", "velora_config", "use_bdlora", "layer_replication",
        "alora_invocation_tokens", "trainable_token_indices",
    }
)  # fmt: skip
_PATTERNS = ("rank_pattern", "alpha_pattern")
_RANKS = ("r", "oft_block_size")
_NOTES = frozenset({"auto_mapping", "peft_version"})  # what they say is of no use here
_INITS = re.compile(r"gaussian|orthogonal|eva|olora|pissa(?:_niter_\d{1,3})?")
_MAX_RANK = 1 << 16
_MAX_NAMES = 10_000
_MAX_NAME = 1024  # characters
_MAX_REPEATS = 4  # of one pattern: what they cost multiplies
_MAX_NUMBER = 1 << 31


@dataclass(frozen=True)
class Adapter:
    """An adapter whose config is checked and whose tensors are not read yet.

    Attributes:
        config: the content of adapter_config.json.
        path: where that is.
        weights: its tensors.
    """

    config: Mapping[str, Any]
    path: Path
    weights: Container


def with_base(snapshot: Snapshot | None, options: LoadOptions) -> tuple[Snapshot | None, Adapter | None]:
    """(snapshot of the model, adapter to put on it). Where there is no adapter, the snapshot as it was.

    Raises:
        UntrustedPathError: the adapter names a base model outside of its folder, and the caller did not agree.
        SourceError, OptionError: an adapter was asked for, and there is none. ConfigError: its config is damaged.
    """
    place = snapshot
    if options.adapter_kwargs and snapshot is not None:
        place = settle(resolve(snapshot.name, replace(options.source, **options.adapter_kwargs)))
    if snapshot is None or place is None or not _is_adapter(place):
        _require_none_asked(place, options)
        return snapshot, None
    adapter = adapter_at(place, options.weights)
    if options.adapter_base is not None:
        base = settle(resolve(options.adapter_base, replace(options.source, subfolder="", revision=None)))
    elif options.state_dict is not None or has_weights(snapshot, options.weights):
        return snapshot, adapter
    else:
        base = _named_base(adapter, place, options)
    if _is_adapter(base):
        raise InvalidOptionError(
            f"{base.name}, the base of the adapter {place.name}, has an adapter itself; load that one first, then add "
            "this one with load_adapter",
            key="adapter_base",
            path=base.name,
        )
    return base, adapter


def _is_adapter(snapshot: Snapshot) -> bool:
    return getattr(snapshot, "only", None) is None and ADAPTER_CONFIG in snapshot.names()


def _require_none_asked(place: Snapshot | None, options: LoadOptions) -> None:
    """Complains of options about an adapter where there is none."""
    if options.adapter_base is not None or options.adapter_kwargs:
        key = "adapter_base" if options.adapter_base is not None else "adapter_kwargs"
        name = "no folder" if place is None else place.name
        raise SourceError(f"{key}= was given, and there is no {ADAPTER_CONFIG} in {name}", key=key, path=name)


def _named_base(adapter: Adapter, place: Snapshot, options: LoadOptions) -> Snapshot:
    """The base model that the adapter's config names: inside of its own place, or wherever the caller lets it be."""
    name = adapter.config.get("base_model_name_or_path")
    if not name:
        raise ConfigError(
            f"{adapter.path}: base_model_name_or_path is missing, so the base model is not known; pass adapter_base=…",
            path=adapter.path,
            key="base_model_name_or_path",
        )
    source = options.source
    inside = _inside(name, place, source)
    if inside is not None:
        return settle(inside)
    if not options.trust_adapter_base:
        raise UntrustedPathError(
            f"{adapter.path}: the adapter is for the base model {name!r:.300}, which is outside of its own place. To "
            "load that, pass trust_adapter_base=True; to load another, adapter_base=…; or load the base model yourself "
            "and call its load_adapter",
            path=adapter.path,
            key="base_model_name_or_path",
            reason=f"the base model {name!r:.300} is outside of the adapter's own place",
        )
    beside = None if place.folder is None else place.folder / name
    found = beside if beside is not None and beside.is_dir() else name
    return settle(resolve(found, replace(source, subfolder="", revision=adapter.config.get("revision"))))


def _inside(name: str, place: Snapshot, source: SourceOptions) -> Snapshot | None:
    """The folder of that name inside the adapter's folder or repository, or the repository itself; None if neither."""
    if place.commit is not None and name == place.name and source.subfolder:
        return resolve(name, replace(source, subfolder="", revision=place.commit))
    try:
        safe_name(name)
        folder = None if place.folder is None else safe_join(place.folder, name)
    except UntrustedPathError:
        return None
    if folder is not None:
        return resolve(folder, SourceOptions()) if folder.is_dir() else None
    if any(other.startswith(f"{name}/") for other in place.names()):
        below = f"{source.subfolder}/{name}" if source.subfolder else name
        return resolve(place.name, replace(source, subfolder=below, revision=place.commit))
    return None


def adapter_at(place: Snapshot, options: WeightOptions) -> Adapter:
    """The adapter of a folder or repository; of its tensors the headers are read.

    Raises:
        SourceError: there is none. ConfigError: its config is damaged, or asks for what is not allowed.
        WeightsFormatError: its tensors are.
    """
    names = place.names()
    if ADAPTER_CONFIG not in names:
        raise SourceError(
            f"no {ADAPTER_CONFIG} in {place.name}; there is: {', '.join(names[:12]) or 'nothing'}", path=place.name
        )
    path = _file(place, ADAPTER_CONFIG)
    values = read_json(path, error=ConfigError)
    check_values(values, path)
    forms = [
        form
        for form in ADAPTER_WEIGHTS
        if options.use_safetensors is None or (form == "safetensors") == options.use_safetensors
    ]
    wanted = [ADAPTER_WEIGHTS[form] for form in forms]
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise SourceError(
            f"{place.name} has {ADAPTER_CONFIG}, and no {' or '.join(wanted)}; there is: {', '.join(names[:12])}",
            path=place.name,
        )
    return Adapter(values, path, open_containers(_file(place, found), found)[0])


def _file(place: Snapshot, name: str) -> Path:
    path = place.path(name)
    return safe_join(place.folder, name) if place.folder is not None and path == place.folder / name else path


def check_values(values: Mapping[str, Any], path: object) -> None:
    """Whether every value is of a kind that an adapter's config may hold.

    Raises:
        ConfigError: one is not; names its key. Of further keys, lists and dicts are left to the caller to judge.
    """
    method = values.get("peft_type")
    if method not in _METHODS:
        raise _refused(path, "peft_type", method, f"one of {', '.join(_METHODS)}: layers put into a model")
    for key, value in values.items():
        if value is None or key in _NOTES:
            continue
        if key in _MODULE_NAMES:
            _check_names(key, value, path)
        elif key in _PATTERNS:
            _check_patterns(key, value, path)
        elif key in _RANKS:
            lowest = 0 if method == "OFT" else 1  # of its two sizes, the one that is 0 follows from the other
            if type(value) is not int or not lowest <= value <= _MAX_RANK:
                raise _refused(path, key, value, f"an integer from {lowest} to {_MAX_RANK}")
        elif key == "init_lora_weights":
            if not (isinstance(value, bool) or (isinstance(value, str) and _INITS.fullmatch(value))):
                raise _refused(path, key, value, "True, False, gaussian, orthogonal, eva, olora or pissa")
        elif key in ("base_model_name_or_path", "revision", "task_type", "bias"):
            if not isinstance(value, str) or len(value) > 4 * _MAX_NAME:
                raise _refused(path, key, value, "a string")
        elif key in ("layers_to_transform", "layers_pattern"):
            _check_layers(key, value, path)
        else:
            _check_scalar(key, value, path)


def _check_names(key: str, value: Any, path: object) -> None:
    """Names of modules: a list, or one pattern."""
    if isinstance(value, str) and key not in _LISTED:
        if len(value) > _MAX_NAME or not is_quick(value):
            raise _refused(path, key, value, "a short pattern without nested repeats")
    elif not (isinstance(value, list) and len(value) <= _MAX_NAMES and all(_is_name(name) for name in value)):
        raise _refused(path, key, value, "a list of names" + ("" if key in _LISTED else ", or one pattern"))


def _check_patterns(key: str, value: Any, path: object) -> None:
    """Ranks or scales by pattern."""
    if not isinstance(value, dict) or len(value) > _MAX_NAMES:
        raise _refused(path, key, value, "a dict of pattern → number")
    for pattern, number in value.items():
        highest = _MAX_RANK if key == "rank_pattern" else _MAX_NUMBER
        is_number = type(number) is int or (key == "alpha_pattern" and type(number) is float)
        if len(pattern) > _MAX_NAME or not is_quick(pattern) or not is_number or not 0 < number <= highest:
            raise _refused(path, key, {pattern: number}, "a dict of short pattern → positive number")


def _check_layers(key: str, value: Any, path: object) -> None:
    kind = int if key == "layers_to_transform" else str
    listed = value if isinstance(value, list) else [value]
    if len(listed) > _MAX_NAMES or not all(type(item) is kind for item in listed):
        raise _refused(path, key, value, f"{kind.__name__} or a list of them")
    if kind is str and not all(_is_name(item) and is_quick(item) for item in listed):
        raise _refused(path, key, value, "a short pattern without nested repeats")


def _check_scalar(key: str, value: Any, path: object) -> None:
    if isinstance(value, (int, float)) and abs(value) > _MAX_NUMBER:
        raise _refused(path, key, value, f"at most {_MAX_NUMBER}")
    if isinstance(value, str) and len(value) > _MAX_NAME:
        raise _refused(path, key, value, "a short string")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME


def is_quick(pattern: str) -> bool:
    """Whether a regular expression can be matched with a module's name without taking long, whatever the name is.

    A repeat of a group can take time that doubles with each character; repeats one behind another, a power of the
    length. The former are refused; of the latter there may be four.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    plain = re.sub(r"\\.", "x", pattern, flags=re.DOTALL)  # what is escaped is one character
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)  # and so is a set of them
    if re.search(r"\)(?:[*+]|\{)", plain) or "(?P=" in plain or re.search(r"\\[1-9]", pattern):
        return False
    return _has_few_repeats(plain)


def _has_few_repeats(plain: str) -> bool:
    """Whether no alternative at the top has more repeats than there may be."""
    depth, repeats = 0, 0
    for letter in plain:
        depth += (letter == "(") - (letter == ")")
        repeats = 0 if letter == "|" and depth == 0 else repeats + (letter in "*+{")
        if repeats > _MAX_REPEATS:
            return False
    return True


def _refused(path: object, key: str, value: Any, wanted: str) -> ConfigError:
    reason = f"adapter key {key!r:.80} is {value!r:.120}; expected {wanted}"
    return ConfigError(f"{path}: {reason}", path=path, key=key, reason=reason)


def adapter_of(ref: Any, options: LoadOptions) -> Adapter:
    """The adapter at a folder or hub name, as `load_adapter` is given it.

    Raises:
        SourceError: there is none. OptionError: `ref` is no place.
    """
    if ref is None:
        raise OptionError("load_adapter needs a folder, a hub name, or adapter_state_dict= with peft_config=")
    source = replace(options.source, **(options.adapter_kwargs or {}))
    return adapter_at(settle(resolve(ref, source)), options.weights)
