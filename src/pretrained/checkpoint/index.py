"""The index of a checkpoint in several files: which tensor is in which shard."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._types import PathLike
from ..errors import InvalidOptionError, ShardIndexError
from .files import place, read_json, safe_name
from .tensors import Container

__all__ = ["MAX_INDEX", "MAX_SHARDS", "ShardIndex", "check_shards", "dump_index", "read_index", "without_model_names"]

MAX_INDEX = 100_000_000
MAX_SHARDS = 99_999  # the names of shards have five digits
MAX_VALUES = 1_100_000  # a million tensors, and what else there may be

_SUFFIXES = frozenset({"safetensors", "bin", "h5", "hdf5", "msgpack", "pt", "pth"})
# model.safetensors.index.json, and with a variant model.safetensors.index.fp16.json
_INDEX_NAME = re.compile(r".*\.(safetensors|bin|h5|msgpack)\.index(\..*)?\.json", re.DOTALL)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class ShardIndex:
    """What an index file says.

    Attributes:
        path: The index file.
        weight_map: Name of the shard, relative to the index, by name of the tensor; in the order of the file.
        metadata: What the writer noted, `total_size` in bytes among it.
    """

    path: Path
    weight_map: dict[str, str]
    metadata: dict[str, Any]

    @property
    def shards(self) -> list[str]:
        """Names of the shards, each once, sorted."""
        return sorted(set(self.weight_map.values()))


def read_index(path: PathLike) -> ShardIndex:
    """The index in a file; no shard is opened or looked for.

    Raises:
        ShardIndexError: Malformed, or its shards are not of one kind.
        UntrustedPathError: A shard that is not a plain relative file name.
        ResourceLimitError: More than 100 MB, or a million tensors.
    """
    file = Path(path)
    content = read_json(file, error=ShardIndexError, max_bytes=MAX_INDEX, max_values=MAX_VALUES)
    metadata = content.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise _flawed(file, "metadata is not an object", "metadata")
    listed = content.get("weight_map")
    if not isinstance(listed, dict):
        what = "is not an object" if "weight_map" in content else "is missing"
        raise _flawed(file, f"weight_map {what}", "weight_map")
    if not listed:
        raise _flawed(file, "weight_map is empty", "weight_map")
    return ShardIndex(file, _checked_map(listed, file), metadata or {})


def _checked_map(listed: dict[str, Any], file: Path) -> dict[str, str]:
    """`listed` with every name checked, and each shard's name held once, however often it is there."""
    shards: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    for tensor, shard in listed.items():
        known = shards.get(shard) if type(shard) is str else None
        if known is None:
            if not isinstance(shard, str):
                raise _flawed(file, f"the shard of tensor {_quoted(tensor)} is not a string", tensor, tensor)
            known = shards[shard] = safe_name(shard, what=f"shard of tensor {_quoted(tensor)}", path=file)
            if len(shards) > MAX_SHARDS:
                raise _flawed(file, f"more than {MAX_SHARDS} shards", "weight_map")
        weight_map[tensor] = known
    if _UNPRINTABLE.search("".join(weight_map)):
        tensor = next(tensor for tensor in weight_map if _UNPRINTABLE.search(tensor))
        raise _flawed(file, f"the name of tensor {_quoted(tensor)} holds a control character", tensor, tensor)
    _check_suffixes(list(shards), file)
    return weight_map


def _check_suffixes(shards: list[str], file: Path) -> None:
    """One index, one kind of file: the one its own name says, if it says one."""
    match = _INDEX_NAME.fullmatch(file.name)
    expected = match.group(1) if match else shards[0].rpartition(".")[2]
    for shard in shards:
        suffix = shard.rpartition(".")[2]
        if suffix not in _SUFFIXES or shard == suffix:
            raise _flawed(file, f"the shard {_quoted(shard)} is not a weight file", shard)
        if suffix != expected:
            raise _flawed(file, f"the shard {_quoted(shard)} is not a .{expected} file as the others are", shard)


def without_model_names(index: ShardIndex) -> ShardIndex:
    """The index of Keras shards with the names that the shards have: its own begin with the model's.

    Raises:
        ShardIndexError: Two tensors have one name then.
    """
    weight_map: dict[str, str] = {}
    for tensor, shard in index.weight_map.items():
        name = tensor.partition("/")[2] or tensor
        if name in weight_map:
            reason = f"tensor {_quoted(tensor)} is listed twice but for the name of the model"
            raise _flawed(index.path, reason, tensor, tensor)
        weight_map[name] = shard
    return ShardIndex(index.path, weight_map, index.metadata)


def dump_index(weight_map: Mapping[str, str], metadata: Mapping[str, Any]) -> bytes:
    """The content of an index file, keys sorted.

    Raises:
        InvalidOptionError: `total_size` is there and is not a whole number of bytes.
    """
    total = metadata.get("total_size", 0)
    if type(total) is not int or total < 0:
        raise InvalidOptionError(f"total_size must be a number of bytes, not {total!r}", key="total_size")
    content = {"metadata": dict(metadata), "weight_map": dict(weight_map)}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("utf-8")


def check_shards(index: ShardIndex, containers: Mapping[str, Container]) -> list[str]:
    """Names of tensors that are in a shard and not in the index, in the order of shards and files.

    Args:
        index: What was promised.
        containers: The opened shards by their names in the index.

    Raises:
        ShardIndexError: A shard is missing, a listed tensor is not where it should be, or a tensor is in two shards;
            `tensor` and `shard` name them.
    """
    found: dict[str, str] = {}
    for shard in index.shards:
        if shard not in containers:
            raise _flawed(index.path, f"the shard {_quoted(shard)} is missing", shard, shard=shard)
        for tensor in containers[shard].entries:
            if tensor in found:
                reason = f"tensor {_quoted(tensor)} is in two shards, {_quoted(found[tensor])} and {_quoted(shard)}"
                raise _flawed(index.path, reason, tensor, tensor, shard)
            found[tensor] = shard
    for tensor, shard in index.weight_map.items():
        actual = found.get(tensor)
        if actual != shard:
            where = "in none of them" if actual is None else f"in {_quoted(actual)}"
            reason = f"tensor {_quoted(tensor)} should be in the shard {_quoted(shard)} and is {where}"
            raise _flawed(index.path, reason, tensor, tensor, shard)
    return [tensor for tensor in found if tensor not in index.weight_map]


def _flawed(file: Path, reason: str, key: str, tensor: str | None = None, shard: str | None = None) -> ShardIndexError:
    return ShardIndexError(
        f"{place(file)}: {reason}", path=file, key=key, tensor=tensor, reason=reason, shard=shard, offset=None
    )


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 200 else name[:200] + "…")
