"""Rules: renames and layout changes, each with its inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.checkpoint.rules import (
    Permute,
    Reshape,
    Rule,
    apply_ops,
    legacy_names,
    rules_from_mapping,
    shape_after,
)

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def ops_and_shape(draw: st.DrawFn) -> tuple[list[Permute | Reshape], tuple[int, ...]]:
    """Some ops, one after the other, and a shape that they take."""
    shape = first = draw(SHAPES)
    ops: list[Permute | Reshape] = []
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            op: Permute | Reshape = Permute(tuple(draw(st.permutations(range(len(shape))))))
        else:
            size = math.prod(shape)
            divisors = [d for d in range(1, size + 1) if size % d == 0] or [0]
            other = draw(st.sampled_from(divisors))
            op = Reshape(shape, (other, size // other) if other else (0, 3))
        ops.append(op)
        shape = op.shape(shape)
    return ops, first


@given(ops_and_shape())
def test_inverse_after_op_is_the_identity(case: tuple[list[Permute | Reshape], tuple[int, ...]]) -> None:
    ops, shape = case
    array = np.arange(math.prod(shape)).reshape(shape)
    there = apply_ops(ops, array)
    assert there.shape == shape_after(ops, shape)
    back = [op.inverse for op in reversed(ops)]
    assert shape_after(back, there.shape) == shape
    np.testing.assert_array_equal(apply_ops(back, there), array)
    assert [op.inverse.inverse for op in ops] == ops


@given(ops_and_shape())
def test_the_inverse_of_a_rule_undoes_name_and_layout(case: tuple[list[Permute | Reshape], tuple[int, ...]]) -> None:
    ops, shape = case
    rule = Rule(r"^a\.(\d+)\.", r"layers.\1.", tuple(ops), back=(r"^layers\.(\d+)\.", r"a.\1."))
    name = rule.rename("a.7.w")
    assert name == "layers.7.w"
    assert rule.inverse.rename(name) == "a.7.w"
    assert shape_after(rule.inverse.ops, shape_after(rule.ops, shape)) == shape
    assert rule.inverse.inverse == rule


def test_permute_is_numpys_transpose() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(Permute((2, 0, 1)).apply(array), array.transpose(2, 0, 1))
    assert Permute((2, 0, 1)).apply(array).base is not None  # a view
    assert Permute((2, 0, 1)).shape((2, 3, 4)) == (4, 2, 3)


def test_permute_of_what_only_has_permute() -> None:
    class Torch:
        def transpose(self, first: int, second: int) -> None:
            raise AssertionError("torch's transpose swaps two axes")

        def permute(self, axes: tuple[int, ...]) -> tuple[int, ...]:
            return axes

    assert Permute((1, 0)).apply(Torch()) == (1, 0)


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Permute((0, 1)), (2,)),
        (Permute(()), (1,)),
        (Reshape((2, 3), (6,)), (3, 2)),
        (Reshape((2, 3), (5,)), (2, 3)),
    ],
)
def test_shapes_that_do_not_fit(op: Permute | Reshape, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        op.shape(shape)


def test_a_rule_that_does_not_speak_of_a_name() -> None:
    assert Rule("^x", "y").rename("ax") is None
    assert Rule("x", "x").rename("x") == "x"
    with pytest.raises(ValueError, match="names no way back"):
        Rule("a", "b").inverse  # noqa: B018


def test_rules_from_mapping_keep_their_order() -> None:
    assert rules_from_mapping(None) == ()
    assert rules_from_mapping({"a": "b", "b": "c"}) == (Rule("a", "b"), Rule("b", "c"))


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("x.LayerNorm.gamma", ["x.LayerNorm.weight"]),
        ("x.LayerNorm.beta", ["x.LayerNorm.bias"]),
        ("conv.weight_g", ["conv.parametrizations.weight.original0"]),
        ("conv.parametrizations.weight.original1", ["conv.weight_v"]),
        ("gamma", []),
        ("x.gamma_1", []),
        ("x.mygamma", []),
        ("x.gamma.y", []),
    ],
)
def test_legacy_names_are_whole_endings(name: str, now: list[str]) -> None:
    assert legacy_names(name) == now
