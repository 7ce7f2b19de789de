"""The files of a save: tensors in shards, texts beside them, and what goes with the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoint.checksums import is_sums_file
from .checkpoint.disk import run
from .checkpoint.formats import safetensors
from .checkpoint.formats.safetensors import Outgoing
from .checkpoint.index import dump_index
from .checkpoint.plan_save import SavePlan, Stored
from .checkpoint.write_parts import Parts
from .report import SaveReport
from .saving_place import Destination

__all__ = ["Outgoings", "finish", "text_files", "write_shards"]

_RESERVED_METADATA = frozenset({"format"})


class Outgoings(NamedTuple):
    """Where the elements of tensors come from, and what is noted beside them."""

    data_of: Callable[[str], Any]
    parts_of: Mapping[str, Callable[[], Parts]]
    notes: Mapping[str, str]

    def shard(self, plan: SavePlan, name: str) -> tuple[list[Outgoing], dict[str, str]]:
        """(the tensors of one file, its metadata)."""
        tensors = plan.shards[name]
        outgoing = [
            Outgoing(t.name, t.dtype, t.shape, lambda t=t: self.data_of(t.name), self.parts_of.get(t.name))  # type: ignore[misc]
            for t in tensors
        ]
        return outgoing, {**self.notes, **_alias_notes(plan, tensors)}


def write_shards(
    plan: SavePlan,
    target: Destination,
    outgoing: Outgoings,
    save_function: Callable[[list[str], Path], None] | None,
    *,
    durable: bool,
) -> dict[str, int]:
    """Writes every shard; returns name → bytes of its file."""
    paths = {name: target.path(name) for name in plan.shards}
    sizes: dict[str, int] = {}

    def write(name: str) -> None:
        if save_function is not None:
            save_function([tensor.name for tensor in plan.shards[name]], paths[name])
        else:
            safetensors.write(paths[name], *outgoing.shard(plan, name), begin_writeback=durable)
        sizes[name] = paths[name].stat().st_size
        target.wrote(name)

    # One file is one lock in the kernel, so a second thread only helps where there is a second file.
    run(write, list(plan.shards))
    return sizes


def finish(target: Destination, plan: SavePlan, sizes: Mapping[str, int], texts: Mapping[str, str]) -> SaveReport:
    """What comes after the tensors: texts, the end of stale files, the commit."""
    report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
    report.files = {name: sizes[name] for name in plan.shards}
    for name, text in text_files(plan, texts).items():
        target.path(name).write_bytes(text)
        target.wrote(name)
        report.files[name] = len(text)
    # Lists of checksums would not be true any more.
    report.removed = target.remove_stale(lambda name: plan.shadows(name) or is_sums_file(name))
    target.commit()
    return report


def _alias_notes(plan: SavePlan, shard: Sequence[Stored]) -> dict[str, str]:
    """Names of the same memory that are not written, for a reader whose model does not tie them by itself."""
    here = {tensor.name for tensor in shard}
    return {alias: kept for alias, kept in plan.aliases.items() if kept in here and alias not in _RESERVED_METADATA}


def text_files(plan: SavePlan, texts: Mapping[str, str]) -> dict[str, bytes]:
    """Name → content of the files beside the tensors: the given ones, and the index if there are shards."""
    files = {name: text.encode("utf-8") for name, text in texts.items()}
    if plan.index_name is not None:
        files[plan.index_name] = dump_index(plan.weight_map, {"total_size": plan.total_size})
    return files
