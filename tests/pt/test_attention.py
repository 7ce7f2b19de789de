from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrained.errors import ConfigError
from pretrained.pt import attention
from pretrained.pt.attention import ATTENTION, attend, distance_bias, eager, merge_heads, register, sdpa, split_heads

LEAST = torch.finfo(torch.float32).min


def inputs(groups: int = 4, queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, queries, 6), torch.randn(2, groups, keys, 6), torch.randn(2, groups, keys, 6)


def slow(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention row by row."""
    out = torch.zeros_like(query)
    share = query.shape[1] // key.shape[1]
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for i in range(query.shape[2]):
                scores = [
                    scale * float(query[b, h, i] @ key[b, h // share, j]) + float(mask[b, h, i, j])
                    for j in range(key.shape[2])
                ]
                top = max(scores)
                powers = [math.exp(s - top) for s in scores]
                for j, power in enumerate(powers):
                    out[b, h, i] += power / sum(powers) * value[b, h // share, j]
    return out


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_against_loops(name: str, groups: int) -> None:
    query, key, value = inputs(groups)
    mask = torch.where(torch.rand(2, 4, 5, 7) < 0.3, LEAST, 0.0)
    mask[0, 0, 0] = LEAST  # a row with everything masked: even weights, no NaN
    out, _ = attend(name, query, key, value, mask, scale=0.4)
    torch.testing.assert_close(out, slow(query, key, value, mask, 0.4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("given", ["none", "causal", "row", "heads"])
@pytest.mark.parametrize("name", sorted(set(ATTENTION) - {"eager"}))
def test_against_eager(name: str, given: str, groups: int) -> None:
    query, key, value = (x.requires_grad_() for x in inputs(groups, 7, 7))
    mask = {"row": torch.where(torch.rand(2, 1, 1, 7) < 0.3, LEAST, 0.0), "heads": torch.randn(2, 4, 7, 7)}.get(given)
    results = []
    for function in (ATTENTION[name], eager):
        out, _ = function(query, key, value, mask, scale=0.3, dropout=0.0, causal=given == "causal")
        results.append((out, *torch.autograd.grad(out.square().sum(), (query, key, value))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    query, key, value = (x.to(dtype) for x in inputs())
    out, weights = eager(query, key, value, scale=0.4)
    assert out.dtype == weights.dtype == dtype
    exact, _ = eager(*(x.double() for x in (query, key, value)), scale=0.4)
    torch.testing.assert_close(out.double(), exact, atol=1e-12 if dtype == torch.float64 else 0.03, rtol=0)


def test_weights_and_head_mask_are_computed_by_eager() -> None:
    query, key, value = inputs()
    out, weights = attend("sdpa", query, key, value, scale=0.4, need_weights=True)
    assert weights is not None
    torch.testing.assert_close(weights @ value, out)
    off = torch.tensor([1.0, 0, 1, 1])[None, :, None, None]
    masked, weights = attend("sdpa", query, key, value, scale=0.4, head_mask=off)
    torch.testing.assert_close(masked, out * off)
    assert sdpa(query, key, value, scale=0.4)[1] is None


def test_dropout() -> None:
    query, key, value = inputs()
    torch.manual_seed(0)
    _, weights = eager(query, key, value, scale=0.4, dropout=0.5)
    _, plain = eager(query, key, value, scale=0.4)
    kept = weights != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(weights[kept], 2 * plain[kept])
    assert not torch.equal(sdpa(query, key, value, scale=0.4, dropout=0.5)[0], sdpa(query, key, value, scale=0.4)[0])


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "ATTENTION", dict(ATTENTION))

    def mean(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any) -> tuple[Tensor, None]:
        return value.mean(2, keepdim=True).expand_as(query), None

    register("mean", mean)
    query, key, value = inputs()
    assert torch.equal(attend("mean", query, key, value, scale=1.0)[0][:, :, 0], value.mean(2))
    with pytest.raises(ValueError, match="'mean' is registered already"):
        register("mean", mean)
    register("mean", mean, exist_ok=True)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"attn_implementation='eagre' is not known. Did you mean 'eager'\?") as error:
        attend("eagre", *inputs(), scale=1.0)
    assert error.value.key == "attn_implementation"


def test_heads_are_split_and_merged() -> None:
    x = torch.randn(2, 5, 24)
    heads = split_heads(x, 6)
    assert heads.shape == (2, 4, 5, 6)
    assert torch.equal(heads[1, 2, 3], x[1, 3, 12:18])
    assert heads.data_ptr() == x.data_ptr()
    assert torch.equal(merge_heads(heads), x)


@pytest.mark.parametrize("by_key", [False, True])
def test_distance_bias(by_key: bool) -> None:
    query, key, _ = inputs(queries=3, keys=7)
    table = torch.nn.Embedding(21, 6)
    bias = distance_bias(query, key, table, by_key=by_key)
    placed = distance_bias(query, key, table, by_key=by_key, positions=torch.tensor([4, 5, 6]))
    assert torch.equal(bias, placed)
    for i in range(3):
        for j in range(7):
            vector = table.weight[(i + 4) - j + 10]
            expected = query[:, :, i] @ vector + (key[:, :, j] @ vector if by_key else 0)
            torch.testing.assert_close(bias[:, :, i, j], expected)
