"""The story of a save, the same for every framework: plan, write beside, commit, report."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._types import PathLike
from .adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from .checkpoint.checksums import is_sums_file
from .checkpoint.find import is_weight_file
from .checkpoint.group import Group
from .checkpoint.plan_save import Stored, plan_save
from .checkpoint.rules import AnyRule, Op, back_through_rules, through_rules
from .checkpoint.write_parts import Parts
from .errors import InvalidOptionError, OptionError
from .hub.card import CardFacts
from .hub.push import push_files
from .options import SaveOptions, parse_size
from .push_options import PushOptions
from .report import SaveReport
from .saving_files import Outgoings, finish, write_shards
from .saving_place import Destination, Uncommitted, destination
from .saving_together import save_together

__all__ = [
    "Destination", "Uncommitted", "destination", "layout_ops", "names_at_rest", "push_saved", "save", "save_options",
    "variant_word",
]  # fmt: skip

logger = logging.getLogger(__name__)

_FLAGS = ("durable", "blocking", "save_peft_format")


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
    parts_of: Mapping[str, Callable[[], Parts]] | None = None,
    group: Group | None = None,
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
        parts_of: name → what this process has of the tensor, in place of `data_of`; our own writer takes it.
        group: the processes that save together, each of which has parts of the tensors, or none, in `parts_of`; all
            call this with the same arguments beside. The folder is on a file system that they share.

    Raises:
        SaveError: nothing was saved; what was there is as it was. CheckpointBusyError: someone else is saving there.
        InvalidOptionError: max_shard_size is no size.
    """
    plan = plan_save(
        tensors,
        max_shard_size=parse_size(options.max_shard_size),
        variant=options.variant,
        secondary=secondary,
        form=options.form,
    )
    outgoing = Outgoings(data_of, parts_of or {}, {**(metadata or {}), "format": framework})
    if group is not None:
        if not isinstance(place, (str, os.PathLike)):
            raise InvalidOptionError("several processes save together into a folder, and push that", key="push_to_hub")
        report = save_together(Path(place), plan, outgoing, options, texts or {}, group)
    else:
        with destination(place, durable=options.durable) as target:
            sizes = write_shards(plan, target, outgoing, save_function, durable=options.durable)
            report = finish(target, plan, sizes, texts or {})
    logger.info("saved %d bytes of tensors to %s in %d files", report.total_size, place, len(report.files))
    return report


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
