"""Reading tensors through a window: every element once and in order, and never from another file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.checkpoint.formats.safetensors import Outgoing, read_header, write
from pretrained.checkpoint.windows import num_bad_values, numpy_dtype, read_bytes, windows
from pretrained.errors import CheckpointChangedError, WeightsFormatError

DTYPES = [
    "bool",
    "uint8",
    "float8_e4m3fn",
    "float8_e5m2",
    "int16",
    "bfloat16",
    "float16",
    "float32",
    "int64",
    "float64",
]


def write_one(path: Path, array: np.ndarray, dtype: str, shape: tuple[int, ...] | None = None) -> Any:
    write(path, [Outgoing("t", dtype, shape or array.shape, lambda: np.ascontiguousarray(array))], {})
    return read_header(path)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nbytes", [1, 7, 64, 1 << 20])
def test_all_elements_in_order(dtype: str, nbytes: int, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, 8 * 35, dtype=np.uint8)
    array = raw.view(numpy_dtype(dtype))
    header = write_one(tmp_path / "x", array, dtype)
    pieces = [piece.copy() for piece in windows(header, header.entries["t"], nbytes)]
    assert all(piece.dtype == numpy_dtype(dtype) and piece.ndim == 1 for piece in pieces)
    assert all(piece.nbytes <= max(nbytes, piece.dtype.itemsize) for piece in pieces)
    assert np.concatenate(pieces).tobytes() == raw.tobytes()
    whole = bytearray(raw.size)
    read_bytes(header, header.entries["t"], memoryview(whole))
    assert whole == raw.tobytes()


@settings(deadline=None)
@given(shape=st.lists(st.integers(0, 5), max_size=3), nbytes=st.integers(1, 40))
def test_what_only_its_container_can_read(shape: list[int], nbytes: int) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    container = StateDict({"t": array}, lambda x: (x.shape, x.dtype.name))
    pieces = list(windows(container, container.entries["t"], nbytes))
    assert [x for piece in pieces for x in piece] == list(array.reshape(-1))
    assert container.entries["t"].file == MEMORY


def test_packed_elements_come_one_to_a_byte(tmp_path: Path) -> None:
    header = write_one(tmp_path / "x", np.array([0x21, 0x43], np.uint8), "float4_e2m1fn_x2", (4,))
    pieces = list(windows(header, header.entries["t"], 2))
    assert [piece.size for piece in pieces] == [2, 2]
    expected = np.array([1, 2, 3, 4], np.uint8).view(ml_dtypes.float4_e2m1fn)
    assert np.array_equal(np.concatenate(pieces).astype(float), expected.astype(float))


def test_another_file_under_the_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    header = write_one(path, np.zeros(100, np.float32), "float32")
    other = tmp_path / "y"
    write_one(other, np.ones(100, np.float32), "float32")
    os.replace(other, path)
    with pytest.raises(CheckpointChangedError, match=r"x: tensor 't': the file changed after its header was read"):
        list(windows(header, header.entries["t"]))
    path.unlink()
    with pytest.raises(CheckpointChangedError, match="does not exist"):
        read_bytes(header, header.entries["t"], memoryview(bytearray(400)))


def test_a_change_on_the_way_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    header = write_one(path, np.zeros(100, np.float32), "float32")
    pieces = windows(header, header.entries["t"], 100)
    next(pieces)
    os.truncate(path, path.stat().st_size - 200)
    with pytest.raises(CheckpointChangedError) as caught:
        list(pieces)
    assert (caught.value.tensor, caught.value.path) == ("t", str(path))


def test_what_the_system_refuses_names_the_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = write_one(tmp_path / "x", np.zeros(100, np.float32), "float32")

    def fail(*words: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pretrained.checkpoint.windows.fill", fail)
    with pytest.raises(WeightsFormatError, match=r"x: tensor 't': cannot be read: Input/output error"):
        list(windows(header, header.entries["t"]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "float8_e5m2", "complex64"])
def test_bad_values_are_counted(dtype: str, tmp_path: Path) -> None:
    values = np.array([0, 1, np.nan, np.inf, -np.inf, np.nan, 2, np.inf])
    header = write_one(tmp_path / "x", values.astype(numpy_dtype(dtype)), dtype)
    assert num_bad_values(header, header.entries["t"]) == (2, 3)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8"])
def test_integers_are_never_bad(dtype: str, tmp_path: Path) -> None:
    header = write_one(tmp_path / "x", np.ones(9, dtype), dtype)
    assert num_bad_values(header, header.entries["t"]) == (0, 0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float8_e4m3fn", (1, 0)), ("float8_e8m0fnu", (1, 0)), ("float4_e2m1fn_x2", (0, 0)), ("float6_e2m3fn", (0, 0))],
)
def test_narrow_types(dtype: str, expected: tuple[int, int], tmp_path: Path) -> None:
    raw = np.array([0xFF if dtype == "float8_e8m0fnu" else 0x7F, 0, 0], np.uint8)
    shape = {"float4_e2m1fn_x2": (6,), "float6_e2m3fn": (4,)}.get(dtype, (3,))
    header = write_one(tmp_path / "x", raw, dtype, shape)
    assert num_bad_values(header, header.entries["t"]) == expected
