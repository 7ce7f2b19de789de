"""The story of a save, the same for every framework: plan, write beside, commit, report."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from ._types import PathLike
from .checkpoint.checksums import is_sums_file
from .checkpoint.commit import Stage
from .checkpoint.disk import run
from .checkpoint.formats import safetensors
from .checkpoint.formats.safetensors import Layout, Outgoing
from .checkpoint.group import Group, agree
from .checkpoint.index import dump_index
from .checkpoint.plan_save import SavePlan, Stored, plan_save
from .checkpoint.rules import Op, Rule, through_rules
from .checkpoint.write_parts import Parts
from .errors import InvalidOptionError, PretrainedError, SaveError
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
    parts_of: Mapping[str, Callable[[], Parts]] | None = None,
    group: Group | None = None,
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
        parts_of: name → what this process has of the tensor, in place of `data_of`; our own writer takes it.
        group: the processes that save together, each of which has parts of the tensors, or none, in `parts_of`; all
            call this with the same arguments beside. The folder is on a file system that they share.

    Raises:
        SaveError: nothing was saved; what was there is as it was. CheckpointBusyError: someone else is saving there.
        InvalidOptionError: max_shard_size is no size.
    """
    limit = parse_size(options.max_shard_size)
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise SaveError(f"cannot save to {path}: it is a file, not a folder", path=path)

    def plan_with(present: Iterable[str]) -> SavePlan:
        return plan_save(
            tensors,
            max_shard_size=limit,
            variant=options.variant,
            secondary=secondary,
            present=present,
            form=options.form,
        )

    notes = {**(metadata or {}), "format": framework}
    if group is not None:
        outgoing = _Outgoing(data_of, parts_of or {}, notes)
        report = _save_together(path, plan_with, outgoing, options, texts or {}, group)
    else:
        with Stage(path, durable=options.durable) as stage:
            present = _names_in(path)
            plan = plan_with(present)
            paths = {name: stage.path(name) for name in plan.shards}
            outgoing = _Outgoing(data_of, parts_of or {}, notes)
            _write_shards(plan, paths, outgoing, save_function, durable=options.durable)
            report = _finish(stage, plan, paths, present, texts or {})
    logger.info("saved %d bytes of tensors to %s in %d files", report.total_size, path, len(report.files))
    return report


class _Outgoing(NamedTuple):
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


def _names_in(path: Path) -> list[str]:
    return [item.name for item in os.scandir(path) if not item.is_dir(follow_symlinks=False)]


def _finish(
    stage: Stage, plan: SavePlan, paths: Mapping[str, Path], present: Iterable[str], texts: Mapping[str, str]
) -> SaveReport:
    """What comes after the tensors: texts, the end of stale files, the commit."""
    report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
    report.files = {name: target.stat().st_size for name, target in paths.items()}
    for name, text in _text_files(plan, texts).items():
        stage.path(name).write_bytes(text)
        report.files[name] = len(text)
    # Lists of checksums would not be true any more.
    report.removed = [*plan.stale, *(name for name in present if is_sums_file(name))]
    for name in report.removed:
        stage.remove(name)
    stage.commit()
    return report


def _save_together(
    path: Path,
    plan_with: Callable[[Iterable[str]], SavePlan],
    outgoing: _Outgoing,
    options: SaveOptions,
    texts: Mapping[str, str],
    group: Group,
) -> SaveReport:
    """The first process makes the files and commits them; in between each writes what it has into all of them.

    What is written where follows from names and shapes, so nobody has to be told.
    """
    stage: Stage | None = None
    present: list[str] = []
    plan = plan_with(())
    layouts = {name: safetensors.layout(name, *outgoing.shard(plan, name)) for name in plan.shards}
    report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
    with ExitStack() as stack:

        def begin() -> str | None:
            nonlocal stage, present, plan
            if group.index != 0:
                return None
            stage = stack.enter_context(Stage(path, durable=options.durable))
            present = _names_in(path)
            plan = plan_with(present)
            for name in plan.shards:
                safetensors.create(stage.path(name), layouts[name])
            return stage.name

        name_of_stage = agree(group, begin)[0]
        folder = Path(os.path.realpath(path)) / name_of_stage
        paths = {name: folder / name for name in plan.shards}

        def write() -> None:
            try:
                _write_in_turn(paths, layouts, durable=options.durable)
            except OSError as error:
                if isinstance(error, PretrainedError):
                    raise
                reason = f"cannot save to {path}: {error}. What was there is as it was."
                raise SaveError(reason, path=path, committed=False) from error

        def commit() -> None:
            nonlocal report
            if stage is not None:
                report = _finish(stage, plan, paths, present, texts)

        agree(group, write)
        try:
            agree(group, commit)
        except SaveError as error:
            if not report.files:
                raise
            raise SaveError(
                f"the new checkpoint is committed to {path}, but {error}", path=path, committed=True
            ) from error
    report.files = report.files or {
        **{name: planned.size for name, planned in layouts.items()},
        **{name: len(text) for name, text in _text_files(plan, texts).items()},
    }
    return report


def _write_in_turn(paths: Mapping[str, Path], layouts: Mapping[str, Layout], *, durable: bool) -> None:
    def write(name: str) -> None:
        safetensors.write_into(paths[name], layouts[name], durable=durable)

    run(write, list(paths))


def _write_shards(
    plan: SavePlan,
    paths: Mapping[str, Path],
    outgoing: _Outgoing,
    save_function: Callable[[list[str], Path], None] | None,
    *,
    durable: bool,
) -> None:
    def write(name: str) -> None:
        if save_function is not None:
            save_function([tensor.name for tensor in plan.shards[name]], paths[name])
        else:
            safetensors.write(paths[name], *outgoing.shard(plan, name), begin_writeback=durable)

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


def names_at_rest(names: Iterable[str], loaded: Mapping[str, str]) -> dict[str, str]:
    """Name in the model → name to be written: the one that was read, unless two tensors would have it then."""
    own = list(names)
    found = {name: loaded.get(name, name) for name in own}
    return found if len(set(found.values())) == len(found) else {name: name for name in own}


def layout_ops(name: str, key: str, rules: Iterable[Rule]) -> tuple[Op, ...]:
    """What lays out the tensor `name` of a model as it lies under `key` in a file, where the rules restore it from."""
    renamed, ops = through_rules(key, rules)
    return tuple(op.inverse for op in reversed(ops)) if ops and renamed == name else ()


_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,99}")


def variant_word(variant: Any) -> str | None:
    """The variant of a save. Raises InvalidOptionError if it is no plain word."""
    if variant is None or (isinstance(variant, str) and _VARIANT.fullmatch(variant)):
        return variant
    raise InvalidOptionError(f"variant {variant!r:.100} must be a plain word such as 'fp16'", key="variant")
