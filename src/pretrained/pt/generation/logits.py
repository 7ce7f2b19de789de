"""Logits processors: from the scores of the next token to other scores. The base, and those that ban or force tokens.

A processor is called with `input_ids` `(batch, seq)`, the text so far, and `scores` `(batch, vocab)`; it returns scores
of the same shape and leaves its arguments as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError

__all__ = [
    "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "LogitsWarper",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "id_tensor",
]

NEVER = -torch.inf


def id_tensor(name: str, ids: int | Iterable[int] | Tensor, device: Any = None) -> Tensor:
    """Token ids as a 1-D tensor of int64.

    Raises:
        InvalidOptionError: one of them is none.
    """
    found = torch.as_tensor(ids if isinstance(ids, (int, Tensor)) else list(ids), device=device).reshape(-1)
    if found.is_floating_point() or bool((found < 0).any()):
        raise InvalidOptionError(f"{name} must be token ids, found {ids!r:.80}", key=name)
    return found.long()


def whole_number(name: str, value: Any, least: int) -> int:
    """`value`, which must be an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidOptionError(f"{name} must be an integer of at least {least}, found {value!r:.60}", key=name)
    return value


class LogitsProcessor:
    """Base of all processors; other people's need not derive from it."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `(batch, vocab)` in place of `scores`, given the text so far `(batch, seq)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__(input_ids, scores)")


class LogitsWarper(LogitsProcessor):
    """Base of the processors that only sampling uses, by the name it had until 4.45."""


class LogitsProcessorList(list[Any]):
    """Processors, applied one after another."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Scores `(batch, vocab)` after all of them. `kwargs` go to those that ask for more than two arguments.

        Raises:
            InvalidOptionError: a processor asks for what is not given.
        """
        for processor in self:
            extra = list(inspect.signature(processor.__call__).parameters)[2:] if kwargs else ()
            if missing := [name for name in extra if name not in kwargs]:
                raise InvalidOptionError(f"{type(processor).__name__} needs {missing[0]}=", key=missing[0])
            scores = processor(input_ids, scores, **{name: kwargs[name] for name in extra})
        return scores


class _Banned(LogitsProcessor):
    """Bans tokens at some steps."""

    def __init__(self, name: str, ids: int | Iterable[int] | Tensor, device: Any = None) -> None:
        self.ids = id_tensor(name, ids, device)

    def bans_at(self, length: int) -> bool:
        """Whether tokens are banned when the text is `length` tokens long."""
        raise NotImplementedError

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with the banned tokens at minus infinity."""
        if not self.bans_at(input_ids.shape[-1]):
            return scores
        ids = self.ids.to(scores.device)
        return scores.index_fill(-1, ids[ids < scores.shape[-1]], NEVER)


class MinLengthLogitsProcessor(_Banned):
    """Bans the end before the text, prompt included, has `min_length` tokens."""

    def __init__(self, min_length: int, eos_token_id: int | list[int] | Tensor, device: Any = None) -> None:
        super().__init__("eos_token_id", eos_token_id, device)
        self.min_length = whole_number("min_length", min_length, 0)
        self.eos_token_id = self.ids

    def bans_at(self, length: int) -> bool:
        """Whether the text is too short."""
        return length < self.min_length


class MinNewTokensLengthLogitsProcessor(_Banned):
    """Bans the end before `min_new_tokens` tokens follow a prompt of `prompt_length_to_skip`."""

    def __init__(
        self,
        prompt_length_to_skip: int,
        min_new_tokens: int,
        eos_token_id: int | list[int] | Tensor,
        device: Any = None,
    ) -> None:
        super().__init__("eos_token_id", eos_token_id, device)
        self.prompt_length_to_skip = whole_number("prompt_length_to_skip", prompt_length_to_skip, 0)
        self.min_new_tokens = whole_number("min_new_tokens", min_new_tokens, 0)
        self.eos_token_id = self.ids

    def bans_at(self, length: int) -> bool:
        """Whether too few tokens are new."""
        return length - self.prompt_length_to_skip < self.min_new_tokens


class SuppressTokensLogitsProcessor(_Banned):
    """Bans tokens at every step."""

    def __init__(self, suppress_tokens: Iterable[int], device: Any = None) -> None:
        super().__init__("suppress_tokens", suppress_tokens, device)

    def bans_at(self, length: int) -> bool:
        """Always."""
        return True


class SuppressTokensAtBeginLogitsProcessor(_Banned):
    """Bans tokens at one step: when the text is `begin_index` tokens long."""

    def __init__(self, begin_suppress_tokens: Iterable[int], begin_index: int, device: Any = None) -> None:
        super().__init__("begin_suppress_tokens", begin_suppress_tokens, device)
        self.begin_index = begin_index

    def bans_at(self, length: int) -> bool:
        """Whether this is the step."""
        return length == self.begin_index


def _only(scores: Tensor, ids: Tensor) -> Tensor:
    """Scores in which nothing but `ids` is possible."""
    return torch.full_like(scores, NEVER).index_fill(-1, ids, 0)


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """Forces the first token after the one that decoding starts from."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = bos_token_id
        self.ids = id_tensor("forced_bos_token_id", bos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores`, or those of the forced token."""
        return _only(scores, self.ids.to(scores.device)) if input_ids.shape[-1] == 1 else scores


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Forces the last token that `max_length` has room for."""

    def __init__(self, max_length: int, eos_token_id: int | list[int] | Tensor, device: Any = None) -> None:
        self.max_length = max_length
        self.eos_token_id = id_tensor("forced_eos_token_id", eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores`, or those of the forced tokens."""
        is_last = input_ids.shape[-1] == self.max_length - 1
        return _only(scores, self.eos_token_id.to(scores.device)) if is_last else scores


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """Makes NaN 0 and infinities the largest finite numbers."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores`, all finite."""
        return torch.nan_to_num(scores, nan=0.0)


class LogitNormalization(LogitsProcessor):
    """Makes scores log-probabilities again."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The log-softmax of `scores`."""
        return scores.log_softmax(-1)


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """Makes the end likelier with every token after a number of new ones.

    Args:
        exponential_decay_length_penalty: (new tokens before it starts, factor for each token after them).
        eos_token_id: what ends the text.
        input_ids_seq_length: tokens of the prompt.
    """

    def __init__(
        self,
        exponential_decay_length_penalty: Sequence[Any],
        eos_token_id: int | list[int] | Tensor,
        input_ids_seq_length: int,
    ) -> None:
        self.regulation_start = exponential_decay_length_penalty[0] + input_ids_seq_length
        self.regulation_factor = exponential_decay_length_penalty[1]
        self.eos_token_id = id_tensor("eos_token_id", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with more for the end."""
        if (steps := input_ids.shape[-1] - self.regulation_start) <= 0:
            return scores
        ids = self.eos_token_id.to(scores.device)
        ends = scores[:, ids]
        # What is banned stays banned, so an infinity is not multiplied.
        raised = ends + (ends.abs() * (self.regulation_factor**steps - 1)).masked_fill(~ends.isfinite(), 0.0)
        return scores.index_copy(-1, ids, raised)


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Allows the tokens that a function names for each text so far (De Cao et al., arXiv 2010.00904).

    Args:
        prefix_allowed_tokens_fn: called with the row of the batch and its text `(seq,)`; returns token ids.
        num_beams: beams for each row of the batch.
    """

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Tensor], list[int]], num_beams: int) -> None:
        self._allowed = prefix_allowed_tokens_fn
        self._num_beams = num_beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` with all other tokens at minus infinity.

        Raises:
            InvalidOptionError: the function allows nothing.
        """
        mask = torch.full_like(scores, NEVER)
        for row, text in enumerate(input_ids):
            allowed = self._allowed(row // self._num_beams, text)
            if len(allowed) == 0:
                raise InvalidOptionError(
                    f"prefix_allowed_tokens_fn allows no token after the text of row {row // self._num_beams}: return "
                    "at least one, such as the end",
                    key="prefix_allowed_tokens_fn",
                )
            mask[row, allowed] = 0
        kept = scores + mask
        # Where all beams of a row have only what was banned before, the constraint alone decides.
        stuck = kept.amax(-1).isneginf().view(-1, self._num_beams).all(-1).repeat_interleave(self._num_beams)
        return torch.where(stuck[:, None], mask, kept)
