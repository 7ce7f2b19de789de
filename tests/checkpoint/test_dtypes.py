"""Which dtype each parameter gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.checkpoint.dtypes import (
    DtypePolicy,
    can_hold,
    can_overflow,
    dtype_name,
    is_complex,
    is_floating,
    known_dtype,
)
from pretrained.checkpoint.tensors import BITS, Entry
from pretrained.errors import ConfigError, InvalidOptionError

INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
NUMPY_FLOATS = ["float16", "float32", "float64", "bfloat16", "float8_e5m2", "float8_e4m3fn"]


def entry(dtype: str, name: str = "w") -> Entry:
    return Entry(name, dtype, (2,), Path("f"), 0, 2 * BITS[dtype] // 8)


@pytest.mark.parametrize("name", BITS)
def test_every_dtype_is_of_one_kind(name: str) -> None:
    assert is_floating(name) + is_complex(name) + (name in INTEGERS) == 1
    assert dtype_name(name) == dtype_name(f"torch.{name}") == known_dtype(name) == name


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("half", "float16"),
        ("float", "float32"),
        ("double", "float64"),
        ("torch.half", "float16"),
        (np.float16, "float16"),
        (np.dtype("float64"), "float64"),
        (np.dtype(ml_dtypes.bfloat16), "bfloat16"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        (type("T", (), {"__repr__": lambda self: "torch.bfloat16"})(), "bfloat16"),
    ],
)
def test_spellings(dtype: Any, name: str) -> None:
    assert dtype_name(dtype) == name


@pytest.mark.parametrize("dtype", ["load", "__builtins__", "float99", "", "torch", "torch.load", 5, None, [], object()])
def test_no_dtypes(dtype: Any) -> None:
    assert known_dtype(dtype) is None
    with pytest.raises(InvalidOptionError, match=r"mine=.* is no dtype; one of: bfloat16, float16") as caught:
        dtype_name(dtype, "mine")
    assert caught.value.key == "mine"


@pytest.mark.parametrize("source", NUMPY_FLOATS)
@pytest.mark.parametrize("target", NUMPY_FLOATS)
def test_overflow_is_what_numpy_does(source: str, target: str) -> None:
    kinds = {name: np.dtype(getattr(ml_dtypes, name, None) or name) for name in (source, target)}
    largest = np.array(ml_dtypes.finfo(kinds[source]).max, kinds[source])
    with np.errstate(over="ignore"):
        is_lost = not np.isfinite(largest.astype(kinds[target]).astype(np.float64))
    assert can_overflow(source, target) == is_lost


def test_nothing_overflows_into_integers() -> None:
    assert not can_overflow("float32", "int8")
    assert not can_overflow("int64", "float16")


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", INTEGERS)
def test_can_hold_is_numpys_safe_cast(source: str, target: str) -> None:
    assert can_hold(target, source) == np.can_cast(source, target, "safe")


# The policy


@pytest.mark.parametrize("request_", [None, "auto"])
@pytest.mark.parametrize(
    ("config", "entries", "expected"),
    [
        ("float16", ["float32"], "float16"),
        (None, ["int64", "bfloat16", "float32"], "bfloat16"),
        ("auto", ["bfloat16"], "bfloat16"),
        (None, [], "float32"),
        (None, ["int64"], "float32"),
        (np.float16, ["float32"], "float16"),
        ({"text": "float16"}, ["bfloat16"], "bfloat16"),
    ],
)
def test_the_checkpoints_own(request_: Any, config: Any, entries: list[str], expected: str) -> None:
    policy = DtypePolicy.of(request_, config, map(entry, entries))
    assert policy.default == policy.dtype_of("anything") == expected
    assert policy.is_uniform


@pytest.mark.parametrize("config", ["int8", "load", "float99", 5, ["float16"]])
def test_a_config_with_an_impossible_dtype(config: Any) -> None:
    with pytest.raises(ConfigError, match="no floating dtype") as caught:
        DtypePolicy.of(None, config, [])
    assert caught.value.key == "dtype"
    assert DtypePolicy.of("float16", config, []).default == "float16"  # it does not matter then


@pytest.mark.parametrize("request_", ["float16", "torch.float16", "half", np.float16])
def test_what_the_caller_asked(request_: Any) -> None:
    assert DtypePolicy.of(request_, "float32", [entry("bfloat16")]).default == "float16"


@pytest.mark.parametrize(
    "request_", ["int8", "bool", "complex64", {"a": "int8"}, {"": "bool"}, {"a": "auto"}, {3: "float16"}]
)
def test_only_floating_dtypes(request_: Any) -> None:
    with pytest.raises(InvalidOptionError, match="dtype"):
        DtypePolicy.of(request_, None, [])


def test_a_dtype_for_each_module() -> None:
    policy = DtypePolicy.of({"": "bfloat16", "a": "float32", "a.b": "float16"}, None, [])
    assert not policy.is_uniform
    expected = {
        "x": "bfloat16",
        "ab": "bfloat16",
        "a": "float32",
        "a.c": "float32",
        "a.b": "float16",
        "a.b.c": "float16",
        "a.bc": "float32",
        "c.a": "bfloat16",
    }
    assert {name: policy.dtype_of(name) for name in expected} == expected
    assert DtypePolicy.of({"a": "float16"}, "float64", []).default == "float64"


@pytest.mark.parametrize(
    ("default", "kept"), [("float16", True), ("bfloat16", False), ("float32", False), ("float64", False)]
)
def test_kept_in_float32(default: str, kept: bool) -> None:
    policy = DtypePolicy.of(default, None, [], ["wo", "norm"])
    assert policy.is_uniform != kept
    assert policy.dtype_of("layers.0.wo.weight") == ("float32" if kept else default)
    assert policy.dtype_of("layers.0.wow.weight") == default
    assert DtypePolicy.of({"": default, "layers": "float16"}, None, [], ["wo"]).dtype_of("layers.wo") == "float16"


@given(
    st.text(alphabet="ab.", max_size=8),
    st.dictionaries(st.text(alphabet="ab.", max_size=4), st.sampled_from(["float16", "float32"])),
)
def test_the_longest_name_wins(name: str, request_: dict[str, str]) -> None:
    policy = DtypePolicy.of(request_, "bfloat16", [])
    fitting = [module for module in request_ if module and (name == module or name.startswith(module + "."))]
    expected = request_[max(fitting, key=len)] if fitting else request_.get("", "bfloat16")
    assert policy.dtype_of(name) == expected
