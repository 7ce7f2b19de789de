"""What ends generation. A criterion is called with the text so far and says, for each row, whether it is done."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from .logits import id_tensor

__all__ = [
    "ConfidenceCriteria",
    "EosTokenCriteria",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
]


class StoppingCriteria:
    """Base of all criteria; other people's need not derive from it."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """`(batch,)`, true for rows that are done, or one bool for all; `input_ids` is `(batch, seq)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__(input_ids, scores)")


class MaxLengthCriteria(StoppingCriteria):
    """Ends when the text, prompt included, has `max_length` tokens."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> bool:
        """Whether it has."""
        return input_ids.shape[1] >= self.max_length


class MaxTimeCriteria(StoppingCriteria):
    """Ends `max_time` seconds after `initial_timestamp`, by default after now."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> bool:
        """Whether the time is over."""
        return time.time() - self.initial_timestamp > self.max_time


class EosTokenCriteria(StoppingCriteria):
    """Ends a row at one of these tokens."""

    def __init__(self, eos_token_id: int | list[int] | Tensor) -> None:
        self.eos_token_id = id_tensor("eos_token_id", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """`(batch,)`, whether the last token is one."""
        self.eos_token_id = self.eos_token_id.to(input_ids.device)
        last = input_ids[:, -1]
        return last == self.eos_token_id if len(self.eos_token_id) == 1 else torch.isin(last, self.eos_token_id)


class _Decodes(Protocol):
    def decode(self, ids: Any, *, skip_special_tokens: bool) -> str:
        """The text of token ids."""
        ...


class StopStringCriteria(StoppingCriteria):
    """Ends a row when a string has been written, whatever tokens it was made of; it may end inside the last one.

    Args:
        tokenizer: whatever has `decode(ids, skip_special_tokens=False)`, as tokenizers of `tokenizers` and of
            transformers do.
        stop_strings: one, or several.
    """

    def __init__(self, tokenizer: _Decodes, stop_strings: str | list[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not self.stop_strings or not all(self.stop_strings):
            raise InvalidOptionError("stop_strings names no string, or an empty one", key="stop_strings")
        # No token stands for less than one byte, but for those that stand for nothing: a few more for these.
        self._reach = max(len(text.encode()) for text in self.stop_strings) + 4

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """`(batch,)`, whether the last token completed one of them."""
        rows = input_ids[:, -self._reach :].tolist()
        return torch.tensor([self._is_complete(row) for row in rows], device=input_ids.device)

    def _is_complete(self, ids: list[int]) -> bool:
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        if not any(stop in text for stop in self.stop_strings):
            return False
        before = self.tokenizer.decode(ids[:-1], skip_special_tokens=False)
        return any(text.count(stop) > before.count(stop) for stop in self.stop_strings)


class ConfidenceCriteria(StoppingCriteria):
    """Ends a draft at a token that the draft model itself gives less probability than this."""

    def __init__(self, assistant_confidence_threshold: float) -> None:
        self.assistant_confidence_threshold = assistant_confidence_threshold

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> bool:
        """Whether the last token of the first row is such a one; `scores` are those of all steps."""
        probability = scores[-1][0].softmax(-1)[input_ids[0, -1]]
        return bool(probability < self.assistant_confidence_threshold)


class StoppingCriteriaList(list[Any]):
    """Criteria of which one is enough."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """`(batch,)`, true for rows that one of them ends."""
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for criterion in self:
            found = criterion(input_ids, scores, **kwargs)
            done = done | (found.to(done.device) if isinstance(found, Tensor) else bool(found))
        return done

    @property
    def max_length(self) -> int | None:
        """What the criterion of length says, if there is one."""
        return next((c.max_length for c in self if isinstance(c, MaxLengthCriteria)), None)
