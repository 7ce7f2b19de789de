from __future__ import annotations

from typing import Any

import pytest
import torch

from pretrained.pt import masks
from pretrained.pt.kv_cache import KVCache, StaticKVCache

LEAST = torch.finfo(torch.float32).min


def causal(attention_mask: torch.Tensor | None, queries: int, keys: int, **more: Any) -> Any:
    given = {"dtype": torch.float32, "device": torch.device("cpu")} | more
    return masks.causal(attention_mask, query_length=queries, key_length=keys, **given)


def visible(mask: torch.Tensor) -> torch.Tensor:
    assert set(mask.unique().tolist()) <= {0.0, LEAST}
    return mask == 0


def test_nothing_to_mask() -> None:
    assert masks.bidirectional(None, torch.float32) is None
    assert masks.bidirectional(torch.ones(2, 4), torch.float32) is None
    assert causal(None, 4, 4) == (None, True)
    assert causal(torch.ones(2, 4), 4, 4) == (None, True)
    assert causal(None, 1, 9) == (None, False)
    assert causal(torch.ones(2, 9), 1, 9) == (None, False)
    assert causal(None, 1, 1) == (None, False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_padding(dtype: torch.dtype) -> None:
    mask = masks.bidirectional(torch.tensor([[1, 1, 0], [1, 1, 1]]), dtype)
    assert mask is not None
    assert mask.dtype == dtype
    assert mask.shape == (2, 1, 1, 3)
    assert (mask == 0).flatten().tolist() == [True, True, False, True, True, True]
    assert torch.isfinite(mask).all()


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.float32])
def test_two_axes_of_any_dtype(kind: torch.dtype) -> None:
    keep = torch.tensor([[1, 0, 1]]).to(kind)
    mask = masks.bidirectional(keep, torch.float32)
    assert mask is not None
    assert visible(mask).flatten().tolist() == [True, False, True]


def test_masks_of_three_and_four_axes() -> None:
    keep = torch.rand(2, 3, 4) < 0.5
    for given in (keep, keep.int(), keep[:, None], keep[:, None].long()):
        mask = masks.bidirectional(given, torch.float32)
        assert mask is not None
        assert torch.equal(visible(mask)[:, 0], keep)
        whole, implied = causal(given, 3, 4)
        assert torch.equal(visible(whole)[:, 0], keep)
        assert not implied
    additive = torch.randn(2, 1, 3, 4)
    assert torch.equal(masks.bidirectional(additive, torch.float32), additive)
    assert masks.bidirectional(additive, torch.bfloat16).dtype == torch.bfloat16
    for shape in ((3,), (1, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="must have 2, 3 or 4 axes"):
            masks.bidirectional(torch.ones(shape), torch.float32)


def test_causal_with_a_past() -> None:
    mask, implied = causal(None, 3, 5)
    assert not implied
    expected = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    assert torch.equal(visible(mask)[0, 0], expected)
    mask, _ = causal(torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]), 3, 5)
    assert torch.equal(visible(mask)[1, 0], expected)
    assert torch.equal(visible(mask)[0, 0], expected & torch.tensor([0, 1, 1, 1, 1]).bool())


def test_causal_by_positions() -> None:
    mask, _ = causal(None, 2, 6, positions=torch.tensor([2, 3]))
    assert visible(mask)[0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    short, _ = causal(torch.tensor([[0, 1, 1, 1]]), 2, 6, positions=torch.tensor([2, 3]))
    assert visible(short)[0, 0].int().tolist() == [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]]


def test_explicit() -> None:
    mask, implied = causal(None, 3, 3, explicit=True)
    assert not implied
    assert torch.equal(visible(mask)[0, 0], torch.ones(3, 3).tril().bool())


@pytest.mark.parametrize("length", [4, 6])
def test_a_mask_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"attention_mask is {length} long, expected 5"):
        causal(torch.ones(1, length), 3, 5)


def test_over_a_cache() -> None:
    states, places = torch.zeros(1, 2, 8), torch.tensor([3, 4])
    grown = KVCache([(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))])
    fixed = StaticKVCache(1, 1, 1, 6, 4)
    mask, _ = masks.causal_over(grown, None, states, places)
    assert mask.shape == (1, 1, 2, 5)
    full, _ = masks.causal_over(fixed, None, states, places)
    assert full.shape == (1, 1, 2, 6)
    assert torch.equal(full[..., :5], mask)
    assert visible(full)[..., 5].sum() == 0
    assert masks.causal_over(None, None, states, places) == (None, True)


def test_a_bias_never_makes_an_infinity() -> None:
    bias = torch.full((1, 1, 1, 2), -1e4, dtype=torch.float16)
    mask = masks.additive(torch.zeros(1, 1, 1, 2), torch.float16)
    assert torch.isfinite(masks.add_bias(mask, bias)).all()
    assert masks.add_bias(None, bias) is bias


def test_values_are_not_looked_at_while_compiling() -> None:
    def function(mask: torch.Tensor) -> torch.Tensor | None:
        return masks.bidirectional(mask, torch.float32)

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(1, 3)), torch.zeros(1, 1, 1, 3))
    assert not masks.is_trivial(torch.ones(2, device="meta"))


def test_head_masks() -> None:
    assert masks.split_head_mask(None, 2) == [None, None]
    one = masks.split_head_mask(torch.tensor([1.0, 0.0]), 3)
    assert [m.shape for m in one if m is not None] == [(1, 2, 1, 1)] * 3
    each = masks.split_head_mask(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 2)
    assert each[1] is not None
    assert each[1].flatten().tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"head_mask must be \(heads,\) or \(2, heads\)"):
        masks.split_head_mask(torch.ones(3, 2), 2)
