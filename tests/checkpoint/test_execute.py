"""Carrying out a plan, with numpy for a framework."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.numpy_backend import NumpySink, numpy_dtype, save_arrays

from pretrained.checkpoint import execute as module
from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.execute import Loaded, execute
from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.plan_load import LoadPlan, ParamSpec, Step, plan_load
from pretrained.checkpoint.rules import Permute, Reshape, Rule
from pretrained.checkpoint.tensors import Container
from pretrained.errors import CheckpointChangedError, TensorError

RNG = np.random.default_rng(0)


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Container:
    return read_header(save_arrays(path, arrays))


def wanted(arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[ParamSpec]:
    return [ParamSpec(name, array.shape, array.dtype.name) for name, array in arrays.items()]


def load(
    container: Container, specs: list[ParamSpec], dtype: str = "float32", use_mmap: bool = True, **options: Any
) -> tuple[LoadPlan, Loaded]:
    plan = plan_load(container.entries, specs, DtypePolicy(dtype), **options)
    return plan, execute(plan, {container.path: container}, NumpySink(), use_mmap=use_mmap)


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "matrix": RNG.standard_normal((33, 7)).astype(np.float32),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "half": RNG.standard_normal(10).astype(np.float16),
    "brain": RNG.standard_normal(10).astype(ml_dtypes.bfloat16),
    "double": RNG.standard_normal((2, 3, 4)),
    "ints": np.arange(6, dtype=np.int64).reshape(2, 3),
    "flags": np.array([True, False, True]),
    "odd": np.arange(3, dtype=np.int8),
}


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_way_gives_the_right_bits(dtype: str, use_mmap: bool, tmp_path: Path) -> None:
    container = save(tmp_path / "f", ARRAYS)
    plan, loaded = load(container, wanted(ARRAYS), dtype, use_mmap)
    assert loaded.values.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        expected = array.astype(numpy_dtype(dtype)) if array.dtype.kind in "fV" else array
        value = loaded.values[name]
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
        assert value.tobytes() == expected.tobytes(), name
        assert value.flags.writeable or value.size == 0
    total = sum(array.nbytes for array in ARRAYS.values())
    plain = sum(step.entry.nbytes for step in plan.steps if step.is_plain)
    assert (loaded.bytes_mapped, loaded.bytes_read) == ((plain, total - plain) if use_mmap else (0, total))
    assert loaded.warnings == []


def overlaps(values: Mapping[str, np.ndarray[Any, Any]]) -> list[tuple[str, str]]:
    names = list(values)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if np.shares_memory(values[a], values[b])]


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_two_parameters_share_memory_and_none_is_the_file(dtype: str, use_mmap: bool, tmp_path: Path) -> None:
    container = save(tmp_path / "f", ARRAYS)
    before = (tmp_path / "f").read_bytes()
    _, loaded = load(container, wanted(ARRAYS), dtype, use_mmap)
    assert overlaps(loaded.values) == []
    for value in loaded.values.values():
        value[...] = 1
    assert (tmp_path / "f").read_bytes() == before
    assert np.array_equal(container.read(container.entries["matrix"]), ARRAYS["matrix"])


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_parameters_of_one_entry_have_memory_of_their_own(dtype: str, use_mmap: bool, tmp_path: Path) -> None:
    container = save(tmp_path / "f", {"kept": ARRAYS["matrix"], "other": ARRAYS["scalar"]})
    specs = [ParamSpec(name, (33, 7), "float32") for name in ("kept", "x", "y")]
    plan, loaded = load(container, specs, dtype, use_mmap, aliases={"x": "kept", "y": "kept"})
    assert len(plan.steps) == 3
    assert overlaps(loaded.values) == []
    for value in loaded.values.values():
        assert np.array_equal(value, ARRAYS["matrix"].astype(dtype))
    loaded.values["kept"][0, 0] = 99
    assert loaded.values["x"][0, 0] != 99
    assert loaded.values["y"][0, 0] != 99


def test_two_parameters_of_one_entry_through_a_rule(tmp_path: Path) -> None:
    container = save(tmp_path / "f", {"a": ARRAYS["matrix"]})
    specs = [ParamSpec(name, (7, 33), "float32") for name in ("t", "u")]
    rules = [Rule("^a$", "t", (Permute((1, 0)),)), Rule("^b$", "u", (Permute((1, 0)),))]
    _, loaded = load(container, specs, rules=rules, aliases={"b": "a"})
    assert overlaps(loaded.values) == []
    assert all(np.array_equal(value, ARRAYS["matrix"].T) for value in loaded.values.values())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layout_ops(dtype: str, tmp_path: Path) -> None:
    container = save(tmp_path / "f", {"m": ARRAYS["matrix"], "d": ARRAYS["double"]})
    rules = [
        Rule("^m$", "w", (Permute((1, 0)), Reshape((7, 33), (7, 3, 11)))),
        Rule("^d$", "v", (Reshape((2, 3, 4), (24,)),)),
    ]
    specs = [ParamSpec("w", (7, 3, 11), "float32"), ParamSpec("v", (24,), "float32")]
    _, loaded = load(container, specs, dtype, rules=rules)
    assert np.array_equal(loaded.values["w"], ARRAYS["matrix"].T.reshape(7, 3, 11).astype(dtype))
    assert np.array_equal(loaded.values["v"], ARRAYS["double"].reshape(24).astype(dtype))
    assert all(value.flags.c_contiguous and value.flags.owndata for value in loaded.values.values())


@pytest.mark.parametrize("use_mmap", [True, False])
def test_many_transposed_tensors_by_threads(use_mmap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 1000)
    arrays = {f"a{i}": RNG.standard_normal((i + 3, 40)) * (1e6 if i == 7 else 1) for i in range(20)}
    container = save(tmp_path / "f", arrays)
    specs = [ParamSpec(name, array.T.shape, "float32") for name, array in arrays.items()]
    plan, loaded = load(container, specs, "float16", use_mmap, rules=[Rule("^a", "a", (Permute((1, 0)),))])
    assert list(loaded.values) == [step.param for step in plan.steps]
    with np.errstate(over="ignore"):
        assert all(np.array_equal(loaded.values[name], array.T.astype(np.float16)) for name, array in arrays.items())
    assert loaded.warnings == ["a7 has values beyond float16: they became infinite"]
    assert loaded.bytes_read == sum(array.nbytes for array in arrays.values())


def test_an_array_that_fails_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(NumpySink):
        def from_array(self, array: Any, dtype: str) -> Any:
            raise ZeroDivisionError("array")

    monkeypatch.setattr(module, "WINDOW", 1000)
    container = save(tmp_path / "f", {"a": ARRAYS["matrix"], "b": ARRAYS["matrix"]})
    specs = [ParamSpec(name, (7, 33), "float32") for name in "ab"]
    plan = plan_load(container.entries, specs, DtypePolicy("float32"), rules=[Rule("^", "", (Permute((1, 0)),))])
    with pytest.raises(ZeroDivisionError):
        execute(plan, {container.path: container}, Broken())


@pytest.mark.parametrize("chunk", [8, 64, 1000])
@pytest.mark.parametrize("use_mmap", [True, False])
def test_casts_go_through_windows(chunk: int, use_mmap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = RNG.standard_normal(10_007)
    container = save(tmp_path / "f", {"a": array, "b": array[:3]})
    monkeypatch.setattr(module, "WINDOW", chunk)
    plan = plan_load(
        container.entries,
        [ParamSpec("a", (10_007,), "float32"), ParamSpec("b", (3,), "float32")],
        DtypePolicy("float32"),
    )
    sink = NumpySink()
    loaded = execute(plan, {container.path: container}, sink, use_mmap=use_mmap)
    assert np.array_equal(loaded.values["a"], array.astype(np.float32))
    assert np.array_equal(loaded.values["b"], array[:3].astype(np.float32))
    assert max(sink.casts) <= chunk
    assert sum(sink.casts) == loaded.bytes_read == 8 * 10_010


@pytest.mark.parametrize("use_mmap", [True, False])
def test_nothing_is_mapped_that_shall_not_be(use_mmap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = save(tmp_path / "f", ARRAYS)

    def refuse(*args: Any) -> None:
        raise AssertionError("mapped")

    monkeypatch.setattr(module, "map_file", refuse)
    if use_mmap:
        monkeypatch.setattr(module, "is_remote", lambda path: True)
    for dtype in ("float32", "float16"):
        _, loaded = load(container, wanted(ARRAYS), dtype, use_mmap)
        assert loaded.bytes_mapped == 0
        assert np.array_equal(loaded.values["matrix"], ARRAYS["matrix"].astype(dtype))


def test_a_header_of_odd_length_is_read_not_mapped(tmp_path: Path) -> None:
    """Older writers did not pad: the data then lies at any byte, where no array of a framework may."""
    header = (
        b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"U8","shape":[2],"data_offsets":[12,14]}}'
    )
    header += b" " * (3 - (8 + len(header)) % 4)
    values = np.array([1, 2, 3], np.float32)
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes() + b"\5\6")
    container = read_header(tmp_path / "f")
    assert container.entries["a"].offset % 4
    _, loaded = load(container, [ParamSpec("a", (3,), "float32"), ParamSpec("b", (2,), "uint8")])
    assert np.array_equal(loaded.values["a"], values)
    assert loaded.values["a"].flags.aligned
    assert (loaded.bytes_read, loaded.bytes_mapped) == (12, 2)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_what_overflows_is_named(use_mmap: bool, tmp_path: Path) -> None:
    arrays = {
        "fine": np.array([1.0, -65504.0]),
        "large": np.array([1.0, 1e300]),
        "infinite": np.array([np.inf, -np.inf, np.nan]),
        "both": np.array([np.inf, 1e6]),
        "turned": np.array([[1e6, 2.0]]),
    }
    container = save(tmp_path / "f", arrays)
    specs = [ParamSpec(name, (2, 1) if name == "turned" else array.shape, "float32") for name, array in arrays.items()]
    rules = [Rule("^turned$", "turned", (Permute((1, 0)),))]
    _, loaded = load(container, specs, "float16", use_mmap, rules=rules)
    named = sorted(text.split()[0] for text in loaded.warnings)
    assert named == ["both", "large", "turned"]
    assert "large has values beyond float16: they became infinite" in loaded.warnings


def test_a_state_dict_is_copied() -> None:
    arrays = {"a": ARRAYS["matrix"].copy(), "b": ARRAYS["double"].copy()}
    container = StateDict(arrays, lambda array: (array.shape, array.dtype.name))
    plan = plan_load(container.entries, wanted(arrays), DtypePolicy("float32"))
    loaded = execute(plan, {MEMORY: container}, NumpySink())
    assert np.array_equal(loaded.values["a"], arrays["a"])
    assert loaded.values["b"].dtype == np.float32
    assert not any(np.shares_memory(loaded.values[name], arrays[name]) for name in arrays)


def test_a_state_dict_of_other_things() -> None:
    def describe(array: Any) -> Any:
        return (array.shape, array.dtype.name) if isinstance(array, np.ndarray) else None

    with pytest.raises(TensorError, match=r"state_dict\['b'\] is a list, not a tensor") as caught:
        StateDict({"a": np.zeros(1), "b": [1]}, describe)
    assert caught.value.tensor == "b"
    with pytest.raises(TensorError, match=r"state_dict\[3\]"):
        StateDict({3: np.zeros(1)}, describe)  # type: ignore[dict-item]


def test_several_files(tmp_path: Path) -> None:
    first = save(tmp_path / "1", {"a": ARRAYS["matrix"], "b": ARRAYS["half"]})
    second = save(tmp_path / "2", {"c": ARRAYS["double"]})
    plan = plan_load(
        {**first.entries, **second.entries},
        [ParamSpec("c", (2, 3, 4), "float32"), ParamSpec("a", (33, 7), "float32"), ParamSpec("b", (10,), "float32")],
        DtypePolicy("float32"),
    )
    loaded = execute(plan, {c.path: c for c in (first, second)}, NumpySink())
    assert loaded.values.keys() == {"a", "b", "c"}
    assert np.array_equal(loaded.values["c"], ARRAYS["double"].astype(np.float32))


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("change", ["shorter", "longer", "replaced", "gone"])
def test_a_file_that_changes_in_between(change: str, dtype: str, use_mmap: bool, tmp_path: Path) -> None:
    container = save(tmp_path / "f", {"a": ARRAYS["matrix"]})
    plan = plan_load(container.entries, [ParamSpec("a", (33, 7), "float32")], DtypePolicy(dtype))
    content = (tmp_path / "f").read_bytes()
    if change == "gone":
        (tmp_path / "f").unlink()
    elif change == "replaced":
        (tmp_path / "new").write_bytes(content)
        os.replace(tmp_path / "new", tmp_path / "f")
    else:
        (tmp_path / "f").write_bytes(content[:-4] if change == "shorter" else content + b"1234")
    with pytest.raises(CheckpointChangedError) as caught:
        execute(plan, {container.path: container}, NumpySink(), use_mmap=use_mmap)
    assert caught.value.path == str(tmp_path / "f")


def test_nothing_stays_open(tmp_path: Path) -> None:
    container = save(tmp_path / "f", ARRAYS)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for dtype in ("float32", "float16"):
        for use_mmap in (True, False):
            load(container, wanted(ARRAYS), dtype, use_mmap)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pretrained")]


def test_a_cast_that_fails_fails_the_load(tmp_path: Path) -> None:
    class Broken(NumpySink):
        def cast(self, *args: Any) -> None:
            raise ZeroDivisionError("cast")

    container = save(tmp_path / "f", {"a": ARRAYS["double"]})
    plan = plan_load(container.entries, [ParamSpec("a", (2, 3, 4), "float32")], DtypePolicy("float32"))
    with pytest.raises(ZeroDivisionError):
        execute(plan, {container.path: container}, Broken())


def test_an_empty_plan() -> None:
    assert execute(LoadPlan(), {}, NumpySink()) == Loaded()


def test_steps_are_data(tmp_path: Path) -> None:
    container = save(tmp_path / "f", {"a": ARRAYS["half"]})
    step = Step("a", container.entries["a"], "float16", (10,))
    assert step.is_plain
    assert not step._replace(dtype="float32").is_plain
    assert not step._replace(ops=(Permute((0,)),)).is_plain
    assert step._replace(is_copy=True).is_plain  # the bytes are the same; only the memory is not
