"""Comparing two checkpoints: each verdict, the numbers against numpy's, and bounded memory."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint import compare as module
from pretrained.checkpoint.compare import TensorDiff, compare, compare_configs
from pretrained.checkpoint.find import Weights
from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.errors import InvalidOptionError

BF16 = ml_dtypes.bfloat16


def weights(**arrays: Any) -> Weights:
    named = {name.replace("__", "."): np.asarray(array) for name, array in arrays.items()}
    container = StateDict(named, lambda x: (x.shape, x.dtype.name))
    return Weights({MEMORY: container}, container.entries)


def one(a: Any, b: Any, **options: Any) -> TensorDiff:
    (found,) = compare(weights(t=a), weights(t=b), **options)
    return found


def test_names() -> None:
    a, b = weights(x=[1.0], y=[1.0]), weights(z=[1.0], y=[1.0])
    found = {item.name: item for item in compare(a, b)}
    assert {name: item.kind for name, item in found.items()} == {"x": "only_a", "y": "equal", "z": "only_b"}
    assert list(found) == ["x", "y", "z"]
    assert found["x"].b is None
    assert found["z"].a is None
    assert [item.is_difference for item in found.values()] == [True, False, True]


def test_prefix() -> None:
    base, head = weights(a__w=[1.0]), weights(bert__a__w=[1.0], cls=[2.0])
    assert [item.kind for item in compare(base, head, ignore_prefix="bert")] == ["equal", "only_b"]
    assert [item.kind for item in compare(head, base, ignore_prefix="bert.")] == ["equal", "only_a"]
    with pytest.raises(InvalidOptionError, match=r"'bert\.a\.w' and 'a\.w' are one name"):
        list(compare(weights(a__w=[1.0], bert__a__w=[1.0]), base, ignore_prefix="bert"))


def test_shape_and_dtype() -> None:
    assert one(np.zeros((2, 3)), np.zeros((3, 2))).kind == "shape"
    assert one(np.zeros(3, np.float32), np.zeros(3, np.float64)).kind == "dtype"
    assert one(np.zeros(3, np.float32), np.zeros(3, np.float64), ignore_dtype=True).kind == "equal"
    assert one(np.zeros((0, 3)), np.zeros((0, 3))).kind == "equal"
    third = np.array([1 / 3])
    found = one(third, third.astype(BF16), ignore_dtype=True)
    assert (found.kind, found.num_different) == ("values", 1)
    assert found.max_abs == abs(third[0] - float(third.astype(BF16)[0]))
    assert one(third, third.astype(BF16), ignore_dtype=True, rtol=2**-8).kind == "close"


def test_bits_decide() -> None:
    nan, other_nan = np.array([0x7FC00000], np.uint32).view("f4"), np.array([0x7FC00001], np.uint32).view("f4")
    assert one(nan, nan).kind == "equal"
    found = one(nan, other_nan)
    assert (found.kind, found.num_different, found.num_nonfinite, found.max_abs) == ("values", 1, 1, 0.0)
    found = one([0.0], [-0.0])
    assert (found.kind, found.num_different, found.max_abs, found.max_rel) == ("values", 1, 0.0, 0.0)
    assert one([0.0], [-0.0], atol=1e-30).kind == "close"
    assert one([np.inf], [np.inf]).kind == "equal"
    assert one([np.inf], [1.0], rtol=10, atol=10).kind == "values"
    assert one(np.float32([np.nan, 0]), [np.nan, -0.0], ignore_dtype=True).kind == "equal"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "uint64", "float16", BF16, "complex64", "complex128"])
def test_every_dtype(dtype: Any) -> None:
    a = np.array([0, 1, 0, 1]).astype(dtype)
    b = np.array([0, 1, 1, 1]).astype(dtype)
    assert one(a, a).kind == "equal"
    found = one(a, b)
    assert (found.kind, found.num_elements, found.num_different) == ("values", 4, 1)
    assert (found.max_abs, found.max_rel) == (1.0, 1.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 2, st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.0, 1e-3, 0.5]),
    st.sampled_from([0.0, 1.0, 1e20]),
    st.integers(1, 9),
)
def test_numbers_are_numpy_s(pairs: list[tuple[float, float, bool]], rtol: float, atol: float, size: int) -> None:
    a = np.array([x for x, _, _ in pairs], np.float32)
    b = np.array([x if same else y for x, y, same in pairs], np.float32)
    whole = module.PER_WINDOW
    module.PER_WINDOW = size
    try:
        found = one(a, b, rtol=rtol, atol=atol)
    finally:
        module.PER_WINDOW = whole
    wide_a, wide_b = a.astype(float), b.astype(float)
    differs = a.view("u4") != b.view("u4")
    distance, larger = np.abs(wide_a - wide_b), np.maximum(np.abs(wide_a), np.abs(wide_b))
    assert found.num_elements == a.size
    assert found.num_different == differs.sum()
    assert found.max_abs == distance.max()
    assert found.max_rel == max((d / n for d, n in zip(distance, larger, strict=True) if n > 0), default=0.0)
    if rtol or atol:
        assert (found.kind in ("equal", "close")) == np.allclose(wide_a, wide_b, rtol=rtol, atol=atol)
    else:
        assert (found.kind == "equal") == (not differs.any())


def test_progress_counts_the_first_side() -> None:
    counts: list[int] = []
    list(
        compare(weights(x=np.zeros(3, "f4"), y=np.zeros(2, "f4")), weights(y=np.zeros(2, "f4")), progress=counts.append)
    )
    assert counts == [12, 8]


@pytest.mark.parametrize("options", [{"rtol": -1.0}, {"atol": float("nan")}])
def test_tolerances(options: dict[str, float]) -> None:
    with pytest.raises(InvalidOptionError, match="must be a number from 0 up"):
        one([1.0], [1.0], **options)


def test_configs() -> None:
    a = {"x": 1, "y": [1], "same": 0, "torch_dtype": "float32", "transformers_version": "4", "_name_or_path": "p"}
    b = {"x": True, "y": [1, 2], "same": 0.0, "dtype": "float32", "none": None}
    assert compare_configs(a, b) == {"x": (1, True), "y": ([1], [1, 2])}
    assert compare_configs(a, a) == {}
