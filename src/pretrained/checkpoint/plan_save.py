"""The plan of a save: which name each storage is written under, in which file, and what the index says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .._types import Shape
from ..errors import SaveError
from .find import is_weight_file, variant_name
from .formats import FORMATS, Format
from .index import MAX_SHARDS
from .tensors import num_bytes

__all__ = ["SavePlan", "Stored", "plan_save"]


class Stored(NamedTuple):
    """A tensor in memory that is to be written.

    `start` and `stop` are the addresses of its first and past its last byte, 0 where there is no address; `strides`
    tells views of one memory apart.
    """

    name: str
    dtype: str
    shape: Shape
    start: int = 0
    stop: int = 0
    strides: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        return num_bytes(self.shape, self.dtype)


@dataclass
class SavePlan:
    """What a save will write.

    Attributes:
        shards: file name → tensors, in order; where a file can hold one memory under several names, all of them.
        aliases: name not written → name under which its memory is written.
        weight_map: name → file, when there is an index.
        index_name: the name of the index, or None for a single file.
        total_size: bytes of all tensors.
        variant, form: which checkpoint it is, of those that a folder may have beside each other.
    """

    shards: dict[str, list[Stored]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    weight_map: dict[str, str] = field(default_factory=dict)
    index_name: str | None = None
    total_size: int = 0
    variant: str | None = None
    form: str = "safetensors"

    def shadows(self, name: str) -> bool:
        """Whether a file of that name, which is none of these, would be read in their place or beside them."""
        return is_weight_file(name, self.variant, self.form) and name not in self.shards and name != self.index_name


def plan_save(
    tensors: Sequence[Stored],
    *,
    max_shard_size: int,
    variant: str | None = None,
    secondary: Iterable[str] = (),
    form: str = "safetensors",
) -> SavePlan:
    """Packs tensors into files, greedily and in order; a tensor larger than the limit gets a file of its own.

    Args:
        tensors: what there is, aliases included.
        max_shard_size: bytes of tensors in one file.
        variant: goes into the file names.
        secondary: names that are never written when their memory has another name.
        form: the key in FORMATS of what is written, "safetensors" or "torch".

    Raises:
        SaveError: tensors overlap in memory without being the same, so that writing each would lose what they share.
    """
    plan = SavePlan(variant=variant, form=form)
    kept = _one_name_each(tensors, frozenset(secondary), plan)
    groups: list[list[Stored]] = []
    room = 0
    for tensor in kept:
        if not groups or tensor.nbytes > room:
            groups.append([])
            room = max_shard_size
        groups[-1].append(tensor)
        room -= tensor.nbytes
    groups = groups or [[]]
    plan.total_size = sum(tensor.nbytes for tensor in kept)
    if len(groups) > MAX_SHARDS:
        raise SaveError(
            f"{len(groups)} files of {max_shard_size} bytes; there can be {MAX_SHARDS}: raise max_shard_size"
        )
    if form == "torch":
        groups = _with_aliases(groups, tensors, plan.aliases)
    _name_files(plan, groups, FORMATS[form], variant)
    return plan


def _name_files(plan: SavePlan, groups: Sequence[list[Stored]], form: Format, variant: str | None) -> None:
    single = variant_name(form.single, variant)
    if len(groups) == 1:
        plan.shards[single] = groups[0]
        return
    assert form.index is not None
    plan.index_name = variant_name(form.index, variant)
    for number, group in enumerate(groups, start=1):
        name = _shard_name(single, number, len(groups))
        plan.shards[name] = group
        plan.weight_map.update((tensor.name, name) for tensor in group)


def _with_aliases(
    groups: Sequence[list[Stored]], tensors: Sequence[Stored], aliases: Mapping[str, str]
) -> list[list[Stored]]:
    """Each group with the second names of its tensors behind them."""
    others: dict[str, list[Stored]] = {}
    for tensor in tensors:
        if tensor.name in aliases:
            others.setdefault(aliases[tensor.name], []).append(tensor)
    return [[name for tensor in group for name in (tensor, *others.get(tensor.name, ()))] for group in groups]


def _shard_name(single: str, number: int, total: int) -> str:
    """model-00001-of-00002.safetensors, and with a variant model.fp16-00001-of-00002.safetensors."""
    stem, dot, suffix = single.rpartition(".")
    return f"{stem}-{number:05d}-of-{total:05d}{dot}{suffix}"


def _one_name_each(tensors: Sequence[Stored], secondary: frozenset[str], plan: SavePlan) -> list[Stored]:
    """The tensors to write, in the order given: of several names for one memory, the first that is not secondary."""
    owners: dict[tuple[int, int], list[Stored]] = {}
    for tensor in tensors:
        if tensor.stop > tensor.start:
            owners.setdefault((tensor.start, tensor.stop), []).append(tensor)
    _refuse_overlaps(owners)
    for same in owners.values():
        if len(same) > 1:
            chosen = next((tensor for tensor in same if tensor.name not in secondary), same[0])
            plan.aliases.update((tensor.name, chosen.name) for tensor in same if tensor is not chosen)
    return [tensor for tensor in tensors if tensor.name not in plan.aliases]


def _refuse_overlaps(owners: dict[tuple[int, int], list[Stored]]) -> None:
    """Raises SaveError for memory that is shared in part, or in whole under two shapes."""
    for same in owners.values():
        first = same[0]
        for other in same[1:]:
            if (other.shape, other.strides, other.dtype) != (first.shape, first.strides, first.dtype):
                raise _overlap(first, other)
    reach, last = 0, None
    for start, stop in sorted(owners):
        if last is not None and start < reach:
            raise _overlap(last, owners[start, stop][0])
        if stop > reach:
            reach, last = stop, owners[start, stop][0]


def _overlap(first: Stored, second: Stored) -> SaveError:
    return SaveError(
        f"{first.name} {list(first.shape)} and {second.name} {list(second.shape)} share memory without being the same "
        "tensor; a file cannot hold that. Clone one of them, or leave one out of state_dict=",
        tensor=second.name,
    )
