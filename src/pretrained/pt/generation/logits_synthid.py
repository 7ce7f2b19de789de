"""SynthID-Text's watermark: a tournament among tokens whose rounds are decided by a keyed hash of the last tokens.

Source: Dathathri et al., Scalable watermarking for identifying large language model outputs, Nature 634, 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .logits import LogitsProcessor

__all__ = ["SynthIDTextWatermarkLogitsProcessor"]

# The linear congruential generator of newlib and musl, modulo 2**64.
_MULTIPLIER, _INCREMENT = 6364136223846793005, 1


def _hashed(state: Tensor, number: Tensor) -> Tensor:
    return (state + number) * _MULTIPLIER + _INCREMENT


class SynthIDTextWatermarkLogitsProcessor(LogitsProcessor):
    """Marks tokens; what is drawn from the scores is as before on average over keys.

    Args:
        ngram_len, keys, sampling_table_size, sampling_table_seed, context_history_size, skip_first_ngram_calls,
            debug_mode: as `SynthIDTextWatermarkingConfig` has them.
        device: where scores are.
    """

    def __init__(
        self,
        ngram_len: int,
        keys: list[int],
        sampling_table_size: int,
        sampling_table_seed: int,
        context_history_size: int,
        device: torch.device,
        skip_first_ngram_calls: bool = False,
        debug_mode: bool = False,
    ) -> None:
        self.ngram_len, self.context_history_size = ngram_len, context_history_size
        self.keys = torch.tensor(keys, device=device)
        generator = torch.Generator(device=device).manual_seed(sampling_table_seed)
        self.sampling_table = torch.randint(0, 2, (sampling_table_size,), generator=generator, device=device)
        self.skip_first_ngram_calls, self.debug_mode = skip_first_ngram_calls, debug_mode
        self._context: Tensor | None = None  # the new tokens alone: the prompt is not ours
        self._seen = torch.zeros(0)
        self._num_calls = 0

    def _follow(self, input_ids: Tensor) -> Tensor:
        """`(batch, ngram_len - 1)`, the last new tokens."""
        if self._context is None:
            shape = (len(input_ids), self.ngram_len - 1)
            self._context = torch.zeros(shape, dtype=torch.int64, device=input_ids.device)
            self._seen = self._context.new_zeros(len(input_ids), self.context_history_size)
        else:
            self._context = torch.cat((self._context, input_ids[:, -1:]), 1)[:, 1:]
        self._num_calls += 1
        return self._context

    def _bits(self, context: Tensor, vocab: int) -> Tensor:
        """`(batch, vocab, keys)` of 0 and 1: how each token fares in each round after the context."""
        ids = torch.arange(vocab, device=context.device)
        hashed = _hashed(_hashed(self._hash(context)[:, None], ids)[..., None], self.keys)
        return self.sampling_table[hashed % len(self.sampling_table)]

    def _hash(self, context: Tensor) -> Tensor:
        state = torch.ones(len(context), dtype=torch.int64, device=context.device)
        for column in context.unbind(1):
            state = _hashed(state, column)
        return state

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities `(batch, vocab)` after the tournament; `scores` where the context was there before."""
        scores = torch.ones_like(scores) if self.debug_mode else scores
        context = self._follow(input_ids)
        if self.skip_first_ngram_calls and self._num_calls < self.ngram_len:
            return scores
        probabilities = scores.softmax(1)
        for bits in self._bits(context, scores.shape[1]).unbind(2):
            probabilities = probabilities * (1 + bits - (bits * probabilities).sum(1, keepdim=True))
        marked = probabilities.log()
        marked = torch.where(marked.isfinite(), marked, torch.finfo(marked.dtype).min)
        place = self._hash(context)[:, None]
        is_known = (self._seen == place).any(1, keepdim=True)
        self._seen = torch.cat((place, self._seen), 1)[:, :-1]
        return torch.where(is_known, scores, marked)
