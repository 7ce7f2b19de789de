"""Parts of tensors: what comes is the part of the whole, by whatever way, and little else of the file is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.numpy_backend import NumpySink, numpy_dtype, save_arrays

from pretrained.checkpoint import execute as execute_module
from pretrained.checkpoint import read_parts
from pretrained.checkpoint.arrays import ArraySink
from pretrained.checkpoint.boxes import (
    Box,
    around,
    at_rest,
    is_whole,
    overlap,
    permuted,
    pieces,
    shape_of,
    slices_of,
    whole,
)
from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.execute import Loaded, execute
from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.plan_load import ParamSpec, plan_load
from pretrained.checkpoint.rules import Permute, Reshape, Rule

Array = np.ndarray[Any, Any]


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    ends = [sorted((draw(st.integers(0, dim)), draw(st.integers(0, dim)))) for dim in shape]
    return tuple((start, stop) for start, stop in ends)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], Box]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=0, max_size=4)))
    return shape, draw(boxes(shape))


@settings(deadline=None)
@given(cases(), st.integers(0, 40), st.integers(1, 60))
def test_pieces_are_the_box_in_order(case: tuple[tuple[int, ...], Box], gap: int, window: int) -> None:
    shape, box = case
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    found = list(pieces(shape, box, gap=gap, window=window))
    inside = [numbers[slices_of(piece.box)].reshape(-1) for piece in found]
    assert np.array_equal(np.concatenate([[], *inside]), numbers[slices_of(box)].reshape(-1))
    for piece, elements in zip(found, inside, strict=True):
        assert (piece.start, piece.start + piece.span - 1) == (elements[0], elements[-1])
        assert piece.is_run == (elements.size == piece.span)
        assert piece.span <= window or piece.size == 1
        assert np.all(np.diff(elements) <= gap + 1)


@settings(deadline=None)
@given(cases())
def test_without_gaps_and_limits_pieces_are_the_longest_runs(case: tuple[tuple[int, ...], Box]) -> None:
    shape, box = case
    numbers = np.arange(int(np.prod(shape))).reshape(shape)[slices_of(box)].reshape(-1)
    found = list(pieces(shape, box, gap=0, window=numbers.size + 1))
    assert len(found) == (np.count_nonzero(np.diff(numbers) != 1) + 1 if numbers.size else 0)
    assert all(piece.is_run for piece in found)


def test_boxes_as_such() -> None:
    box: Box = ((1, 3), (0, 4))
    assert shape_of(box) == (2, 4)
    assert slices_of(box, ((1, 5), (0, 4))) == (slice(0, 2), slice(0, 4))
    assert not is_whole(box, (3, 4))
    assert is_whole(whole((3, 4)), (3, 4))
    assert around([box, ((2, 6), (2, 3))]) == ((1, 6), (0, 4))
    assert overlap(box, ((2, 6), (2, 3))) == ((2, 3), (2, 3))
    assert overlap(box, ((3, 6), (2, 3))) is None
    assert permuted(box, Permute((1, 0))) == ((0, 4), (1, 3))


def test_a_reshape_that_comes_first_only_looks_at_the_file_in_another_way() -> None:
    ops = (Reshape((1, 24), (4, 6)), Permute((1, 0)))
    assert at_rest((1, 24), ops, ((0, 3), (1, 2))) == ((4, 6), ((1, 2), (0, 3)), (ops[1],), None)
    ops = (Permute((1, 0)), Reshape((6, 4), (3, 8)))
    assert at_rest((4, 6), ops, ((0, 1), (0, 8))) == ((4, 6), whole((4, 6)), ops, ((0, 1), (0, 8)))


# Reading

SHAPE = (12, 7, 10)
VALUES = np.random.default_rng(0).standard_normal(SHAPE)
WAYS: dict[str, tuple[Any, ...]] = {
    "as it is": (),
    "permuted": (Permute((2, 0, 1)),),
    "reshaped": (Reshape(SHAPE, (7, 12, 10)),),
    "reshaped and permuted": (Reshape(SHAPE, (84, 10)), Permute((1, 0))),
    "permuted and reshaped": (Permute((1, 0, 2)), Reshape((7, 12, 10), (84, 10))),
}


def apply(ops: tuple[Any, ...], array: Array) -> Array:
    for op in ops:
        array = op.apply(array)
    return array


def load(
    path: Path, shape: tuple[int, ...], box: Box | None, dtype: str, ops: tuple[Any, ...], use_mmap: bool, sink: Any
) -> Loaded:
    container = read_header(path)
    spec = ParamSpec("p", shape, "float32", box=box)
    plan = plan_load(container.entries, [spec], DtypePolicy(dtype), rules=[Rule("^x$", "p", ops)])
    assert not plan.mismatched
    return execute(plan, {container.path: container}, sink, use_mmap=use_mmap)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    dtypes = ("float32", "float16", "bfloat16")
    return {
        d: save_arrays(folder / d, {"before": np.zeros(3, np.int8), "x": VALUES.astype(numpy_dtype(d))}) for d in dtypes
    }


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_part_is_that_part_of_the_whole(way: str, files: dict[str, Path], data: st.DataObject) -> None:
    ops = WAYS[way]
    stored, wanted = data.draw(st.sampled_from([*files])), data.draw(st.sampled_from([*files]))
    expected = apply(ops, VALUES.astype(numpy_dtype(stored))).astype(numpy_dtype(wanted))
    box = data.draw(boxes(expected.shape))
    use_mmap, sink = data.draw(st.booleans()), data.draw(st.sampled_from([NumpySink, ArraySink]))()
    window, gap = data.draw(st.sampled_from([64, 500, 2**20])), data.draw(st.sampled_from([0, 16, 4096]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_parts, "WINDOW", window)
        patch.setattr(read_parts, "GAP", gap)
        patch.setattr(execute_module, "WINDOW", window)
        loaded = load(files[stored], expected.shape, box, wanted, ops, use_mmap, sink)
    value = loaded.values["p"]
    part = expected[slices_of(box)]
    assert (value.dtype, value.shape) == (part.dtype, part.shape)
    assert value.tobytes() == part.tobytes()
    assert loaded.bytes_read + loaded.bytes_mapped <= VALUES.size * numpy_dtype(stored).itemsize


def test_rows_are_mapped_and_columns_are_read(tmp_path: Path) -> None:
    values = np.arange(64 * 4096, dtype=np.float32).reshape(64, 4096)
    path = save_arrays(tmp_path / "f", {"x": values})
    rows = load(path, values.shape, ((16, 32), (0, 4096)), "float32", (), True, ArraySink())
    assert (rows.bytes_mapped, rows.bytes_read) == (values.nbytes // 4, 0)
    assert np.array_equal(rows.values["p"], values[16:32])
    assert not rows.values["p"].flags.owndata
    columns = load(path, values.shape, ((0, 64), (2048, 4096)), "float32", (), True, ArraySink())
    assert (columns.bytes_mapped, columns.bytes_read) == (0, values.nbytes // 2)
    assert np.array_equal(columns.values["p"], values[:, 2048:])
    # Half a page apart: one piece, of which the middle is thrown away.
    close = load(
        path, (128, 2048), ((0, 128), (0, 1536)), "float32", (Reshape((64, 4096), (128, 2048)),), True, ArraySink()
    )
    assert close.bytes_read == values.nbytes - 512 * 4
    assert np.array_equal(close.values["p"], values.reshape(128, 2048)[:, :1536])


def test_casting_and_turning_read_no_more(tmp_path: Path) -> None:
    values = np.arange(64 * 4096, dtype=np.float32).reshape(64, 4096)
    path = save_arrays(tmp_path / "f", {"x": values})
    cast = load(path, values.shape, ((0, 64), (0, 1024)), "bfloat16", (), True, ArraySink())
    assert cast.bytes_read == values.nbytes // 4
    assert np.array_equal(cast.values["p"], values[:, :1024].astype(ml_dtypes.bfloat16))
    turned = load(path, (4096, 64), ((0, 1024), (0, 64)), "float32", (Permute((1, 0)),), True, ArraySink())
    assert turned.bytes_read == values.nbytes // 4
    assert np.array_equal(turned.values["p"], values.T[:1024])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_only_its_reader_understands_is_cut_afterwards(dtype: str) -> None:
    container = StateDict({"p": VALUES}, lambda array: (array.shape, array.dtype.name))
    box: Box = ((2, 5), (0, 7), (4, 6))
    plan = plan_load(container.entries, [ParamSpec("p", SHAPE, "float32", box=box)], DtypePolicy(dtype))
    loaded = execute(plan, {MEMORY: container}, ArraySink())
    assert np.array_equal(loaded.values["p"], VALUES[slices_of(box)].astype(dtype))
    assert loaded.bytes_read == VALUES.nbytes


def test_a_value_that_overflows_is_named_if_it_is_in_the_part(tmp_path: Path) -> None:
    values = np.ones((8, 8), np.float32)
    values[3, 3] = 1e30
    path = save_arrays(tmp_path / "f", {"x": values})
    with np.errstate(over="ignore"):
        inside = load(path, (8, 8), ((0, 8), (3, 5)), "float16", (), True, ArraySink())
        outside = load(path, (8, 8), ((0, 8), (4, 8)), "float16", (), True, ArraySink())
        turned = load(path, (8, 8), ((3, 5), (0, 8)), "float16", (Permute((1, 0)),), True, ArraySink())
    assert [w.split()[0] for w in (*inside.warnings, *turned.warnings)] == ["x", "x"]
    assert outside.warnings == []


def test_a_file_of_which_parts_are_wanted_is_not_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_arrays(tmp_path / "f", {"x": VALUES, "y": VALUES})
    asked: list[bool] = []
    map_file = read_parts.map_file
    monkeypatch.setattr(read_parts, "map_file", lambda *a, ahead: asked.append(ahead) or map_file(*a, ahead=ahead))
    monkeypatch.setattr(execute_module, "map_file", lambda *a, ahead: asked.append(ahead) or map_file(*a, ahead=ahead))
    container = read_header(path)
    specs = [ParamSpec("x", SHAPE, "float64", box=((0, 6), (0, 7), (0, 10))), ParamSpec("y", SHAPE, "float64")]
    plan = plan_load(container.entries, specs, DtypePolicy("float64"))
    loaded = execute(plan, {path: container}, NumpySink())
    assert asked == [False, False]
    assert loaded.bytes_mapped == VALUES.nbytes * 3 // 2


def test_two_parameters_of_one_entry_have_memory_of_their_own_in_part(tmp_path: Path) -> None:
    container = read_header(save_arrays(tmp_path / "f", {"kept": VALUES}))
    box: Box = ((0, 6), (0, 7), (0, 10))
    specs = [ParamSpec(name, SHAPE, "float64", box=box) for name in ("kept", "x")]
    plan = plan_load(container.entries, specs, DtypePolicy("float64"), aliases={"x": "kept"})
    loaded = execute(plan, {container.path: container}, NumpySink())
    loaded.values["x"][...] = 0
    assert np.array_equal(loaded.values["kept"], VALUES[:6])


def test_the_whole_box_is_the_tensor(tmp_path: Path) -> None:
    container = read_header(save_arrays(tmp_path / "f", {"x": VALUES}))
    plan = plan_load(container.entries, [ParamSpec("x", SHAPE, "float64", box=whole(SHAPE))], DtypePolicy("float64"))
    assert plan.steps[0].box is None
