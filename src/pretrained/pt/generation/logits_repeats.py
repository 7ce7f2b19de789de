"""Logits processors that look at what the text has already: repetition, n-grams, sequences with a bias."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .logits import NEVER, LogitsProcessor, id_tensor, whole_number

__all__ = [
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "HammingDiversityLogitsProcessor",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "SequenceBiasLogitsProcessor",
]


def _factor(name: str, penalty: Any) -> float:
    if not isinstance(penalty, (int, float)) or isinstance(penalty, bool) or not penalty > 0:
        raise InvalidOptionError(f"{name} must be above 0, found {penalty!r:.60}", key=name)
    return float(penalty)


def _penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """`scores` in which those of `ids` `(batch, n)` are smaller, if `penalty` is above 1, whatever their sign."""
    found = scores.gather(1, ids)
    return scores.scatter(1, ids, torch.where(found < 0, found * penalty, found / penalty))


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Makes tokens of the text less likely (Keskar et al., arXiv 1909.05858).

    Args:
        penalty: above 1 for less repetition, below 1 for more.
        prompt_ignore_length: how many tokens at the start do not count, for all rows or `(batch,)` for each.
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Tensor | None = None) -> None:
        self.penalty = _factor("repetition_penalty", penalty)
        if isinstance(prompt_ignore_length, int):
            whole_number("prompt_ignore_length", prompt_ignore_length, 0)
        elif prompt_ignore_length is not None and prompt_ignore_length.dim() != 1:
            raise InvalidOptionError("prompt_ignore_length has one number for each row", key="prompt_ignore_length")
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with the penalty."""
        skipped = self.prompt_ignore_length
        if isinstance(skipped, int):
            return _penalised(scores, input_ids[:, skipped:], self.penalty) if skipped else self._all(input_ids, scores)
        if skipped is None:
            return self._all(input_ids, scores)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        # Tokens that do not count are those of a column that is cut off again.
        ids = input_ids.masked_fill(places < skipped.to(input_ids.device)[:, None], scores.shape[1])
        return _penalised(torch.nn.functional.pad(scores, (0, 1)), ids, self.penalty)[:, :-1]

    def _all(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return _penalised(scores, input_ids, self.penalty) if input_ids.shape[1] else scores


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Makes tokens of the encoder's text likelier.

    Args:
        penalty: above 1 for more of them.
        encoder_input_ids: `(batch, encoder seq)`.
    """

    def __init__(self, penalty: float, encoder_input_ids: Tensor) -> None:
        self.penalty = 1 / _factor("encoder_repetition_penalty", penalty)
        self.encoder_input_ids = encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with more for these tokens."""
        ids = self.encoder_input_ids.repeat_interleave(len(scores) // len(self.encoder_input_ids), 0)
        return _penalised(scores, ids.to(scores.device), self.penalty)


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Bans what would be the second time for `ngram_size` tokens in a row."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = whole_number("no_repeat_ngram_size", ngram_size, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with these tokens at minus infinity."""
        size, length = self.ngram_size, input_ids.shape[1]
        if length < size:
            return scores
        seen = input_ids.unfold(1, size, 1)
        again = (seen[..., :-1] == input_ids[:, None, length - size + 1 :]).all(-1)
        return _banned_where(scores, again, seen[..., -1])


def _banned_where(scores: Tensor, banned: Tensor, ids: Tensor) -> Tensor:
    """`scores` with those of `ids` `(batch, n)` at minus infinity where `banned` `(batch, n)` is true."""
    vocab = scores.shape[1]
    mask = torch.zeros(len(scores), vocab + 1, dtype=torch.bool, device=scores.device)
    mask.scatter_(1, torch.where(banned, ids.clamp(max=vocab), vocab), True)
    return scores.masked_fill(mask[:, :vocab], NEVER)


class EncoderNoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Bans what would repeat `encoder_ngram_size` tokens in a row of the encoder's text `(batch, encoder seq)`."""

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Tensor) -> None:
        self.ngram_size = whole_number("encoder_no_repeat_ngram_size", encoder_ngram_size, 1)
        ids = encoder_input_ids[None] if encoder_input_ids.dim() == 1 else encoder_input_ids
        self._seen = ids.unfold(1, self.ngram_size, 1) if ids.shape[1] >= self.ngram_size else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with these tokens at minus infinity."""
        length, size = input_ids.shape[1], self.ngram_size
        if self._seen is None or length < size - 1:
            return scores
        seen = self._seen.to(scores.device).repeat_interleave(len(scores) // len(self._seen), 0)
        again = (seen[..., :-1] == input_ids[:, None, length - size + 1 :]).all(-1)
        return _banned_where(scores, again, seen[..., -1])


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Adds a bias to the last token of a sequence where the text has all before it.

    Args:
        sequence_bias: {(ids…): bias}, or a list of [[ids…], bias].
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Iterable[Any]) -> None:
        pairs = sequence_bias.items() if isinstance(sequence_bias, Mapping) else [tuple(pair) for pair in sequence_bias]
        self.sequence_bias = {tuple(ids): float(bias) for ids, bias in pairs}
        if not self.sequence_bias or not all(self.sequence_bias):
            raise InvalidOptionError("sequence_bias names no sequence, or an empty one", key="sequence_bias")
        for ids in self.sequence_bias:
            id_tensor("sequence_bias", ids)
        self._prepared: list[tuple[Tensor, Tensor, Tensor]] = []

    def _prepare(self, scores: Tensor) -> None:
        """Groups sequences of one length: `(n, length - 1)` what comes before, `(n,)` last tokens, `(n,)` biases."""
        vocab = scores.shape[1]
        groups = defaultdict(list)
        for ids, bias in self.sequence_bias.items():
            if max(ids) >= vocab:
                raise InvalidOptionError(f"token {max(ids)} has a bias, and there are {vocab}", key="sequence_bias")
            groups[len(ids)].append((ids[:-1], ids[-1], bias))
        for length, group in groups.items():
            before = torch.tensor([entry[0] for entry in group], dtype=torch.long).reshape(len(group), length - 1)
            last, added = torch.tensor([entry[1] for entry in group]), torch.tensor([entry[2] for entry in group])
            device = scores.device
            self._prepared.append((before.to(device), last.to(device), added.to(device, scores.dtype)))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with the biases.

        Raises:
            InvalidOptionError: the vocabulary has no such token.
        """
        if not self._prepared:
            self._prepare(scores)
        added = torch.zeros_like(scores)
        for before, last, bias in self._prepared:
            length = before.shape[1]
            if length > input_ids.shape[1]:
                continue
            here = (input_ids[:, None, input_ids.shape[1] - length :] == before).all(-1)
            added.index_add_(1, last, torch.where(here, bias, 0.0))
        return scores + added


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """Bans sequences of tokens; the end itself is never banned.

    Args:
        bad_words_ids: the sequences.
        eos_token_id: what ends the text.
    """

    def __init__(self, bad_words_ids: list[list[int]], eos_token_id: int | list[int] | Tensor | None = None) -> None:
        if not isinstance(bad_words_ids, list) or not all(isinstance(word, list) and word for word in bad_words_ids):
            raise InvalidOptionError("bad_words_ids must be a list of lists, none empty", key="bad_words_ids")
        ends = [] if eos_token_id is None else id_tensor("eos_token_id", eos_token_id).tolist()
        self._banned = {tuple(word): NEVER for word in bad_words_ids if word not in [[end] for end in ends]}
        if self._banned:
            super().__init__(self._banned)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with the last tokens of these sequences at minus infinity."""
        return super().__call__(input_ids, scores) if self._banned else scores


class HammingDiversityLogitsProcessor(LogitsProcessor):
    """Makes tokens that earlier groups of beams chose in this step less likely (arXiv 1610.02424).

    Args:
        diversity_penalty: taken off for each time.
        num_beams: of all groups.
        num_beam_groups: groups of one size.
    """

    def __init__(self, diversity_penalty: float, num_beams: int, num_beam_groups: int) -> None:
        self._penalty = _factor("diversity_penalty", diversity_penalty)
        self._num_beams = num_beams
        self._size = num_beams // num_beam_groups

    def __call__(
        self, input_ids: Tensor, scores: Tensor, current_tokens: Tensor | None = None, beam_group_idx: int = 0
    ) -> Tensor:
        """`scores` of one group `(batch * group size, vocab)` after the penalty.

        Args:
            input_ids: `(batch * group size, seq)`.
            scores: of the group.
            current_tokens: `(batch * beams,)`, chosen in this step; those of later groups do not count.
            beam_group_idx: which group.
        """
        if current_tokens is None or not beam_group_idx:
            return scores
        batch = len(current_tokens) // self._num_beams
        chosen = current_tokens.view(batch, self._num_beams)[:, : beam_group_idx * self._size]
        counts = torch.zeros(batch, scores.shape[-1], dtype=scores.dtype, device=scores.device)
        counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=scores.dtype))
        return scores - self._penalty * counts.repeat_interleave(len(scores) // batch, 0)
