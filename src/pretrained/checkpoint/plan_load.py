"""The plan of a load: which tensor at rest becomes which parameter, and every disagreement, before any byte is read."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .._types import CPU, Device, Shape
from ..errors import ConfigError, MismatchError, TensorError
from .boxes import Box, is_whole
from .dtypes import DtypePolicy, can_hold, is_complex, is_floating
from .fusions import Part, Stack, find_fusion
from .places import BY_RULE, place_of
from .plan_parts import FoundPart, Unfit, in_order
from .rules import AnyRule, Op, shape_after
from .tensors import BITS, Entry, count_elements, num_bytes

if TYPE_CHECKING:
    from .devices import Placement

__all__ = ["LoadPlan", "Mismatch", "ParamSpec", "Step", "plan_load"]

# Buffers that older releases stored and that are functions of the config.
_OBSOLETE = (".position_ids", "rotary_emb.inv_freq", ".masked_bias")

# A head that the checkpoint lacks is small. More than this beside the checkpoint's own size is a config gone wrong.
_MAX_INIT_RATIO, _MIN_INIT_LIMIT = 8, 4 * 2**30


class ParamSpec(NamedTuple):
    """A parameter or persistent buffer that a model wants.

    `aliases` are the other names of the same storage; any of them in the file is enough. `dtype` is what the model's
    constructor gave it; a floating one is subject to the dtype policy. `device` is where it lies while it does not run.
    `box` is the part of it that this process needs; None for all of it.
    """

    name: str
    shape: Shape
    dtype: str
    aliases: tuple[str, ...] = ()
    device: Device = CPU
    box: Box | None = None


class Step(NamedTuple):
    """One tensor's way: the entry as it lies, through `ops`, into the parameter as `dtype`.

    `is_copy` says that another step uses the same entry: this parameter needs memory of its own. Of a step with a
    `whole` the entry is one part of the parameter, which has that shape; it begins at the parameter's element `start`,
    and `shape` is the part's. With a `box` only that part of the parameter is wanted, and `shape` is the whole's.
    """

    param: str
    entry: Entry
    dtype: str
    shape: Shape
    ops: tuple[Op, ...] = ()
    is_copy: bool = False
    device: Device = CPU
    start: int = 0
    whole: Shape | None = None
    box: Box | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the bytes at rest are the bytes of the parameter."""
        return not self.ops and self.entry.dtype == self.dtype and self.entry.offset >= 0


class Mismatch(NamedTuple):
    """A tensor whose shape is not the parameter's, or parts that do not make it up: then `reason` says why."""

    name: str
    found: Shape
    wanted: Shape
    entry: Entry
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason or f'checkpoint {list(self.found)}, model {list(self.wanted)}'}"


@dataclass
class LoadPlan:
    """What a load will do.

    Attributes:
        steps: one for each parameter that comes from the checkpoint, or for each part of it.
        initialise: specs of parameters that have to be initialised: missing ones and, if allowed, mismatched ones.
        missing: names of parameters the checkpoint lacks, less those the class says are no loss.
        unexpected: names at rest that no parameter has.
        mismatched: tensors of another shape.
        conflicts: sentences about tensors that contradict each other or change their meaning.
        twins: pairs (param, entry not used) of tied tensors that are both at rest and must be equal.
        renamed: parameter, or what a part of one is called by its rule → name at rest, where a rule renamed it.
        placement: which device everything goes to, where that was asked for.
    """

    steps: list[Step] = field(default_factory=list)
    initialise: list[ParamSpec] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    twins: list[tuple[str, Entry]] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    placement: Placement | None = None
    source: str = ""
    model: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters that come from the checkpoint, in the dtypes they will have."""
        return sum(num_bytes(step.shape, step.dtype) for step in self.steps)

    def keep_only(self, patterns: Iterable[str], params: Iterable[ParamSpec]) -> None:
        """Leaves out every parameter that no pattern matches, by its name or by that at rest; it is initialised.

        Raises:
            MismatchError: nothing is left.
        """
        compiled = [re.compile(fnmatch.translate(pattern)) for pattern in patterns]

        def is_meant(*names: str) -> bool:
            return any(pattern.match(name) for pattern in compiled for name in names)

        kept = [step for step in self.steps if is_meant(step.param, step.entry.name)]
        if not kept:
            sample = ", ".join(step.param for step in self.steps[:3]) or "no tensors"
            raise MismatchError(
                f"only= matches no parameter of {self.model} that {self.source} has; such are {sample} …",
                path=self.source,
                key="only",
            )
        filled = {step.param for step in kept}
        self.steps = kept
        self.mismatched = [m for m in self.mismatched if is_meant(m.name, m.entry.name)]
        self.initialise = [spec for spec in params if spec.name not in filled]
        self.missing = [name for name in self.missing if is_meant(name)]
        self.unexpected = [name for name in self.unexpected if is_meant(name)]
        self.twins = [(param, twin) for param, twin in self.twins if param in filled]

    def check(self, *, strict: bool = False, ignore_mismatched_sizes: bool = False) -> None:
        """Raises one error with every complaint, or returns.

        Raises:
            MismatchError: nothing matches; shapes differ and may not; in strict mode, anything at all is amiss.
            TensorError: a tensor's dtype cannot become a parameter.
            ConfigError: the config asks for far more parameters than the checkpoint has.
        """
        self._check_kinds()
        self._check_something_matches()
        complaints: list[str] = []
        if self.mismatched and (strict or not ignore_mismatched_sizes):
            complaints += map(str, self.mismatched)
        if strict:
            complaints += [f"{name}: missing from the checkpoint" for name in self.missing]
            complaints += [f"{name}: not a parameter of the model" for name in self.unexpected]
            complaints += self.conflicts
        if complaints:
            hint = "" if strict else "\nPass ignore_mismatched_sizes=True to initialise these anew."
            shown = "\n".join(f"    {line}" for line in complaints[:12])
            more = f"\n    … and {len(complaints) - 12} more" if len(complaints) > 12 else ""
            first = self.mismatched[0] if self.mismatched else None
            raise MismatchError(
                f"{self.source} does not fit {self.model}:\n{shown}{more}{hint}",
                path=first.entry.file if first else self.source,
                tensor=first.entry.name if first else None,
                reason=complaints[0],
                complaints=complaints,
            )
        self._check_extent()

    def _check_kinds(self) -> None:
        for step in self.steps:
            if is_complex(step.entry.dtype) and not is_complex(step.dtype):
                reason = f"tensor {step.entry.name} is {step.entry.dtype}; the parameter {step.param} is real"
                raise TensorError(
                    f"{step.entry.file}: {reason}", path=step.entry.file, tensor=step.entry.name, reason=reason
                )

    def _check_something_matches(self) -> None:
        if not self.steps and not self.mismatched and (self.initialise or self.unexpected):
            sample = ", ".join(self.unexpected[:3]) or "no tensors"
            wanted = ", ".join(spec.name for spec in self.initialise[:3])
            raise MismatchError(
                f"{self.source} matches no tensor of {self.model}: it holds {sample} …; the model wants {wanted} …",
                path=self.source,
                reason="matches no tensor of the model",
            )

    def _check_extent(self) -> None:
        missing = sum(count_elements(spec.shape) * BITS[spec.dtype] // 8 for spec in self.initialise)
        if missing > max(_MAX_INIT_RATIO * self.nbytes, _MIN_INIT_LIMIT):
            largest = max(self.initialise, key=lambda spec: count_elements(spec.shape))
            raise ConfigError(
                f"{self.source}: the config asks for {missing:,} bytes of parameters that the checkpoint lacks, beside "
                f"{self.nbytes:,} that it has; the largest is {largest.name} {list(largest.shape)}",
                path=self.source,
                tensor=largest.name,
            )


def plan_load(
    entries: Mapping[str, Entry],
    params: Sequence[ParamSpec],
    policy: DtypePolicy,
    *,
    prefix: str = "",
    rules: Sequence[AnyRule] = (),
    aliases: Mapping[str, str] | None = None,
    layouts: Mapping[str, tuple[Op, ...]] | None = None,
    ignore_missing: Iterable[str] = (),
    ignore_unexpected: Iterable[str] = (),
    source: str = "",
    model: str = "",
) -> LoadPlan:
    """Matches tensors at rest to parameters.

    A name matches as it is; with `prefix` added or taken away (base model ↔ head); through a rule; or, when nothing
    else does, under an older spelling. Only whole names match, never endings.

    Args:
        entries: tensors at rest by name.
        params: what the model wants.
        policy: the dtype of each floating parameter.
        prefix: the class's base_model_prefix.
        rules: renames and layout changes of the family, then of the caller; they are tried before anything else.
        aliases: second names that the writer noted: name → name under which the tensor is at rest.
        layouts: changes of layout that come before those of the rules, by name.
        ignore_missing, ignore_unexpected: regular expressions; what they find is initialised or left, without a word.
        source: the checkpoint's name, for messages. model: the class's.
    """
    plan = LoadPlan(source=source, model=model)
    wanted = {name: spec for spec in params for name in (spec.name, *spec.aliases)}
    chosen, parts = _match(plan, entries, wanted, prefix, rules, layouts or {})
    copies = _follow_aliases(plan, entries, wanted, prefix, rules, chosen, aliases) if aliases else frozenset()
    uniform = policy.default if policy.is_uniform else None
    for spec in params:
        dtype = (uniform or policy.dtype_of(spec.name)) if is_floating(spec.dtype) else spec.dtype
        if (found := chosen.get(spec.name)) is not None:
            _fill(plan, spec, found, dtype, is_copy=spec.name in copies)
        elif spec.name in parts:
            _fill_by_parts(plan, spec, list(parts[spec.name].values()), dtype, rules)
        else:
            plan.initialise.append(spec)
            plan.missing.append(spec.name)
    plan.missing = _without(plan.missing, ignore_missing)
    plan.unexpected = _without(plan.unexpected, ignore_unexpected)
    return plan


_Found = tuple[Entry, tuple[Op, ...]]
_Parts = dict[str, dict[Part, FoundPart]]


def _fill(plan: LoadPlan, spec: ParamSpec, found: _Found, dtype: str, *, is_copy: bool) -> None:
    """The step that fills a parameter from one tensor, or what is wrong with that."""
    entry, ops = found
    shape = entry.shape if not ops else _shape_or_none(ops, entry.shape)
    if shape != spec.shape:
        plan.mismatched.append(Mismatch(spec.name, entry.shape, spec.shape, entry))
        plan.initialise.append(spec)
        return
    _note_dtype(plan, spec, entry, dtype)
    box = None if spec.box is None or is_whole(spec.box, spec.shape) else spec.box
    plan.steps.append(Step(spec.name, entry, dtype, spec.shape, ops, is_copy, spec.device, box=box))


def _fill_by_parts(
    plan: LoadPlan, spec: ParamSpec, found: list[FoundPart], dtype: str, rules: Sequence[AnyRule]
) -> None:
    """The steps that fill a stack from its parts, or what is wrong with them."""
    fusion = find_fusion(rules, spec.name)
    assert fusion is not None
    shapes = [_shape_or_none(each.ops, each.entry.shape) for each in found]
    fitting = in_order(found, shapes, spec.shape, fusion)
    if isinstance(fitting, Unfit):
        plan.mismatched.append(Mismatch(spec.name, fitting.found, spec.shape, fitting.entry, fitting.reason))
        plan.initialise.append(spec)
        return
    stack = Stack(spec.shape[0], len(fusion.pieces))
    shape = stack.part_shape(spec.shape)
    names = fusion.names(spec.name, stack.items) or ()
    for each, name in zip(fitting, names, strict=True):
        _note_dtype(plan, spec, each.entry, dtype)
        start = stack.start(each.part, spec.shape)
        plan.steps.append(Step(spec.name, each.entry, dtype, shape, each.ops, False, spec.device, start, spec.shape))
        if each.is_renamed and each.key != name:
            plan.renamed[name] = each.key


def _note_dtype(plan: LoadPlan, spec: ParamSpec, entry: Entry, dtype: str) -> None:
    """Notes a change of dtype that changes what a tensor means."""
    if entry.dtype == dtype:
        return
    if not is_floating(entry.dtype) if is_floating(spec.dtype) else _loses(entry.dtype, dtype):
        plan.conflicts.append(f"{entry.name} is {entry.dtype} at rest and {dtype} in the model")


def _match(
    plan: LoadPlan,
    entries: Mapping[str, Entry],
    wanted: Mapping[str, ParamSpec],
    prefix: str,
    rules: Sequence[AnyRule],
    layouts: Mapping[str, tuple[Op, ...]],
) -> tuple[dict[str, _Found], _Parts]:
    """Parameter name → the entry that fills it, or the parts of it; notes unexpected names, conflicts and twins."""
    chosen: dict[str, _Found] = {}
    parts: _Parts = {}
    rank: dict[str, tuple[int, int]] = {}
    for key, entry in entries.items():
        name, ops, how, part = place_of(key, wanted, prefix, rules)
        spec = wanted.get(name)
        if spec is None:
            plan.unexpected.append(key)
            continue
        whole_ops = (*layouts[key], *ops) if key in layouts else ops
        if part is not None:
            found = FoundPart(key, entry, whole_ops, part, how == BY_RULE)
            if parts.setdefault(spec.name, {}).setdefault(part, found) is not found:
                _note_double(plan, spec, entry, tied=False)
            continue
        # Of several entries for one parameter the plainest name wins, and the parameter's own over an alias.
        here = (how, 0 if name == spec.name else 1)
        if (previous := chosen.get(spec.name)) is not None:
            loser = entry if rank[spec.name] <= here else previous[0]
            _note_double(plan, spec, loser, tied=rank[spec.name][1] != here[1] or here[1] == 1)
            if loser is entry:
                continue
            plan.renamed.pop(spec.name, None)
        if key != name and how == BY_RULE:
            plan.renamed[spec.name] = key
        chosen[spec.name] = (entry, whole_ops)
        rank[spec.name] = here
    for name in [name for name in parts if name in chosen]:
        for found in parts[name].values():
            _note_double(plan, wanted[name], found.entry, tied=False)
    return chosen, parts


def _follow_aliases(
    plan: LoadPlan,
    entries: Mapping[str, Entry],
    wanted: Mapping[str, ParamSpec],
    prefix: str,
    rules: Sequence[AnyRule],
    chosen: dict[str, _Found],
    aliases: Mapping[str, str],
) -> frozenset[str]:
    """Fills what is still missing with tensors noted under a second name; returns the parameters that have to copy."""
    used = {entry.name for entry, _ in chosen.values()}
    copies = set()
    for alias, kept in aliases.items():
        name, ops, _, part = place_of(alias, wanted, prefix, rules)
        spec = wanted.get(name)
        if spec is None or part is not None or spec.name in chosen or kept not in entries:
            continue
        chosen[spec.name] = (entries[kept], ops)
        if entries[kept].name in used:
            copies.add(spec.name)
        used.add(entries[kept].name)
    plan.unexpected = [name for name in plan.unexpected if entries[name].name not in used]
    return frozenset(copies)


def _loses(source: str, target: str) -> bool:
    """Whether a tensor that is no floating parameter can change its values on the way."""
    return is_floating(source) or not (is_complex(source) or is_complex(target) or can_hold(target, source))


def _note_double(plan: LoadPlan, spec: ParamSpec, loser: Entry, *, tied: bool) -> None:
    if tied:
        plan.twins.append((spec.name, loser))
    else:
        plan.conflicts.append(f"{loser.name} is not used: {spec.name} is in the checkpoint under a plainer name too")


def _shape_or_none(ops: tuple[Op, ...], shape: Shape) -> Shape | None:
    try:
        return shape_after(ops, shape)
    except ValueError:
        return None


def _without(names: list[str], patterns: Iterable[str]) -> list[str]:
    """Names less the obsolete ones and those that a pattern finds."""
    if not names:
        return names
    compiled = [re.compile(pattern) for pattern in patterns]
    return [
        name
        for name in names
        if not (("." + name).endswith(_OBSOLETE) or any(pattern.search(name) for pattern in compiled))
    ]
