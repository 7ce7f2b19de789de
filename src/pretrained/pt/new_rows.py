"""Values for the rows that an embedding gains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["drawn_like"]

# New embeddings stand close to the mean, or their logits would exceed all others from the start (Hewitt, "Initializing
# New Word Embeddings for Pretrained Language Models", 2021).
SHRINK = 1e-9

_FEW = 2**22  # products of old and new rows up to which every new row has random numbers of its own
_BUCKETS = 1024  # at least so many rows are taken at a time


@torch.no_grad()
def drawn_like(old: Tensor, num_new: int) -> Tensor:
    """`(num_new, features)` draws from a normal distribution: the mean of the old rows, 1e-9 of their covariance.

    The covariance is never formed. With `C = old - mean`, `(rows, features)`, and `z` standard normal, `C' z` over
    `sqrt(rows)` has the covariance `C' C / rows`, which is the one wanted: one pass over the old rows rather than
    a product of `rows * features²`. Nothing is factorised, so it holds for fewer rows than features too.

    Args:
        old: `(rows, features)`.
        num_new: how many.

    Returns:
        The draws, in float32 or better. Up to some millions of `rows * num_new` they are independent. Beyond, they
        share one `z`: each has exactly the distribution above, and any two are uncorrelated over the choice of signs.
    """
    if num_new * len(old) <= _FEW:
        mixed, weights, mean = _mixed_apart(old, num_new)
    else:
        mixed, weights, mean = _mixed_together(old, num_new)
    return mean + math.sqrt(SHRINK / len(old)) * (mixed - weights[:, None] * mean)


def _wide(old: Tensor) -> torch.dtype:
    return torch.promote_types(old.dtype, torch.float32)


def _mixed_apart(old: Tensor, num_new: int) -> tuple[Tensor, Tensor, Tensor]:
    """(`Z old`, the sum of each row of `Z`, the mean of `old`) for a standard normal `Z`, `(num_new, rows)`."""
    normal = torch.randn(num_new, len(old), dtype=_wide(old), device=old.device)
    mixed = normal.new_zeros(num_new, old.shape[1])
    total = normal.new_zeros(old.shape[1])
    for rows, factors in zip(old.split(_BUCKETS), normal.split(_BUCKETS, 1), strict=True):
        wide = rows.to(normal.dtype)
        mixed.addmm_(factors, wide)
        total += wide.sum(0)
    return mixed, normal.sum(1), total / len(old)


def _mixed_together(old: Tensor, num_new: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `_mixed_apart`, with one normal number for each old row, and signs that differ from new row to new row.

    Old rows, each times its number, are added up in buckets; a new row is the sum of all buckets, with the signs of a
    row of a Hadamard matrix. Signs do not change what `z` is, and the rows of the matrix are orthogonal: as every old
    row is equally likely in any bucket, the products of two new rows cancel on average.
    """
    num_buckets = max(_BUCKETS, 1 << (num_new - 1).bit_length())
    buckets = torch.zeros(num_buckets, old.shape[1], dtype=_wide(old), device=old.device)
    weights = buckets.new_zeros(num_buckets, 1)
    total = buckets.new_zeros(old.shape[1])
    for block in old.split(num_buckets):
        wide = block.to(buckets.dtype)
        normal = torch.randn(len(block), 1, dtype=buckets.dtype, device=old.device)
        start = int(torch.randint(num_buckets, ()))
        for first, last, place in _turned(len(block), start, num_buckets):
            buckets[place : place + last - first].addcmul_(wide[first:last], normal[first:last])
            weights[place : place + last - first] += normal[first:last]
        total += wide.sum(0)
    return _signed_sums(buckets)[:num_new], _signed_sums(weights)[:num_new, 0], total / len(old)


def _turned(length: int, start: int, size: int) -> list[tuple[int, int, int]]:
    """(first, last, place) of the pieces of `range(length)`, laid from `start` on around a ring of `size` places."""
    cut = min(length, size - start)
    return [(0, cut, start), (cut, length, 0)] if cut < length else [(0, cut, start)]


def _signed_sums(x: Tensor) -> Tensor:
    """The product of a Hadamard matrix and `(2**k, features)`: k times sums and differences of pairs of blocks."""
    step = 1
    while step < len(x):
        first, second = x.view(-1, 2, step * x.shape[1]).unbind(1)
        x = torch.stack((first + second, first - second), 1).view(x.shape)
        step *= 2
    return x
