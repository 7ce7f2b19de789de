from __future__ import annotations

import math

import pytest
import torch
from tests.pt.every_head import HEADS, build

from pretrained.errors import ConfigError
from pretrained.pt import losses


def negative_log(logits: torch.Tensor, label: int) -> float:
    return -math.log(math.exp(float(logits[label])) / sum(math.exp(float(v)) for v in logits))


def test_causal_lm_predicts_the_next_token() -> None:
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[1, 2, -100, 4], [0, -100, 3, 3]])
    each = [negative_log(logits[b, i], int(labels[b, i + 1])) for b, i in ((0, 0), (0, 2), (1, 1), (1, 2))]
    assert losses.causal_lm(logits, labels).item() == pytest.approx(sum(each) / 4, rel=1e-5)
    assert losses.causal_lm(logits, labels, 10).item() == pytest.approx(sum(each) / 10, rel=1e-5)
    assert losses.causal_lm(logits, labels, torch.tensor(8)).item() == pytest.approx(sum(each) / 8, rel=1e-5)


def test_parts_of_a_batch_add_up() -> None:
    logits, labels = torch.randn(4, 6, 5), torch.randint(0, 5, (4, 6))
    labels[0, 2:] = -100
    counted = int((labels[:, 1:] != -100).sum())
    whole = losses.causal_lm(logits, labels)
    parts = sum(losses.causal_lm(logits[i : i + 1], labels[i : i + 1], counted) for i in range(4))
    torch.testing.assert_close(parts, whole)


def test_masked_lm_and_tokens() -> None:
    logits, labels = torch.randn(1, 3, 4), torch.tensor([[-100, 2, 1]])
    expected = (negative_log(logits[0, 1], 2) + negative_log(logits[0, 2], 1)) / 2
    assert losses.masked_lm(logits, labels).item() == pytest.approx(expected, rel=1e-5)
    assert losses.token_classification(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_widened() -> None:
    logits = torch.randn(1, 3, 4).half()
    assert losses.masked_lm(logits, torch.tensor([[0, 1, 2]])).dtype == torch.float32
    assert losses.masked_lm(logits.double(), torch.tensor([[0, 1, 2]])).dtype == torch.float64


@pytest.mark.parametrize(
    ("num_labels", "labels", "kind"),
    [
        (1, torch.tensor([1.0]), "regression"),
        (3, torch.tensor([1]), "single_label_classification"),
        (3, torch.tensor([1], dtype=torch.int32), "single_label_classification"),
        (3, torch.tensor([[1.0, 0.0, 1.0]]), "multi_label_classification"),
    ],
)
def test_problem_types(num_labels: int, labels: torch.Tensor, kind: str) -> None:
    assert losses.infer_problem_type(num_labels, labels) == kind


@pytest.mark.parametrize("kind", losses.PROBLEM_TYPES)
def test_parts_of_a_batch_add_up_for_every_problem_type(kind: str) -> None:
    """Divided by the items of the whole batch, the losses of its parts sum to that of the whole."""
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.rand(6, 3).round()
    if kind == "single_label_classification":
        labels = labels.argmax(-1)
    whole = losses.sequence_classification(logits, labels, 3, kind)
    count = labels.numel()
    parts = [losses.sequence_classification(logits[p], labels[p], 3, kind, count) for p in (slice(2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("model_type", [model_type for model_type, auto in HEADS if auto == "AutoModelForCausalLM"])
def test_trainers_are_told_which_labels_count(model_type: str) -> None:
    """What transformers' Trainer looks at before it adds up the gradients of several calls."""
    model = build(model_type, "AutoModelForCausalLM")
    assert model.loss_type == "ForCausalLM"
    assert model.accepts_loss_kwargs
    base = build(model_type, "AutoModel")
    assert base.loss_type is None
    assert not base.accepts_loss_kwargs


def test_sequence_classification() -> None:
    one, three = torch.tensor([[1.0], [3.0]]), torch.randn(2, 3)
    assert losses.sequence_classification(one, torch.tensor([0.0, 0.0]), 1).item() == pytest.approx(5)
    single = losses.sequence_classification(three, torch.tensor([2, 0]), 3).item()
    assert single == pytest.approx((negative_log(three[0], 2) + negative_log(three[1], 0)) / 2, rel=1e-5)
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    several = losses.sequence_classification(three, targets, 3)
    chance = three.sigmoid()
    torch.testing.assert_close(several, -(targets * chance.log() + (1 - targets) * (1 - chance).log()).mean())
    squared = losses.sequence_classification(three, targets, 3, "regression")
    torch.testing.assert_close(squared, (three - targets).square().mean())
    with pytest.raises(ConfigError, match=r"problem_type='regresion' is not known\. Did you mean 'regression'"):
        losses.sequence_classification(three, targets, 3, "regresion")


def test_question_answering_skips_answers_beyond_the_text() -> None:
    start, end = torch.randn(2, 4), torch.randn(2, 4)
    loss = losses.question_answering(start, end, torch.tensor([1, 4]), torch.tensor([[3], [99]]))
    expected = (negative_log(start[0], 1) + negative_log(end[0], 3)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_pairs_and_choices() -> None:
    logits, pairs = torch.randn(1, 3, 4), torch.randn(2, 2)
    words, order = torch.tensor([[0, -100, 1]]), torch.tensor([0, 1])
    both = losses.masked_lm(logits, words) + losses.next_sentence(pairs, order)
    torch.testing.assert_close(losses.pretraining(logits, pairs, words, order), both)
    torch.testing.assert_close(losses.multiple_choice(pairs, order), losses.next_sentence(pairs, order))
