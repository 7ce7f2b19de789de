"""Logits processors of sampling: temperature, and filters that leave the likely tokens.

Each filter is also a function of scores `(batch, vocab)`: `keep` `(batch, vocab)` is true for the tokens that stay. The
`min_tokens_to_keep` likeliest always stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .logits import NEVER, LogitsWarper, whole_number

__all__ = [
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "MinPLogitsWarper",
    "TemperatureLogitsWarper",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
]


def _between(name: str, value: Any, *, low_open: bool = False, high_open: bool = False) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = fits and (value > 0 if low_open else value >= 0) and (value < 1 if high_open else value <= 1)
    if not fits:
        raise InvalidOptionError(f"{name} must be between 0 and 1, found {value!r:.60}", key=name)
    return float(value)


class TemperatureLogitsWarper(LogitsWarper):
    """Divides scores by a temperature: above 1 for more variety, below 1 for less."""

    def __init__(self, temperature: float) -> None:
        if not isinstance(temperature, (int, float)) or isinstance(temperature, bool) or not temperature > 0:
            raise InvalidOptionError(
                f"temperature must be above 0, found {temperature!r:.60}; do_sample=False takes the likeliest token",
                key="temperature",
            )
        self.temperature = float(temperature)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores`, divided."""
        return scores / self.temperature


class _Filter(LogitsWarper):
    """What leaves some tokens and gives the others `filter_value`."""

    def __init__(self, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole_number("min_tokens_to_keep", min_tokens_to_keep, 1)

    def keep(self, scores: Tensor) -> Tensor:
        """Which tokens stay, `(batch, vocab)`."""
        raise NotImplementedError

    def _likeliest(self, scores: Tensor) -> Tensor:
        """The tokens that stay whatever they are, and what is as likely as the last of them."""
        return scores >= scores.topk(min(self.min_tokens_to_keep, scores.shape[-1]))[0][..., -1:]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` of the tokens that stay; the others' are `filter_value`."""
        return scores.masked_fill(self.keep(scores).logical_not(), self.filter_value)


class TopKLogitsWarper(_Filter):
    """Leaves the `top_k` likeliest tokens (Fan et al., arXiv 1805.04833)."""

    def __init__(self, top_k: int, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_k = max(whole_number("top_k", top_k, 1), min_tokens_to_keep)

    def keep(self, scores: Tensor) -> Tensor:
        """Those not less likely than the last of them."""
        return scores >= scores.topk(min(self.top_k, scores.shape[-1]))[0][..., -1:]


class TopPLogitsWarper(_Filter):
    """Leaves the fewest tokens that have `top_p` of the probability together (Holtzman et al., arXiv 1904.09751)."""

    def __init__(self, top_p: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_p = _between("top_p", top_p)

    def keep(self, scores: Tensor) -> Tensor:
        """All but the least likely ones, which have at most `1 - top_p` together."""
        ordered, order = scores.sort(-1)
        kept = ordered.softmax(-1).cumsum(-1) > 1 - self.top_p
        kept[..., -self.min_tokens_to_keep :] = True
        return kept.scatter(-1, order, kept)


class MinPLogitsWarper(_Filter):
    """Leaves tokens that have at least `min_p` of the likeliest one's probability (arXiv 2407.01082)."""

    def __init__(self, min_p: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.min_p = _between("min_p", min_p)

    def keep(self, scores: Tensor) -> Tensor:
        """Those above the share, and the likeliest."""
        probabilities = scores.softmax(-1)
        kept = probabilities >= self.min_p * probabilities.amax(-1, keepdim=True)
        places = probabilities.topk(min(self.min_tokens_to_keep, scores.shape[-1])).indices
        return kept.scatter(-1, places, True)


class TypicalLogitsWarper(_Filter):
    """Leaves tokens whose information is nearest to the expected, `mass` of probability in all (arXiv 2202.00666)."""

    def __init__(self, mass: float = 0.9, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.mass = _between("typical_p", mass, low_open=True, high_open=True)

    def keep(self, scores: Tensor) -> Tensor:
        """Those not farther from the expected than the one that makes the mass full."""
        logs = scores.log_softmax(-1)
        probabilities = logs.exp()
        expected = -(logs * probabilities).nansum(-1, keepdim=True)
        distance, order = (-logs - expected).abs().sort(-1)
        mass = scores.gather(-1, order).softmax(-1).cumsum(-1)
        last = (mass < self.mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        kept = distance <= distance.gather(-1, last)
        kept[..., : self.min_tokens_to_keep] = True
        return kept.scatter(-1, order, kept)


class EpsilonLogitsWarper(_Filter):
    """Leaves tokens of at least this probability (Hewitt et al., arXiv 2210.15191)."""

    def __init__(self, epsilon: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = _between("epsilon_cutoff", epsilon, low_open=True, high_open=True)

    def keep(self, scores: Tensor) -> Tensor:
        """Those, and the likeliest."""
        return (scores.softmax(-1) >= self.epsilon) | self._likeliest(scores)


class EtaLogitsWarper(_Filter):
    """Leaves tokens above a probability that is smaller where the distribution is flat (arXiv 2210.15191)."""

    def __init__(
        self, epsilon: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1, device: Any = None
    ) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = _between("eta_cutoff", epsilon, low_open=True, high_open=True)

    def keep(self, scores: Tensor) -> Tensor:
        """Those, and the likeliest."""
        logs = scores.log_softmax(-1)
        least = torch.finfo(scores.dtype).min  # minus infinity times 0 is no number
        probabilities = logs.exp()
        entropy = -(logs.clamp(min=least) * probabilities).sum(-1, keepdim=True)
        threshold = (self.epsilon**0.5 * (-entropy).exp()).clamp(max=self.epsilon)
        return (probabilities >= threshold) | self._likeliest(scores)


class TopHLogitsWarper(_Filter):
    """Leaves the likeliest tokens whose entropy is at most `top_h` of that of the 100 likeliest (arXiv 2509.02510)."""

    num_candidates = 100

    def __init__(self, top_h: float, filter_value: float = NEVER) -> None:
        super().__init__(filter_value)
        self.top_h = _between("top_h", top_h, low_open=True)

    def keep(self, scores: Tensor) -> Tensor:
        """Those, and the likeliest."""
        top, places = scores.topk(min(self.num_candidates, scores.shape[-1]))
        logs = top.log_softmax(-1)
        terms = -(logs.clamp(min=torch.finfo(scores.dtype).min) * logs.exp())
        kept = terms.cumsum(-1) <= self.top_h * terms.sum(-1, keepdim=True)
        kept[..., 0] = True
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, places, kept)
