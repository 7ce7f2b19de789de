"""A checkpoint written anew: other shards, another dtype, other names, from any format that can be opened.

At no time is there more in memory than one tensor of the result and one window of the source.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .._types import PathLike
from ..errors import InvalidOptionError, SaveError, SourceError
from ..options import parse_size
from .commit import Stage
from .dialects import dialect_of
from .dtypes import dtype_name, is_floating
from .files import open_regular
from .find import Weights
from .formats import safetensors
from .formats.safetensors import Outgoing
from .index import dump_index
from .plan_save import SavePlan, Stored, plan_save
from .rules import Op, Rule, apply_ops, rules_from_mapping, shape_after
from .tensors import BITS, Container, Entry
from .windows import numpy_dtype, read_bytes, windows

__all__ = ["TARGET_DTYPES", "ConvertReport", "cast", "convert"]

# What a cast without scales can mean. Narrower types, and float8 itself, are somebody's quantisation.
TARGET_DTYPES = ("float16", "bfloat16", "float32", "float64")
_KEPT_AS_THEY_ARE = frozenset({"float8_e8m0fnu", "float4_e2m1fn_x2", "float6_e2m3fn", "float6_e3m2fn"})


@dataclass
class ConvertReport:
    """What a conversion wrote.

    Attributes:
        files: name → bytes of every file written.
        removed: names in the target that an earlier save left and that would shadow this one.
        num_tensors: tensors written. total_size: their bytes.
        num_cast: how many of them have another dtype than before.
        renamed: name at rest → name written, where the key map changed it.
        overflowed: name written → number of finite values that the new dtype cannot hold; they became infinite.
        not_cast: names of floating tensors that were left alone, being scales or packed.
    """

    files: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    num_tensors: int = 0
    total_size: int = 0
    num_cast: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    overflowed: dict[str, int] = field(default_factory=dict)
    not_cast: list[str] = field(default_factory=list)


class _Source(NamedTuple):
    """Where the data of an outgoing tensor is, and what it is to become."""

    container: Container
    entry: Entry
    dtype: str
    ops: tuple[Op, ...] = ()


def convert(
    weights: Weights,
    directory: PathLike,
    *,
    dtype: Any = None,
    max_shard_size: int | str = "5GB",
    variant: str | None = None,
    key_mapping: Mapping[str, str] | None = None,
    files: Mapping[str, bytes | Path] | None = None,
    remove: Iterable[str] = (),
    progress: Callable[[int], None] | None = None,
    durable: bool = True,
) -> ConvertReport:
    """Writes opened weights into a folder as safetensors. At every instant the folder holds the old set or the new.

    Args:
        weights: what to write; of any format.
        directory: made if it is not there. It may be the folder that is being read.
        dtype: what floating tensors become, rounded to the nearest, ties to even; None leaves them. Integers,
            booleans and complex numbers are never cast.
        max_shard_size: bytes, "500MB" or "2GiB" of tensors in one file.
        variant: "fp16" writes model.fp16.safetensors.
        key_mapping: regular expression → replacement, applied to every name.
        files: further files, name → content, or the file to copy.
        remove: names in the folder that go with the commit, if they are there.
        progress: called with the bytes of each tensor once it is written.
        durable: whether the result survives a power cut too.

    Raises:
        InvalidOptionError: an option makes no sense; two tensors get one name; a dtype that safetensors cannot hold.
        SaveError: nothing was written; what was there is as it was.
        CheckpointChangedError: a file changed while it was being read; nothing was written.
    """
    limit = parse_size(max_shard_size)
    target = _target_dtype(dtype)
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise SaveError(f"cannot write to {path}: it is a file, not a folder", path=path)
    report = ConvertReport()
    sources = _sources(weights, target, rules_from_mapping(key_mapping), report)
    same = _same_bytes(sources)
    tensors = [
        Stored(name, source.dtype, shape_after(source.ops, source.entry.shape))
        for name, source in sources.items()
        if name not in same
    ]
    with Stage(path, durable=durable) as stage:
        present = [item.name for item in os.scandir(path) if not item.is_dir(follow_symlinks=False)]
        plan = plan_save(tensors, max_shard_size=limit, variant=variant)
        notes = _metadata(weights, report.renamed)
        notes.aliases.update(same)
        for name, shard in plan.shards.items():
            outgoing = list(_outgoing(shard, sources, report, progress))
            safetensors.write(stage.path(name), outgoing, notes.of(shard))
            report.files[name] = stage.path(name).stat().st_size
        _write_others(stage, plan, files or {}, report)
        shadowing = {name for name in present if plan.shadows(name)}
        report.removed = sorted((shadowing | (set(remove) & set(present))) - report.files.keys())
        for name in report.removed:
            stage.remove(name)
        stage.commit()
    report.num_tensors, report.total_size = len(tensors), plan.total_size
    return report


def _target_dtype(dtype: Any) -> str | None:
    if dtype is None:
        return None
    name = dtype_name(dtype)
    if name not in TARGET_DTYPES:
        raise InvalidOptionError(
            f"dtype={name}: floating tensors can be converted to {', '.join(TARGET_DTYPES)}; "
            "anything narrower needs scales, which is quantisation",
            key="dtype",
        )
    return name


def _sources(weights: Weights, target: str | None, rules: Sequence[Rule], report: ConvertReport) -> dict[str, _Source]:
    """Name to be written → where it comes from, in the order of the files."""
    found: dict[str, _Source] = {}
    for key, entry in weights.entries.items():
        name = _renamed(key, rules)
        if name in found:
            raise InvalidOptionError(
                f"the key map makes {name!r:.300} of two tensors, {found[name].entry.name!r:.300} and {key!r:.300}",
                key="key_mapping",
                tensor=key,
            )
        if name != entry.name:
            report.renamed[entry.name] = name
        dtype = entry.dtype
        if target is not None and is_floating(dtype) and dtype != target:
            if dtype in _KEPT_AS_THEY_ARE:
                report.not_cast.append(name)
            else:
                dtype = target
                report.num_cast += 1
        found[name] = _Source(weights.containers[entry.file], entry, dtype, weights.layouts.get(key, ()))
    return found


def _same_bytes(sources: Mapping[str, _Source]) -> dict[str, str]:
    """Names that stand for the very bytes of an earlier one, as tied weights in a .bin do → the earlier name."""
    owners: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    for name, (_, entry, dtype, ops) in sources.items():
        if entry.offset >= 0 and entry.nbytes > 0:
            owner = owners.setdefault((entry.file, entry.offset, entry.shape, entry.dtype, dtype, ops), name)
            if owner != name:
                same[name] = owner
    return same


def _renamed(name: str, rules: Sequence[Rule]) -> str:
    for rule in rules:
        try:
            name = rule.rename(name) or name
        except (re.error, IndexError) as error:
            raise InvalidOptionError(
                f"key map: {rule.pattern!r:.200} → {rule.replacement!r:.200}: {error}", key="key_mapping"
            ) from None
    return name


@dataclass
class _Notes:
    """What the writers of the source noted, sorted into what holds for all files and what belongs to one tensor."""

    common: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def of(self, shard: Sequence[Stored]) -> dict[str, str]:
        """The metadata of one file of the result."""
        here = {tensor.name for tensor in shard}
        return {**self.common, **{alias: kept for alias, kept in self.aliases.items() if kept in here}}


def _metadata(weights: Weights, renamed: Mapping[str, str]) -> _Notes:
    notes = _Notes({"format": "pt"})
    for container in weights.containers.values():
        if dialect_of(container) != "pt":
            continue  # what another framework's writer noted is not true of the result
        for key, value in container.metadata.items():
            # An alias: a name that is not written, and the tensor of this file that it stands for.
            if value in container.entries and key not in weights.entries:
                notes.aliases[key] = renamed.get(value, value)
            else:
                notes.common[key] = value
    return notes


def _outgoing(
    shard: Sequence[Stored],
    sources: Mapping[str, _Source],
    report: ConvertReport,
    progress: Callable[[int], None] | None,
) -> Iterator[Outgoing]:
    def data_of(name: str) -> Any:
        source = sources[name]
        array, num_overflowed = _materialise(source)
        if num_overflowed:
            report.overflowed[name] = num_overflowed
        if progress is not None:
            progress(source.entry.nbytes)
        return array

    for tensor in shard:
        yield Outgoing(tensor.name, tensor.dtype, tensor.shape, lambda name=tensor.name: data_of(name))  # type: ignore[misc]


def _materialise(source: _Source) -> tuple[Any, int]:
    """The tensor in its new dtype as a buffer of its own, and how many finite values became infinite on the way."""
    import numpy as np

    container, entry, dtype, ops = source
    if ops:
        array = np.ascontiguousarray(apply_ops(ops, np.asarray(container.read(entry))))
        if entry.dtype == dtype:
            return np.ascontiguousarray(array, array.dtype.newbyteorder("<")), 0
        result = np.empty(array.shape, numpy_dtype(dtype))
        return result, cast(array.reshape(-1), result.reshape(-1))
    if entry.dtype == dtype:
        if entry.offset < 0:
            array = np.asarray(container.read(entry))
            return np.ascontiguousarray(array, array.dtype.newbyteorder("<")), 0
        raw = np.empty(entry.nbytes, np.uint8)
        read_bytes(container, entry, raw.data)
        return raw, 0
    array = np.empty(entry.nbytes * 8 // BITS[entry.dtype], numpy_dtype(dtype))
    done = num_overflowed = 0
    for window in windows(container, entry):
        num_overflowed += cast(window, array[done : done + window.size])
        done += window.size
    return array, num_overflowed


def cast(source: Any, target: Any) -> int:
    """Converts a flat array into another of the same length; returns how many finite values are finite no longer."""
    import numpy as np

    with np.errstate(all="ignore"):
        # float64 goes to 16 bits in two steps, as in torch: the same file then comes out, whoever converts it.
        in_two_steps = source.dtype.itemsize == 8 and target.dtype.itemsize < 4
        np.copyto(target, source.astype(np.float32) if in_two_steps else source, casting="unsafe")
        if source.dtype.itemsize < target.dtype.itemsize:
            return 0
        lost = ~np.isfinite(target)
        return int(np.count_nonzero(np.isfinite(source[lost]))) if lost.any() else 0


def _write_others(stage: Stage, plan: SavePlan, files: Mapping[str, bytes | Path], report: ConvertReport) -> None:
    contents: dict[str, bytes | Path] = dict(files)
    if plan.index_name is not None:
        contents[plan.index_name] = dump_index(plan.weight_map, {"total_size": plan.total_size})
    for name, content in contents.items():
        path = stage.path(name)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            _copy(content, path)
        report.files[name] = path.stat().st_size


def _copy(source: Path, target: Path) -> None:
    fd = open_regular(source, error=SourceError)
    with os.fdopen(fd, "rb") as incoming, open(target, "xb") as outgoing:
        shutil.copyfileobj(incoming, outgoing, 1 << 20)
