"""Logits processors that need more than the scores: a second pass of the model, or a watermark's key."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .logits import LogitsProcessor

__all__ = [
    "ClassifierFreeGuidanceLogitsProcessor",
    "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    "WatermarkLogitsProcessor",
]


class ClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Guidance for a model that is run on twice the batch, its second half without the condition (arXiv 2306.17806)."""

    def __init__(self, guidance_scale: float) -> None:
        if not guidance_scale > 1:
            raise InvalidOptionError(f"guidance_scale must be above 1, found {guidance_scale}", key="guidance_scale")
        self.guidance_scale = guidance_scale

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`(batch, vocab)` out of `scores` `(2 * batch, vocab)`.

        Raises:
            InvalidOptionError: the scores are not of twice the batch.
        """
        if len(scores) != 2 * len(input_ids):
            raise InvalidOptionError(
                f"guidance needs scores of {2 * len(input_ids)} rows, twice those of the text, found {len(scores)}",
                key="guidance_scale",
            )
        with_condition, without = scores.chunk(2)
        return without + (with_condition - without) * self.guidance_scale


class UnbatchedClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Guidance by a second pass of the model, on another prompt that the new tokens are appended to (arXiv 2306.17806).

    Args:
        guidance_scale: how far scores move away from those of the other prompt; 1: not at all.
        model: the model.
        unconditional_ids: the other prompt `(batch, seq)`, what is not wanted; the text's last token by default.
        unconditional_attention_mask: `(batch, seq)`, 0 for padding.
        use_cache: whether the other text has a cache.
    """

    def __init__(
        self,
        guidance_scale: float,
        model: Any,
        unconditional_ids: Tensor | None = None,
        unconditional_attention_mask: Tensor | None = None,
        use_cache: bool = True,
    ) -> None:
        self.guidance_scale = guidance_scale
        self.model = model
        self.use_cache = use_cache
        self._ids, self._mask, self._cache = unconditional_ids, unconditional_attention_mask, None

    def _logits(self, input_ids: Tensor) -> Tensor:
        """Next-token logits `(batch, vocab)` of the other text."""
        last = input_ids[:, -1:]
        if self._cache is None and self._mask is None:
            self._ids = last if self._ids is None else self._ids
            self._mask = torch.ones_like(self._ids)
        elif not getattr(self, "_has_begun", False):
            self._ids = last if self._ids is None else self._ids
        else:
            assert self._ids is not None and self._mask is not None
            self._mask = torch.cat((self._mask, torch.ones_like(last)), 1)
            self._ids = torch.cat((self._ids, last), 1)
        self._has_begun = True
        ids = self._ids if self._cache is None else last
        out = self.model(ids, attention_mask=self._mask, use_cache=self.use_cache, past_key_values=self._cache)
        self._cache = out.past_key_values if self.use_cache else None
        logits: Tensor = out.logits[:, -1]
        return logits

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities `(batch, vocab)`, moved away from those of the other text."""
        with_condition = scores.log_softmax(-1)
        if self.guidance_scale == 1:
            return with_condition
        without = self._logits(input_ids).log_softmax(-1)
        return self.guidance_scale * (with_condition - without) + without


_TABLE = 1_000_003  # a prime, so that hashes of neighbouring ids fall far apart


class WatermarkLogitsProcessor(LogitsProcessor):
    """Makes a random share of the vocabulary likelier, drawn from the tokens before (arXiv 2301.10226, 2306.04634).

    Args:
        vocab_size: of the model.
        device: where scores are; random numbers differ between kinds of devices.
        greenlist_ratio, bias, hashing_key, seeding_scheme, context_width: as `WatermarkingConfig` has them.
    """

    num_candidates = 40  # of the likeliest tokens, those that "selfhash" asks

    def __init__(
        self,
        vocab_size: int,
        device: Any,
        greenlist_ratio: float = 0.25,
        bias: float = 2.0,
        hashing_key: int = 15485863,
        seeding_scheme: str = "lefthash",
        context_width: int = 1,
    ) -> None:
        if not 0 < greenlist_ratio < 1:
            raise InvalidOptionError("greenlist_ratio must be above 0 and below 1", key="watermarking_config")
        self.vocab_size, self.bias, self.hash_key = vocab_size, bias, hashing_key
        self.greenlist_size = int(vocab_size * greenlist_ratio)
        self.seeding_scheme, self.context_width = seeding_scheme, context_width
        self.rng = torch.Generator(device=device)
        self.rng.manual_seed(hashing_key)
        self.fixed_table = torch.randperm(_TABLE, generator=self.rng, device=device)

    def _favoured(self, text: Tensor) -> Tensor:
        """The ids that are likelier after `text` `(seq,)`."""
        near = text[-self.context_width :]
        if self.seeding_scheme == "selfhash":
            hashes = self.fixed_table[near % _TABLE] + 1
            seed = int((self.hash_key * hashes * hashes[-1]).min())
        else:
            seed = self.hash_key * int(near[-1])
        self.rng.manual_seed(seed % (2**64 - 1))
        return torch.randperm(self.vocab_size, generator=self.rng, device=text.device)[: self.greenlist_size]

    def _favoured_by_themselves(self, text: Tensor, scores: Tensor) -> Tensor:
        """Of the likeliest tokens those that, once chosen, would be among the ids that they favour."""
        likely = scores.sort(descending=True).indices[: self.num_candidates]
        chosen = [token for token in likely if bool((self._favoured(torch.cat((text, token[None]))) == token).any())]
        return torch.stack(chosen) if chosen else likely[:0]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with the bias; unchanged while the text is shorter than `context_width`."""
        if input_ids.shape[-1] < self.context_width:
            return scores
        marked = scores.clone()
        for row, text in enumerate(input_ids):
            by_itself = self.seeding_scheme == "selfhash"
            ids = self._favoured_by_themselves(text, scores[row]) if by_itself else self._favoured(text)
            marked[row, ids] += self.bias
        return marked
