"""Losses from labels, as the reference's models compute them. Labels of -100 are not counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers import unknown_name

__all__ = [
    "IGNORED",
    "PROBLEM_TYPES",
    "causal_lm",
    "cross_entropy",
    "infer_problem_type",
    "load_balance",
    "masked_lm",
    "multiple_choice",
    "next_sentence",
    "pretraining",
    "question_answering",
    "sequence_classification",
    "token_classification",
]

IGNORED = -100
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """Mean cross entropy of `(…, classes)` against `(…)`, in float32 or better.

    With `num_items_in_batch` it is the sum divided by that number: what gradient accumulation needs, where the mean
    of each part would give short parts too much weight.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
    target = labels.to(logits.device).flatten()
    if num_items_in_batch is None:
        return F.cross_entropy(wide, target, ignore_index=ignore_index)
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    return F.cross_entropy(wide, target, ignore_index=ignore_index, reduction="sum") / num_items_in_batch


def causal_lm(
    logits: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """Loss of predicting token `i + 1` at `i`: `logits` `(batch, seq, vocab)`, `labels` `(batch, seq)` unshifted."""
    # The labels move, not the logits: moving a column of labels is free, slicing the logits copies them.
    shifted = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return cross_entropy(logits, shifted, num_items_in_batch, ignore_index)


def load_balance(
    router_logits: Sequence[Tensor], num_experts: int, top_k: int, attention_mask: Tensor | None = None
) -> Tensor:
    """How unevenly tokens choose experts: 1 at the best (Switch Transformer, arXiv 2101.03961, equations 4 to 6).

    Args:
        router_logits: `(batch * seq, experts)` of each layer.
        num_experts: how many there are.
        top_k: how many a token chooses.
        attention_mask: `(batch, past + seq)`; tokens it has as 0 do not count.
    """
    device, rows = router_logits[0].device, router_logits[0].shape[0]
    seen = torch.ones(rows, device=device)
    if attention_mask is not None and attention_mask.dim() == 2:
        new = rows // attention_mask.shape[0]
        seen = (attention_mask[:, -new:] != 0).flatten().to(device, torch.float32)
    chosen, shares = torch.zeros(num_experts, device=device), torch.zeros(num_experts, device=device)
    for logits in router_logits:
        weights = logits.to(device).softmax(-1)
        best = weights.topk(top_k, -1).indices.flatten()
        chosen = chosen.scatter_add(0, best, seen.repeat_interleave(top_k))
        shares = shares + (weights.float() * seen[:, None]).sum(0)
    total = seen.sum() * len(router_logits)
    return num_experts * (chosen / total * (shares / total)).sum()


def masked_lm(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Loss at the masked tokens: `logits` `(batch, seq, vocab)`, `labels` `(batch, seq)`, -100 where not masked."""
    return cross_entropy(logits, labels, num_items_in_batch)


def next_sentence(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of `(batch, 2)` against 0 (the second text follows the first) or 1 (it does not)."""
    return cross_entropy(logits.view(-1, 2), labels)


def pretraining(prediction_logits: Tensor, pair_logits: Tensor, labels: Tensor, pair_labels: Tensor) -> Tensor:
    """Sum of the masked-token and the next-sentence loss, as BERT was trained."""
    return masked_lm(prediction_logits, labels) + next_sentence(pair_logits, pair_labels)


def token_classification(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Loss per token: `logits` `(batch, seq, labels)` against `(batch, seq)`."""
    return cross_entropy(logits, labels, num_items_in_batch)


def multiple_choice(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of `(batch, choices)` against the right choice `(batch,)`."""
    return cross_entropy(logits, labels)


def infer_problem_type(num_labels: int, labels: Tensor) -> str:
    """What the labels are for, when the config does not say: a number, one class out of many, or any set of classes."""
    if num_labels == 1:
        return "regression"
    return PROBLEM_TYPES[1] if labels.dtype in (torch.int64, torch.int32) else PROBLEM_TYPES[2]


def sequence_classification(
    logits: Tensor,
    labels: Tensor,
    num_labels: int,
    problem_type: str | None = None,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Loss of `(batch, labels)`: squared error, cross entropy or binary cross entropy, by `problem_type`.

    `num_items_in_batch` as in `cross_entropy`; of numbers and of sets of classes every element is an item.

    Raises:
        ConfigError: the problem type is none of `PROBLEM_TYPES`.
    """
    kind = problem_type or infer_problem_type(num_labels, labels)
    labels = labels.to(logits.device)
    reduction = "mean" if num_items_in_batch is None else "sum"
    count = 1 if num_items_in_batch is None else num_items_in_batch
    if kind == "regression":
        if num_labels == 1:
            logits, labels = logits.squeeze(), labels.squeeze()
        return F.mse_loss(logits, labels, reduction=reduction) / count
    if kind == "single_label_classification":
        return cross_entropy(logits.view(-1, num_labels), labels, num_items_in_batch)
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels, reduction=reduction) / count
    raise unknown_name("problem_type", kind, PROBLEM_TYPES)


def question_answering(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean of the losses of the two ends of the answer, `(batch, seq)` against `(batch,)`.

    An answer that was cut off lies beyond the text and is not counted.
    """
    length = start_logits.shape[1]
    total = [
        cross_entropy(logits, place.reshape(-1).clamp(0, length), ignore_index=length)
        for logits, place in ((start_logits, start), (end_logits, end))
    ]
    return (total[0] + total[1]) / 2
