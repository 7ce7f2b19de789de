"""Several tensors at rest that are one in the model: planned, read into their places, and back."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.numpy_backend import NumpySink, numpy_dtype, save_arrays

from pretrained.checkpoint import execute as module
from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.execute import Loaded, execute
from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.fusions import Fusion, Part, Stack, find_fusion
from pretrained.checkpoint.plan_load import LoadPlan, ParamSpec, plan_load
from pretrained.checkpoint.plan_parts import joined
from pretrained.checkpoint.rules import Permute, Rule, back_through_rules, through_rules
from pretrained.checkpoint.tensors import Container, Entry, num_bytes
from pretrained.errors import MismatchError

Array = np.ndarray[Any, Any]
ITEM = r"\.experts\.(?P<item>0|[1-9]\d{0,5})\."
GATES = Fusion(
    rf"{ITEM}(?P<piece>w1|w3)\.weight$",
    ".gate_up",
    (r"\.gate_up$", ".experts.{item}.{piece}.weight"),
    ("w1", "w3"),
)
DOWNS = Fusion(rf"{ITEM}w2\.weight$", ".down", (r"\.down$", ".experts.{item}.w2.weight"))
RULES = (GATES, DOWNS)
FLOAT32 = DtypePolicy("float32")
RNG = np.random.default_rng(0)


# Stacks and names


@given(st.integers(0, 4), st.integers(1, 3), st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
def test_a_stack_and_its_parts_are_the_same_elements(items: int, pieces: int, part: tuple[int, ...]) -> None:
    stack = Stack(items, pieces)
    whole = np.zeros(stack.shape(part))
    views = stack.split(whole)
    assert len(views) == len(stack) and stack.part_shape(whole.shape) == part
    sources = [RNG.standard_normal(part) for _ in views]
    for view, source in zip(views, sources, strict=True):
        assert view.shape == part and (view.size == 0 or np.shares_memory(view, whole))
        view[...] = source
    for back, source in zip(stack.split(whole), sources, strict=True):
        np.testing.assert_array_equal(back, source)
    if sources:
        rows = [np.concatenate(sources[first : first + pieces]) for first in range(0, len(sources), pieces)]
        np.testing.assert_array_equal(whole, np.stack(rows))
    flat = whole.reshape(-1)
    for number, source in enumerate(sources):
        start = stack.start(Part(number // pieces, number % pieces, pieces), whole.shape)
        np.testing.assert_array_equal(flat[start : start + source.size].reshape(part), source)
    assert Stack.of(whole.shape, pieces) == stack


def test_what_is_no_stack() -> None:
    assert Stack.of((3,), 1) is None and Stack.of((3, 5), 2) is None
    with pytest.raises(ValueError, match=r"\[3, 5\] is no stack of 3 items of 2 pieces"):
        Stack(3, 2).part_shape((3, 5))
    with pytest.raises(ValueError, match="have an axis at least"):
        Stack(3).shape(())


@given(st.integers(0, 5), st.sampled_from(RULES), st.sampled_from(["model.layers.3", "layers.12.mlp", "x"]))
def test_names_of_parts_lead_back(items: int, fusion: Fusion, head: str) -> None:
    whole = head + fusion.replacement
    names = fusion.names(whole, items) or []
    assert len(set(names)) == len(names) == items * len(fusion.pieces)
    places = [fusion.place(name) for name in names]
    assert [place[0] for place in places if place] == [whole] * len(names)
    parts = [place[1] for place in places if place]
    assert (
        parts
        == sorted(parts)
        == [Part(i, p, len(fusion.pieces)) for i in range(items) for p in range(len(fusion.pieces))]
    )
    for name, part in zip(names, parts, strict=True):
        assert all(fusion.sibling(other, part) == name for other in names)
        assert through_rules(name, RULES) == (whole, (), part)
    assert find_fusion(RULES, whole) is fusion


def test_what_a_fusion_does_not_speak_of() -> None:
    for name in (
        "x.experts.1.w4.weight",
        "x.experts.01.w2.weight",
        "x.experts.w2.weight",
        "x.experts.1.w2.weight.scale",
    ):
        assert through_rules(name, RULES) == (name, (), None)
    assert GATES.names("x.down", 2) is None and find_fusion(RULES, "x.w2") is None


def test_the_way_back_without_a_fusion() -> None:
    rules = (GATES, Rule(r"\.moe\.", ".mlp.", back=(r"\.mlp\.", ".moe.")), Rule(r"^t\.", "model."))
    assert back_through_rules("model.mlp.w", rules) == "model.moe.w"
    assert back_through_rules("model.other.w", rules) == "model.other.w"


# Plans


def arrays_of(items: int = 3, rows: int = 2, columns: int = 4, dtype: Any = np.float32) -> dict[str, Array]:
    shapes = {"w1": (rows, columns), "w3": (rows, columns), "w2": (columns, rows)}
    return {
        f"l.experts.{item}.{piece}.weight": RNG.standard_normal(shape).astype(dtype)
        for item in range(items)
        for piece, shape in shapes.items()
    }


def stacked(arrays: dict[str, Array], items: int = 3) -> dict[str, Array]:
    def of(item: int, piece: str) -> Array:
        return arrays[f"l.experts.{item}.{piece}.weight"]

    return {
        "l.gate_up": np.stack([np.concatenate((of(item, "w1"), of(item, "w3"))) for item in range(items)]),
        "l.down": np.stack([of(item, "w2") for item in range(items)]),
    }


SPECS = [ParamSpec("l.gate_up", (3, 4, 4), "float32"), ParamSpec("l.down", (3, 4, 2), "float32")]


def entries_of(arrays: dict[str, Array]) -> dict[str, Entry]:
    return {
        name: Entry(name, array.dtype.name, array.shape, Path("f"), 64 * number, array.nbytes)
        for number, (name, array) in enumerate(arrays.items())
    }


def plan(arrays: dict[str, Array], specs: list[ParamSpec] = SPECS, **options: Any) -> LoadPlan:
    return plan_load(entries_of(arrays), specs, FLOAT32, source="ckpt", model="Model", **{"rules": RULES} | options)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_plan_of_stacks_is_a_partition(data: st.DataObject) -> None:
    """Every tensor at rest is used once, or said to be unexpected, or part of what is refused."""
    items = data.draw(st.integers(1, 4))
    everything = arrays_of(5) | {"l.other": np.zeros(3, np.float32), "strange": np.zeros(1, np.float32)}
    names = data.draw(st.lists(st.sampled_from(sorted(everything)), unique=True))
    specs = [
        ParamSpec("l.gate_up", (items, 4, 4), "float32"),
        ParamSpec("l.down", (items, 4, 2), "float32"),
        ParamSpec("l.other", (3,), "float32"),
    ]
    made = plan({name: everything[name] for name in names}, specs)
    used = [step.entry.name for step in made.steps]
    assert len(set(used)) == len(used)
    refused = {m.name for m in made.mismatched}
    rest = set(names) - set(used) - set(made.unexpected)
    assert {through_rules(name, RULES)[0] for name in rest} <= refused
    covered = {step.param for step in made.steps}
    assert covered | {spec.name for spec in made.initialise} == {spec.name for spec in specs}
    assert not covered & {spec.name for spec in made.initialise}
    for spec in specs:
        runs = sorted((s.start, s.start + math.prod(s.shape)) for s in made.steps if s.param == spec.name)
        if runs:
            assert runs[0][0] == 0 and runs[-1][1] == math.prod(spec.shape)
            assert all(one[1] == other[0] for one, other in itertools.pairwise(runs))
        whole = {f"l.experts.{i}.{p}.weight" for i in range(items) for p in ("w1", "w3")}
        if spec.name == "l.gate_up":
            found = {name for name in names if GATES.place(name)}
            assert (spec.name in covered) == (found == whole)
            assert (spec.name in made.missing) == (not found)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("l.experts.1.w3.weight"), r"l.gate_up: the checkpoint lacks l.experts.1.w3.weight$"),
        (lambda a: a.pop("l.experts.2.w2.weight"), r"l.down: the checkpoint lacks l.experts.2.w2.weight$"),
        (
            lambda a: [a.pop(name) for name in list(a) if ".w1." in name or (".w3.w" in name and "0" not in name)],
            r"lacks l.experts.0.w1.weight, l.experts.1.w1.weight, l.experts.1.w3.weight and 2 more",
        ),
        (
            lambda a: a.update({"l.experts.3.w2.weight": a["l.experts.0.w2.weight"]}),
            r"l.down: the checkpoint has l.experts.3.w2.weight too; the model has 3, numbered from 0",
        ),
        (
            lambda a: a.update({"l.experts.7.w2.weight": a.pop("l.experts.0.w2.weight")}),
            r"lacks l.experts.0.w2.weight; the checkpoint has l.experts.7.w2.weight too",
        ),
        (
            lambda a: a.update({"l.experts.1.w1.weight": np.zeros((3, 4), np.float32)}),
            r"l.gate_up: checkpoint \[3, 6, 4\], model \[3, 4, 4\]",
        ),
        (
            lambda a: a.update({"l.experts.1.w2.weight": np.zeros((), np.float32)}),
            r"l.down: checkpoint \[3\], model \[3, 4, 2\]",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(change: Any, message: str, strict: bool) -> None:
    arrays = arrays_of()
    change(arrays)
    made = plan(arrays)
    with pytest.raises(MismatchError, match=message.removesuffix("$")) as caught:
        made.check(strict=strict)
    assert len(caught.value.complaints) == 1
    made.check(ignore_mismatched_sizes=True)
    assert len(made.initialise) == 1 and not made.missing
    if strict:
        with pytest.raises(MismatchError, match=message.removesuffix("$")):
            made.check(strict=True, ignore_mismatched_sizes=True)


def test_a_parameter_that_is_no_stack() -> None:
    made = plan(arrays_of(), [ParamSpec("l.gate_up", (3,), "float32"), SPECS[1]])
    with pytest.raises(MismatchError, match=r"l.gate_up: checkpoint \[3, 2, 4\], model \[3\]"):
        made.check()


def test_no_part_at_all_is_a_missing_parameter() -> None:
    made = plan({name: array for name, array in arrays_of().items() if ".w2." in name})
    assert made.missing == ["l.gate_up"] and not made.mismatched
    made.check()


def test_the_whole_tensor_is_as_good_and_comes_first() -> None:
    arrays = arrays_of()
    made = plan(stacked(arrays))
    assert [(step.param, step.whole) for step in made.steps] == [("l.gate_up", None), ("l.down", None)]
    both = plan(arrays | stacked(arrays))
    assert [step.entry.name for step in both.steps] == ["l.gate_up", "l.down"]
    assert (
        "l.experts.0.w1.weight is not used: l.gate_up is in the checkpoint under a plainer name too" in both.conflicts
    )
    assert len(both.conflicts) == 9


def test_prefixes_and_the_callers_renames() -> None:
    arrays = {f"base.{name}": array for name, array in arrays_of().items()}
    assert len(plan(arrays, prefix="base").steps) == 9
    renamed = {name.replace("l.", "old.", 1): array for name, array in arrays_of().items()}
    made = plan(renamed, rules=(*RULES, Rule(r"^old\.", "l.")))
    assert made.renamed == {name: name.replace("l.", "old.", 1) for name in arrays_of()}
    del renamed["old.experts.0.w2.weight"]
    with pytest.raises(MismatchError, match=r"lacks old\.experts\.0\.w2\.weight"):
        plan(renamed, rules=(*RULES, Rule(r"^old\.", "l."))).check()
    named = {f"l.e{i}.experts.{i}.w2.weight": np.zeros((4, 2), np.float32) for i in (0, 2)}
    made = plan(named, rules=(Rule(r"\.e\d\.", "."), *RULES))
    with pytest.raises(MismatchError, match=r"lacks l\.e0\.experts\.1\.w2\.weight"):
        made.check()
    again = {f"base.{name}": array for name, array in arrays_of().items() if ".0.w2." in name}
    twice = plan(arrays_of() | again, prefix="base")
    (conflict,) = twice.conflicts
    assert conflict.startswith("base.l.experts.0.w2.weight is not used: l.down is in the checkpoint under a plainer")


# Reading


def save(folder: Path, arrays: dict[str, Array], num_files: int = 1) -> dict[Path, Container]:
    names = list(arrays)
    found = {}
    for number in range(num_files):  # one after the other, so that experts of a layer lie in different files
        part = {name: arrays[name] for name in names[number::num_files]}
        container = read_header(save_arrays(folder / f"f{number}.safetensors", part))
        found[container.path] = container
    return found


def load(
    containers: dict[Path, Container], dtype: str = "float32", use_mmap: bool = True, **options: Any
) -> tuple[LoadPlan, Loaded]:
    entries = {name: entry for container in containers.values() for name, entry in container.entries.items()}
    made = plan_load(entries, SPECS, DtypePolicy(dtype), **{"rules": RULES} | options)
    made.check(strict=True)
    made.steps = joined(made.steps, containers)
    return made, execute(made, containers, NumpySink(), use_mmap=use_mmap)


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("num_files", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("at_rest", [np.float32, ml_dtypes.bfloat16])
def test_parts_come_from_any_file_in_any_dtype(
    at_rest: Any, dtype: str, num_files: int, use_mmap: bool, tmp_path: Path
) -> None:
    arrays = arrays_of(dtype=at_rest)
    _, loaded = load(save(tmp_path, arrays, num_files), dtype, use_mmap)
    assert loaded.values.keys() == {"l.gate_up", "l.down"}
    for name, expected in stacked(arrays).items():
        assert loaded.values[name].tobytes() == expected.astype(numpy_dtype(dtype)).tobytes(), name
    assert loaded.bytes_read + loaded.bytes_mapped == sum(array.nbytes for array in arrays.values())
    assert not np.shares_memory(loaded.values["l.gate_up"], loaded.values["l.down"])


def test_parts_of_a_state_dict_and_of_other_layouts(tmp_path: Path) -> None:
    arrays = arrays_of()
    container = StateDict(arrays, lambda array: (array.shape, array.dtype.name))
    made = plan_load(container.entries, SPECS, FLOAT32, rules=RULES)
    loaded = execute(made, {MEMORY: container}, NumpySink())
    turned = save(tmp_path, {name: np.ascontiguousarray(array.T) for name, array in arrays.items()})
    _, other = load(turned, layouts={name: (Permute((1, 0)),) for name in arrays})
    for name, expected in stacked(arrays).items():
        np.testing.assert_array_equal(loaded.values[name], expected)
        np.testing.assert_array_equal(other.values[name], expected)


def test_values_beyond_the_dtype_are_told_by_the_part(tmp_path: Path) -> None:
    arrays = arrays_of()
    arrays["l.experts.1.w1.weight"][0, 0] = 1e30
    for turned in (False, True):
        at_rest = {name: np.ascontiguousarray(array.T) for name, array in arrays.items()} if turned else arrays
        layouts = {name: (Permute((1, 0)),) for name in arrays} if turned else None
        _, loaded = load(save(tmp_path / str(turned), at_rest), "float16", layouts=layouts)
        assert loaded.warnings == ["l.experts.1.w1.weight has values beyond float16: they became infinite"]


def in_order(arrays: dict[str, Array]) -> dict[str, Array]:
    names = [*(GATES.names("l.gate_up", 3) or ()), *(DOWNS.names("l.down", 3) or ())]
    return {name: arrays[name] for name in names}


def test_parts_in_order_are_mapped_as_one(tmp_path: Path) -> None:
    """The sizes are whole multiples of 64 bytes, so that no part has to lie elsewhere."""
    arrays = in_order(arrays_of(rows=16, columns=16))
    containers = save(tmp_path, arrays)
    specs = [ParamSpec("l.gate_up", (3, 32, 16), "float32"), ParamSpec("l.down", (3, 16, 16), "float32")]
    entries = next(iter(containers.values())).entries
    made = plan_load(entries, specs, FLOAT32, rules=RULES)
    assert len(made.steps) == 9
    made.steps = joined(made.steps, containers)
    assert [(step.param, step.shape, step.whole) for step in made.steps] == [
        ("l.gate_up", (3, 32, 16), None),
        ("l.down", (3, 16, 16), None),
    ]
    loaded = execute(made, containers, NumpySink())
    assert loaded.bytes_read == 0
    for name, expected in stacked(arrays).items():
        np.testing.assert_array_equal(loaded.values[name], expected)


@pytest.mark.parametrize("change", ["order", "dtype", "gap", "file", "ops", "checksums"])
def test_what_is_not_one_run_is_not_joined(change: str) -> None:
    def entry(number: int) -> Entry:
        dtype = "bfloat16" if change == "dtype" and number == 1 else "float32"
        place = {"order": 2 - number, "gap": number + (number > 1)}.get(change, number)
        file = Path("other" if change == "file" and number else "f")
        return Entry(f"l.experts.{number}.w2.weight", dtype, (4, 2), file, 64 + 32 * place, num_bytes((4, 2), dtype))

    entries = {found.name: found for found in map(entry, range(3))}
    layouts = {"l.experts.0.w2.weight": (Permute((0, 1)),)} if change == "ops" else None
    made = plan_load(entries, SPECS[1:], FLOAT32, rules=RULES, layouts=layouts)

    class Checked:
        def require_intact(self, found: Any) -> None: ...

    containers: Any = {Path("f"): Checked() if change == "checksums" else object()}
    assert len(made.steps) == 3
    assert joined(made.steps, containers) == made.steps


def test_nothing_is_held_but_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are read into the memory of their whole: that is all there is allocated."""
    allocated: list[int] = []
    allocate = module.allocate
    monkeypatch.setattr(module, "allocate", lambda nbytes: allocated.append(nbytes) or allocate(nbytes))
    arrays = arrays_of()
    for dtype in ("float32", "bfloat16"):
        allocated.clear()
        load(save(tmp_path / dtype, arrays, 2), dtype)
        assert sorted(allocated) == sorted(num_bytes(spec.shape, dtype) for spec in SPECS)
