"""The plan of a load: which tensor at rest becomes which parameter, and every disagreement, before any byte is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .._types import CPU, Device, Shape
from ..errors import ConfigError, MismatchError, TensorError
from .boxes import Box, is_whole
from .dtypes import DtypePolicy, can_hold, is_complex, is_floating
from .rules import Op, Rule, legacy_names, shape_after, through_rules
from .tensors import BITS, Entry, count_elements, num_bytes

if TYPE_CHECKING:
    from .devices import Placement

__all__ = ["LoadPlan", "Mismatch", "ParamSpec", "Step", "place_of", "plan_load"]

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

    `is_copy` says that another step uses the same entry: this parameter needs memory of its own. `shape` is that of the
    whole parameter; with a `box` the array that is made is only that part of it.
    """

    param: str
    entry: Entry
    dtype: str
    shape: Shape
    ops: tuple[Op, ...] = ()
    is_copy: bool = False
    device: Device = CPU
    box: Box | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the bytes at rest are the bytes of the parameter."""
        return not self.ops and self.entry.dtype == self.dtype and self.entry.offset >= 0


class Mismatch(NamedTuple):
    """A tensor whose shape is not the parameter's."""

    name: str
    found: Shape
    wanted: Shape
    entry: Entry


@dataclass
class LoadPlan:
    """What a load will do.

    Attributes:
        steps: one for each parameter that comes from the checkpoint.
        initialise: specs of parameters that have to be initialised: missing ones and, if allowed, mismatched ones.
        missing: names of parameters the checkpoint lacks, less those the class says are no loss.
        unexpected: names at rest that no parameter has.
        mismatched: tensors of another shape.
        conflicts: sentences about tensors that contradict each other or change their meaning.
        twins: pairs (param, entry not used) of tied tensors that are both at rest and must be equal.
        renamed: parameter → name at rest, where a rule renamed it.
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
            complaints += [f"{m.name}: checkpoint {list(m.found)}, model {list(m.wanted)}" for m in self.mismatched]
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
    rules: Sequence[Rule] = (),
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
        ignore_missing: regular expressions; what they find is initialised without a word.
        ignore_unexpected: regular expressions; what they find is passed over without a word.
        source: the checkpoint's name, for messages. model: the class's.
    """
    plan = LoadPlan(source=source, model=model)
    wanted = {name: spec for spec in params for name in (spec.name, *spec.aliases)}
    chosen = _match(plan, entries, wanted, prefix, rules, layouts or {})
    copies = _follow_aliases(plan, entries, wanted, prefix, rules, chosen, aliases) if aliases else frozenset()
    uniform = policy.default if policy.is_uniform else None
    steps = plan.steps
    for spec in params:
        found = chosen.get(spec.name)
        if found is None:
            plan.initialise.append(spec)
            plan.missing.append(spec.name)
            continue
        entry, ops = found
        shape = entry.shape if not ops else _shape_or_none(ops, entry.shape)
        if shape != spec.shape:
            plan.mismatched.append(Mismatch(spec.name, entry.shape, spec.shape, entry))
            plan.initialise.append(spec)
            continue
        if is_floating(spec.dtype):
            dtype = uniform or policy.dtype_of(spec.name)
            if not is_floating(entry.dtype):
                plan.conflicts.append(f"{entry.name} is {entry.dtype} at rest and {dtype} in the model")
        else:
            dtype = spec.dtype
            if entry.dtype != dtype and _loses(entry.dtype, dtype):
                plan.conflicts.append(f"{entry.name} is {entry.dtype} at rest and {dtype} in the model")
        box = None if spec.box is None or is_whole(spec.box, spec.shape) else spec.box
        steps.append(Step(spec.name, entry, dtype, spec.shape, ops, spec.name in copies, spec.device, box))
    plan.missing = _without(plan.missing, ignore_missing)
    plan.unexpected = _without(plan.unexpected, ignore_unexpected)
    return plan


_Found = tuple[Entry, tuple[Op, ...]]


def _match(
    plan: LoadPlan,
    entries: Mapping[str, Entry],
    wanted: Mapping[str, ParamSpec],
    prefix: str,
    rules: Sequence[Rule],
    layouts: Mapping[str, tuple[Op, ...]],
) -> dict[str, _Found]:
    """Parameter name → the entry that fills it; notes unexpected names, conflicts and twins in the plan."""
    chosen: dict[str, _Found] = {}
    rank: dict[str, tuple[int, int]] = {}
    for key, entry in entries.items():
        name, ops, how = place_of(key, wanted, prefix, rules)
        spec = wanted.get(name)
        if spec is None:
            plan.unexpected.append(key)
            continue
        # Of several entries for one parameter the plainest name wins, and the parameter's own over an alias.
        here = (how, 0 if name == spec.name else 1)
        if (previous := chosen.get(spec.name)) is not None:
            loser = entry if rank[spec.name] <= here else previous[0]
            _note_double(plan, spec, loser, tied=rank[spec.name][1] != here[1] or here[1] == 1)
            if loser is entry:
                continue
            plan.renamed.pop(spec.name, None)
        if key != name and how == _BY_RULE:
            plan.renamed[spec.name] = key
        chosen[spec.name] = (entry, (*layouts[key], *ops) if key in layouts else ops)
        rank[spec.name] = here
    return chosen


def _follow_aliases(
    plan: LoadPlan,
    entries: Mapping[str, Entry],
    wanted: Mapping[str, ParamSpec],
    prefix: str,
    rules: Sequence[Rule],
    chosen: dict[str, _Found],
    aliases: Mapping[str, str],
) -> frozenset[str]:
    """Fills what is still missing with tensors noted under a second name; returns the parameters that have to copy."""
    used = {entry.name for entry, _ in chosen.values()}
    copies = set()
    for alias, kept in aliases.items():
        name, ops, _ = place_of(alias, wanted, prefix, rules)
        spec = wanted.get(name)
        if spec is None or spec.name in chosen or kept not in entries:
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


_BY_RULE = 1


def place_of(
    key: str, wanted: Mapping[str, ParamSpec], prefix: str, rules: Sequence[Rule]
) -> tuple[str, tuple[Op, ...], int]:
    """(the model's name of what is called `key` at rest, layout changes, how far from the original the name is)."""
    name, ops = through_rules(key, rules) if rules else (key, ())
    how = _BY_RULE if name != key or ops else 0
    if name not in wanted:
        name, how = _other_spelling(name, wanted, prefix)
    return name, ops, how


def _other_spelling(name: str, wanted: Mapping[str, ParamSpec], prefix: str) -> tuple[str, int]:
    """The spelling of `name` that the model knows, and how far from the original it is."""
    for how, candidate in enumerate(_candidates(name, prefix), start=2):
        if candidate in wanted:
            return candidate, how
    return name, 0


def _candidates(name: str, prefix: str) -> list[str]:
    spellings = [name, *legacy_names(name)]
    if prefix:
        head = prefix + "."
        for spelling in list(spellings):
            spellings.append(spelling[len(head) :] if spelling.startswith(head) else head + spelling)
    return spellings[1:]


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
