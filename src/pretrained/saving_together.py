"""A save by several processes, each of which writes what it has into the files of all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from .checkpoint.disk import run
from .checkpoint.formats import safetensors
from .checkpoint.formats.safetensors import Layout
from .checkpoint.group import Group, agree
from .checkpoint.plan_save import SavePlan
from .errors import PretrainedError, SaveError
from .options import SaveOptions
from .report import SaveReport
from .saving_files import Outgoings, finish, text_files
from .saving_place import Folder

__all__ = ["save_together"]


def save_together(
    path: Path,
    plan: SavePlan,
    outgoing: Outgoings,
    options: SaveOptions,
    texts: Mapping[str, str],
    group: Group,
) -> SaveReport:
    """The first process makes the files and commits them; in between each writes what it has into all of them.

    What is written where follows from names and shapes, so nobody has to be told.
    """
    target: Folder | None = None
    layouts = {name: safetensors.layout(name, *outgoing.shard(plan, name)) for name in plan.shards}
    report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
    with ExitStack() as stack:

        def begin() -> str | None:
            nonlocal target
            if group.index != 0:
                return None
            target = stack.enter_context(Folder(path, durable=options.durable))
            for name in plan.shards:
                safetensors.create(target.path(name), layouts[name])
            return target.name

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
            if target is not None:
                sizes = {name: paths[name].stat().st_size for name in plan.shards}
                report = finish(target, plan, sizes, texts)

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
        **{name: len(text) for name, text in text_files(plan, texts).items()},
    }
    return report


def _write_in_turn(paths: Mapping[str, Path], layouts: Mapping[str, Layout], *, durable: bool) -> None:
    def write(name: str) -> None:
        safetensors.write_into(paths[name], layouts[name], durable=durable)

    run(write, list(paths))
