"""Logits processors one by one, on scores whose outcome is plain."""

from __future__ import annotations

import math

import pytest
import torch

import pretrained as P
from pretrained import InvalidOptionError

NEVER = -math.inf
IDS = torch.tensor([[1, 2, 3, 1, 2], [4, 4, 4, 4, 4]])


def scores(batch: int = 2, vocab: int = 8) -> torch.Tensor:
    return torch.linspace(-2, 2, batch * vocab).view(batch, vocab)


def banned(found: torch.Tensor) -> list[list[int]]:
    return [row.isneginf().nonzero().flatten().tolist() for row in found]


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (P.MinLengthLogitsProcessor(6, 3), [[3], [3]]),
        (P.MinLengthLogitsProcessor(5, 3), [[], []]),
        (P.MinNewTokensLengthLogitsProcessor(3, 3, [3, 5]), [[3, 5], [3, 5]]),
        (P.MinNewTokensLengthLogitsProcessor(3, 2, [3, 5]), [[], []]),
        (P.SuppressTokensLogitsProcessor([0, 99]), [[0], [0]]),
        (P.SuppressTokensAtBeginLogitsProcessor([0], 5), [[0], [0]]),
        (P.SuppressTokensAtBeginLogitsProcessor([0], 4), [[], []]),
        (P.ForcedEOSTokenLogitsProcessor(6, [2, 3]), [[0, 1, 4, 5, 6, 7]] * 2),
        (P.ForcedEOSTokenLogitsProcessor(7, 2), [[], []]),
        (P.ForcedBOSTokenLogitsProcessor(2), [[], []]),
        (P.NoRepeatNGramLogitsProcessor(3), [[3], [4]]),
        (P.NoRepeatNGramLogitsProcessor(1), [[1, 2, 3], [4]]),
        (P.NoRepeatNGramLogitsProcessor(9), [[], []]),
        (P.EncoderNoRepeatNGramLogitsProcessor(2, torch.tensor([[2, 6, 2, 7], [4, 0, 1, 1]])), [[6, 7], [0]]),
        (P.NoBadWordsLogitsProcessor([[7], [2, 5], [4, 4, 6], [0, 1, 2]], 7), [[5], [6]]),
        (P.NoBadWordsLogitsProcessor([[7]], [7]), [[], []]),
        (
            P.PrefixConstrainedLogitsProcessor(lambda row, text: [row, len(text)], 1),
            [[1, 2, 3, 4, 6, 7]] * 1 + [[0, 2, 3, 4, 6, 7]],
        ),
        (P.TopKLogitsWarper(2), [list(range(6))] * 2),
        (P.TopKLogitsWarper(1, min_tokens_to_keep=3), [list(range(5))] * 2),
        (P.MinPLogitsWarper(1.0), [list(range(7))] * 2),
        (P.TopPLogitsWarper(0.0), [list(range(7))] * 2),
        (P.EpsilonLogitsWarper(0.9), [list(range(7))] * 2),
        (P.EtaLogitsWarper(0.9, min_tokens_to_keep=2), [list(range(5))] * 2),
        (P.TopHLogitsWarper(1e-6), [list(range(7))] * 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_banned(processor, expected):
    given = scores()
    found = processor(IDS, given)
    assert banned(found) == expected and torch.equal(given, scores()), "its argument is left alone"
    kept = ~found.isneginf()
    if not isinstance(processor, P.ForcedEOSTokenLogitsProcessor):
        assert torch.equal(found[kept], given[kept])


def test_first_token_is_forced():
    found = P.ForcedBOSTokenLogitsProcessor(2)(IDS[:, :1], scores())
    assert banned(found) == [[0, 1, 3, 4, 5, 6, 7]] * 2


def test_repetition():
    given = torch.tensor([[-1.0, 2.0, -3.0, 4.0, 5.0]])
    found = P.RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[1, 2, 1]]), given)
    assert found.tolist() == [[-1.0, 1.0, -6.0, 4.0, 5.0]]
    skipping = P.RepetitionPenaltyLogitsProcessor(2.0, torch.tensor([2]))(torch.tensor([[2, 3, 1]]), given)
    assert skipping.tolist() == [[-1.0, 1.0, -3.0, 4.0, 5.0]]
    assert torch.equal(P.RepetitionPenaltyLogitsProcessor(2.0, 3)(torch.tensor([[2, 3, 1]]), given), given)
    likelier = P.EncoderRepetitionPenaltyLogitsProcessor(2.0, torch.tensor([[3, 2]]))(torch.tensor([[0]]), given)
    assert likelier.tolist() == [[-1.0, 2.0, -1.5, 8.0, 5.0]]


def test_sequence_bias():
    processor = P.SequenceBiasLogitsProcessor({(5,): 1.0, (2, 6): 10.0, (1, 2, 7): -4.0, (3, 3, 0): 9.0})
    found = processor(IDS, torch.zeros(2, 8))
    assert found.tolist() == [[0, 0, 0, 0, 0, 1, 10, -4], [0, 0, 0, 0, 0, 1, 0, 0]]
    assert torch.equal(P.SequenceBiasLogitsProcessor([[[5], 1.0]])(IDS, torch.zeros(2, 8))[:, 5], torch.ones(2))
    with pytest.raises(InvalidOptionError, match="token 9 has a bias, and there are 8"):
        P.SequenceBiasLogitsProcessor({(9,): 1.0})(IDS, torch.zeros(2, 8))


def test_top_p_and_typical_keep_the_mass():
    given = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04]]).log()
    assert banned(P.TopPLogitsWarper(0.75)(IDS[:1], given)) == [[2, 3, 4]]
    assert banned(P.TopPLogitsWarper(0.81)(IDS[:1], given)) == [[3, 4]]
    # Entropy is 1.21: the token of probability 0.3 is nearest to it, then that of 0.5.
    assert banned(P.TypicalLogitsWarper(0.3)(IDS[:1], given)) == [[0, 2, 3, 4]]
    assert banned(P.TypicalLogitsWarper(0.5)(IDS[:1], given)) == [[2, 3, 4]]


def test_what_is_minus_infinity_stays_so():
    given = torch.tensor([[0.0, NEVER, 1.0, NEVER]])
    for processor in (
        P.EtaLogitsWarper(0.01),
        P.TypicalLogitsWarper(0.9),
        P.TopHLogitsWarper(0.9),
        P.TopPLogitsWarper(0.9),
    ):
        found = processor(IDS[:1], given)
        assert found.isfinite().any() and found[0, 1] == found[0, 3] == NEVER, processor
    assert torch.equal(P.ExponentialDecayLengthPenalty((0, 1.5), 1, 2)(IDS[:1], given), given)


def test_small_ones():
    given = torch.tensor([[math.nan, math.inf, NEVER, 1.0]])
    biggest = torch.finfo(torch.float32).max
    assert P.InfNanRemoveLogitsProcessor()(IDS, given).tolist() == [[0.0, biggest, -biggest, 1.0]]
    assert P.LogitNormalization()(IDS, scores()).exp().sum(-1).tolist() == pytest.approx([1, 1])
    assert torch.equal(P.TemperatureLogitsWarper(2)(IDS, scores()), scores() / 2)
    decayed = P.ExponentialDecayLengthPenalty((1, 2.0), [0, 7], 2)(IDS, torch.tensor([[-1.0] * 8, [2.0] * 8]))
    assert decayed[0].tolist() == [2.0] + [-1.0] * 6 + [2.0] and decayed[1, 0] == 8.0
    guided = P.ClassifierFreeGuidanceLogitsProcessor(2.0)(IDS[:1], torch.tensor([[1.0, 2.0], [0.0, 4.0]]))
    assert guided.tolist() == [[2.0, 0.0]]


def test_diversity_counts_earlier_groups_only():
    processor = P.HammingDiversityLogitsProcessor(0.5, num_beams=4, num_beam_groups=2)
    tokens = torch.tensor([3, 3, 6, 6])
    assert torch.equal(processor(IDS, scores(), current_tokens=tokens, beam_group_idx=0), scores())
    found = processor(IDS, torch.zeros(2, 8), current_tokens=tokens, beam_group_idx=1)
    assert found.tolist() == [[0, 0, 0, -1, 0, 0, 0, 0]] * 2


def test_a_prefix_that_allows_what_is_banned():
    constrained = P.PrefixConstrainedLogitsProcessor(lambda row, text: [2, 3], 2)
    found = constrained(IDS, torch.full((2, 8), NEVER))
    assert found[:, 2:4].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(InvalidOptionError, match="allows no token after the text of row 0"):
        P.PrefixConstrainedLogitsProcessor(lambda row, text: [], 1)(IDS, scores())


def test_a_list_passes_on_what_a_processor_asks_for():
    class Shift(P.LogitsProcessor):
        def __call__(self, input_ids, scores, by):
            return scores + by

    both = P.LogitsProcessorList([P.TemperatureLogitsWarper(2.0), Shift()])
    assert torch.equal(both(IDS, scores(), by=1.0), scores() / 2 + 1)
    with pytest.raises(InvalidOptionError, match="Shift needs by="):
        both(IDS, scores(), other=1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: P.TemperatureLogitsWarper(0.0), "do_sample=False"),
        (lambda: P.TopKLogitsWarper(0), "at least 1"),
        (lambda: P.TopPLogitsWarper(1.5), "between 0 and 1"),
        (lambda: P.TypicalLogitsWarper(1.0), "between 0 and 1"),
        (lambda: P.MinPLogitsWarper(-1), "between 0 and 1"),
        (lambda: P.TopPLogitsWarper(0.5, min_tokens_to_keep=0), "at least 1"),
        (lambda: P.RepetitionPenaltyLogitsProcessor(0), "above 0"),
        (lambda: P.RepetitionPenaltyLogitsProcessor(2.0, torch.ones(1, 1)), "one number for each row"),
        (lambda: P.MinLengthLogitsProcessor(3, -1), "must be token ids"),
        (lambda: P.MinLengthLogitsProcessor(-3, 1), "at least 0"),
        (lambda: P.NoRepeatNGramLogitsProcessor(True), "an integer"),
        (lambda: P.NoBadWordsLogitsProcessor([[]]), "none empty"),
        (lambda: P.SequenceBiasLogitsProcessor({}), "names no sequence"),
        (lambda: P.ClassifierFreeGuidanceLogitsProcessor(1.0), "above 1"),
        (lambda: P.ClassifierFreeGuidanceLogitsProcessor(2.0)(IDS, scores(2)), "scores of 4 rows"),
        (lambda: P.WatermarkLogitsProcessor(8, "cpu", greenlist_ratio=1.0), "below 1"),
    ],
)
def test_impossible_arguments(make, complaint):
    with pytest.raises(InvalidOptionError, match=complaint):
        make()


def test_a_watermark_shows_in_the_share_of_its_tokens():
    torch.manual_seed(0)
    mark = P.WatermarkLogitsProcessor(100, "cpu", greenlist_ratio=0.25, bias=8.0)
    text, favoured = torch.tensor([[5]]), 0
    for _ in range(100):
        likely = mark(text, torch.zeros(1, 100)) > 4
        assert likely.sum() == 25
        token = torch.multinomial(mark(text, torch.randn(1, 100)).softmax(-1), 1)
        favoured += bool(likely[0, token])
        text = torch.cat((text, token), 1)
    assert favoured > 90
    short = P.WatermarkLogitsProcessor(8, "cpu", context_width=6, seeding_scheme="selfhash")
    assert torch.equal(short(IDS, scores()), scores()), "too short a text is not marked"
