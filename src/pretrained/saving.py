"""The story of a save, the same for every framework: plan, write beside, commit, report."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ._types import PathLike
from .adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from .checkpoint.checksums import is_sums_file
from .checkpoint.commit import Stage
from .checkpoint.disk import run
from .checkpoint.find import is_weight_file
from .checkpoint.formats import safetensors
from .checkpoint.formats.safetensors import Outgoing
from .checkpoint.index import dump_index
from .checkpoint.plan_save import SavePlan, Stored, plan_save
from .checkpoint.rules import AnyRule, Op, back_through_rules, through_rules
from .errors import InvalidOptionError, OptionError, SaveError
from .hub.card import CardFacts
from .hub.push import push_files
from .options import SaveOptions, parse_size
from .push_options import PushOptions
from .report import SaveReport

__all__ = [
    "Destination", "Uncommitted", "destination", "layout_ops", "names_at_rest", "push_saved", "save", "save_options",
    "variant_word",
]  # fmt: skip

logger = logging.getLogger(__name__)

_FLAGS = ("durable", "blocking", "save_peft_format")
_RESERVED_METADATA = frozenset({"format"})


class Destination(Protocol):
    """Where a save goes: a folder, or a repository. Use as a context manager; without `commit` nothing has happened."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def present(self) -> list[str]:
        """Names of the files that are there now."""

    def path(self, name: str) -> Path:
        """Where to write a file."""

    def wrote(self, name: str) -> None:
        """Takes a file that was written to its `path`, which need not stay there."""

    def remove(self, name: str) -> None:
        """Drops a file with the commit, if there is one."""

    def commit(self) -> Any:
        """Makes what was written the content of the place, all at once."""


class _Folder:
    """A folder as a destination."""

    def __init__(self, directory: PathLike, *, durable: bool) -> None:
        self._path = Path(directory)
        if self._path.exists() and not self._path.is_dir():
            raise SaveError(f"cannot save to {self._path}: it is a file, not a folder", path=self._path)
        self._stage = Stage(self._path, durable=durable)
        self.path, self.remove, self.commit = self._stage.path, self._stage.remove, self._stage.commit

    def __enter__(self) -> _Folder:
        self._stage.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.__exit__(kind, error, trace)

    def present(self) -> list[str]:
        return [item.name for item in os.scandir(self._path) if not item.is_dir(follow_symlinks=False)]

    def wrote(self, name: str) -> None:
        """Nothing: the commit moves it."""


class Uncommitted:
    """A destination whose commit is somebody else's to make."""

    def __init__(self, inner: Destination) -> None:
        self._inner = inner
        self.present, self.path, self.wrote, self.remove = inner.present, inner.path, inner.wrote, inner.remove

    def __enter__(self) -> Uncommitted:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing: it stays open."""

    def commit(self) -> None:
        """Nothing yet."""


def destination(place: PathLike | Destination, *, durable: bool = True) -> Destination:
    """The place itself if it is one; otherwise the folder of that path, which is made if it is not there.

    Raises:
        SaveError: it is a file, or cannot be written to. CheckpointBusyError: someone else is saving there.
    """
    return _Folder(place, durable=durable) if isinstance(place, (str, os.PathLike)) else place


def save_options(
    is_main_process: bool,
    state_dict: Any,
    max_shard_size: int | str,
    safe_serialization: bool,
    variant: Any,
    extra: Mapping[str, Any],
) -> SaveOptions:
    """The arguments of save_pretrained, checked; `extra` are those that it has no parameter for.

    Raises:
        OptionError: a keyword nobody knows. InvalidOptionError: a value that it cannot have.
    """
    if unknown := [name for name in extra if name not in _FLAGS]:
        raise OptionError(f"save_pretrained has no option {unknown[0]!r}", key=unknown[0])
    if not (state_dict is None or isinstance(state_dict, Mapping)):
        reason = f"state_dict is a dict of name → tensor, not a {type(state_dict).__name__}"
        raise InvalidOptionError(reason, key="state_dict")
    variant = variant_word(variant)
    form = "safetensors" if safe_serialization else "torch"
    flags = {name: extra.get(name, True) for name in _FLAGS}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name} is True or False, not {value!r:.60}", key=name)
    return SaveOptions(is_main_process, state_dict, max_shard_size, variant, form=form, **flags)


def push_saved(folder: PathLike, report: SaveReport, options: SaveOptions, push: PushOptions, facts: CardFacts) -> Any:
    """Pushes what a save wrote into a folder; takes out of the repository what would shadow it, or is not true now."""

    def is_stale(name: str) -> bool:
        if ADAPTER_CONFIG in report.files:
            is_ours = name in ADAPTER_WEIGHTS.values()
        else:
            is_ours = is_weight_file(name, options.variant, options.form)
        return name not in report.files and (is_ours or is_sums_file(name))

    return push_files(Path(folder), report.files, push, facts, is_stale)


def save(
    place: PathLike | Destination,
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
    """Writes a checkpoint into a folder or a push. At every instant the place holds the old one or the new one.

    Args:
        place: a folder, made if it is not there; or what takes files in place of one.
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
    with destination(place, durable=options.durable) as target:
        present = target.present()
        plan = plan_save(
            tensors,
            max_shard_size=limit,
            variant=options.variant,
            secondary=secondary,
            present=present,
            form=options.form,
        )
        report = SaveReport(tied=plan.aliases, total_size=plan.total_size)
        notes = {**(metadata or {}), "format": framework}
        sizes = _write_shards(plan, target, data_of, notes, save_function, durable=options.durable)
        report.files = {name: sizes[name] for name in plan.shards}
        for name, text in _text_files(plan, texts or {}).items():
            target.path(name).write_bytes(text)
            target.wrote(name)
            report.files[name] = len(text)
        # Lists of checksums would not be true any more.
        report.removed = [*plan.stale, *(name for name in present if is_sums_file(name))]
        for name in report.removed:
            target.remove(name)
        target.commit()
    logger.info("saved %d bytes of tensors to %s in %d files", plan.total_size, place, len(plan.shards))
    return report


def _write_shards(
    plan: SavePlan,
    target: Destination,
    data_of: Callable[[str], Any],
    notes: Mapping[str, str],
    save_function: Callable[[list[str], Path], None] | None,
    *,
    durable: bool,
) -> dict[str, int]:
    """Writes every shard; returns name → bytes of its file."""
    paths = {name: target.path(name) for name in plan.shards}
    sizes: dict[str, int] = {}

    def write(name: str) -> None:
        shard = plan.shards[name]
        if save_function is not None:
            save_function([tensor.name for tensor in shard], paths[name])
        else:
            metadata = {**notes, **_alias_notes(plan, shard)}
            outgoing = [Outgoing(t.name, t.dtype, t.shape, lambda t=t: data_of(t.name)) for t in shard]  # type: ignore[misc]
            safetensors.write(paths[name], outgoing, metadata, begin_writeback=durable)
        sizes[name] = paths[name].stat().st_size
        target.wrote(name)

    # One file is one lock in the kernel, so a second thread only helps where there is a second file.
    run(write, list(plan.shards))
    return sizes


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
