"""The story of a save, the same for every framework: plan, write beside, commit, report."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._types import PathLike
from .checkpoint.checksums import is_sums_file
from .checkpoint.commit import Stage
from .checkpoint.disk import run
from .checkpoint.formats import safetensors
from .checkpoint.formats.safetensors import Outgoing
from .checkpoint.index import dump_index
from .checkpoint.plan_save import SavePlan, Stored, plan_save
from .checkpoint.rules import AnyRule, Op, back_through_rules, through_rules
from .errors import InvalidOptionError, SaveError
from .options import SaveOptions, parse_size
from .report import SaveReport

__all__ = ["layout_ops", "names_at_rest", "save", "variant_word"]

logger = logging.getLogger(__name__)

_RESERVED_METADATA = frozenset({"format"})


def save(
    directory: PathLike,
    tensors: Sequence[Stored],
    data_of: Callable[[str], Any],
    options: SaveOptions,
    *,
    secondary: Iterable[str] = (),
    texts: Mapping[str, str] | None = None,
    framework: str = "pt",
    save_function: Callable[[list[str], Path], None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> SaveReport:
    """Writes a checkpoint into a folder. At every instant the folder holds the old one or the new one.

    Args:
        directory: made if it is not there.
        tensors: what there is to write, tied names included.
        data_of: name → the tensor's bytes as a buffer; called once a tensor, when its turn comes.
        options: shard size, variant, durability.
        secondary: names that are not written when their memory has another.
        texts: further files, name → content (config.json and its like).
        framework: noted in the files.
        save_function: writes one file in place of our writer: (names, path).
        metadata: noted in each file, where the form can hold it.

    Raises:
        SaveError: nothing was saved; what was there is as it was. CheckpointBusyError: someone else is saving there.
        InvalidOptionError: max_shard_size is no size.
    """
    limit = parse_size(options.max_shard_size)
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise SaveError(f"cannot save to {path}: it is a file, not a folder", path=path)
    with Stage(path, durable=options.durable) as stage:
        present = [item.name for item in os.scandir(path) if not item.is_dir(follow_symlinks=False)]
        plan = plan_save(
            tensors,
            max_shard_size=limit,
            variant=options.variant,
            secondary=secondary,
            present=present,
            form=options.form,
        )
        report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
        paths = {name: stage.path(name) for name in plan.shards}
        notes = {**(metadata or {}), "format": framework}
        _write_shards(plan, paths, data_of, notes, save_function, durable=options.durable)
        report.files = {name: target.stat().st_size for name, target in paths.items()}
        for name, text in _text_files(plan, texts or {}).items():
            stage.path(name).write_bytes(text)
            report.files[name] = len(text)
        # Lists of checksums would not be true any more.
        report.removed = [*plan.stale, *(name for name in present if is_sums_file(name))]
        for name in report.removed:
            stage.remove(name)
        stage.commit()
    logger.info("saved %d bytes of tensors to %s in %d files", plan.total_size, path, len(plan.shards))
    return report


def _write_shards(
    plan: SavePlan,
    paths: Mapping[str, Path],
    data_of: Callable[[str], Any],
    notes: Mapping[str, str],
    save_function: Callable[[list[str], Path], None] | None,
    *,
    durable: bool,
) -> None:
    def write(name: str) -> None:
        shard = plan.shards[name]
        if save_function is not None:
            save_function([tensor.name for tensor in shard], paths[name])
            return
        metadata = {**notes, **_alias_notes(plan, shard)}
        outgoing = [Outgoing(t.name, t.dtype, t.shape, lambda t=t: data_of(t.name)) for t in shard]  # type: ignore[misc]
        safetensors.write(paths[name], outgoing, metadata, begin_writeback=durable)

    # One file is one lock in the kernel, so a second thread only helps where there is a second file.
    run(write, list(plan.shards))


def _alias_notes(plan: SavePlan, shard: Sequence[Stored]) -> dict[str, str]:
    """Names of the same memory that are not written, for a reader whose model does not tie them by itself."""
    here = {tensor.name for tensor in shard}
    return {alias: kept for alias, kept in plan.aliases.items() if kept in here and alias not in _RESERVED_METADATA}


def _text_files(plan: SavePlan, texts: Mapping[str, str]) -> dict[str, bytes]:
    files = {name: text.encode("utf-8") for name, text in texts.items()}
    if plan.index_name is not None:
        files[plan.index_name] = dump_index(plan.weight_map, {"total_size": plan.total_size})
    return files


def names_at_rest(names: Iterable[str], loaded: Mapping[str, str], rules: Sequence[AnyRule]) -> dict[str, str]:
    """Name in the model → name to be written: the one that was read, unless two tensors would have it then.

    What was not read is called what the rules call it on the way back.
    """
    own = list(names)
    found = {name: loaded.get(name) or back_through_rules(name, rules) for name in own}
    return found if len(set(found.values())) == len(found) else {name: name for name in own}


def layout_ops(name: str, key: str, rules: Sequence[AnyRule]) -> tuple[Op, ...]:
    """What lays out the tensor `name` of a model as it lies under `key` in a file, where the rules restore it from."""
    renamed, ops, _ = through_rules(key, rules)
    return tuple(op.inverse for op in reversed(ops)) if ops and renamed == name else ()


_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,99}")


def variant_word(variant: Any) -> str | None:
    """The variant of a save. Raises InvalidOptionError if it is no plain word."""
    if variant is None or (isinstance(variant, str) and _VARIANT.fullmatch(variant)):
        return variant
    raise InvalidOptionError(f"variant {variant!r:.100} must be a plain word such as 'fp16'", key="variant")
