"""The logits processors that settings ask for, in the order in which torch models apply them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ...errors import InvalidOptionError
from . import logits as L
from . import logits_repeats as R

__all__ = ["processors_for"]


@L.registered
@dataclass
class _Opaque(L.FlaxLogitsProcessor):
    """Somebody's function, which is a part of the program."""

    function: Any = field(metadata={"static": True})

    def __call__(self, input_ids: Any, scores: Any, cur_len: Any) -> Any:
        return self.function(input_ids, scores, cur_len)


def processors_for(
    config: Any, length: int, max_length: int, encoder_ids: Any, eos: list[int], given: Iterable[Any]
) -> L.FlaxLogitsProcessorList:
    """The processors for a prompt of `length` columns, and those that the caller gives.

    Raises:
        InvalidOptionError: a setting that needs another.
    """
    found = L.FlaxLogitsProcessorList()
    if config.sequence_bias is not None:
        found.append(R.FlaxSequenceBiasLogitsProcessor.of(_biases(config.sequence_bias)))
    if config.encoder_repetition_penalty != 1:
        found.append(R.FlaxEncoderRepetitionPenaltyLogitsProcessor(config.encoder_repetition_penalty, encoder_ids))
    if config.repetition_penalty != 1:
        found.append(R.FlaxRepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size > 0:
        found.append(R.FlaxNoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.encoder_no_repeat_ngram_size > 0:
        found.append(R.FlaxEncoderNoRepeatNGramLogitsProcessor(encoder_ids, config.encoder_no_repeat_ngram_size))
    if config.bad_words_ids is not None:
        words = [word for word in config.bad_words_ids if not (len(word) == 1 and word[0] in eos)]
        found.append(R.FlaxSequenceBiasLogitsProcessor.of({tuple(word): float("-inf") for word in words}))
    if eos and config.min_length > 0:
        found.append(L.FlaxMinLengthLogitsProcessor(config.min_length, L.ids_of(eos)))
    if eos and (config.min_new_tokens or 0) > 0:
        found.append(L.FlaxMinLengthLogitsProcessor(length + config.min_new_tokens, L.ids_of(eos)))
    found += _forcing(config, length, max_length, eos)
    found += [item if jax.tree_util.all_leaves([item]) is False else _Opaque(item) for item in given]
    if config.do_sample:
        found += _filters(config, eos)
    if config.renormalize_logits:
        found.append(L.FlaxLogitNormalization())
    return found


def _biases(given: Any) -> dict[tuple[int, ...], float]:
    items = given.items() if isinstance(given, dict) else given
    return {tuple(np.atleast_1d(ids).tolist()): float(bias) for ids, bias in items}


def _forcing(config: Any, length: int, max_length: int, eos: list[int]) -> list[Any]:
    found: list[Any] = []
    if config.forced_bos_token_id is not None:
        found.append(L.FlaxForcedBOSTokenLogitsProcessor(L.ids_of(config.forced_bos_token_id)))
    if config.forced_eos_token_id is not None:
        found.append(L.FlaxForcedEOSTokenLogitsProcessor(max_length, L.ids_of(config.forced_eos_token_id)))
    if config.remove_invalid_values:
        found.append(L.FlaxInfNanRemoveLogitsProcessor())
    if config.exponential_decay_length_penalty is not None:
        name = "exponential_decay_length_penalty"
        if not eos:
            raise InvalidOptionError(f"{name} makes the end likelier: it needs eos_token_id", key=name)
        start, factor = config.exponential_decay_length_penalty
        found.append(L.FlaxExponentialDecayLengthPenalty(start + length, float(factor), L.ids_of(eos)))
    if config.suppress_tokens is not None:
        found.append(L.FlaxSuppressTokensLogitsProcessor(L.ids_of(config.suppress_tokens)))
    if config.begin_suppress_tokens is not None:
        begin = length + (config.forced_bos_token_id is not None and length <= 1)
        found.append(L.FlaxSuppressTokensAtBeginLogitsProcessor(L.ids_of(config.begin_suppress_tokens), begin))
    return found


def _filters(config: Any, eos: list[int]) -> list[Any]:
    # Of beams at least one has to have somewhere to go but the end.
    kept = {"min_tokens_to_keep": 1 if config.num_beams == 1 else len(eos) + 1 if eos else 2}
    found: list[Any] = []
    if config.temperature != 1:
        found.append(L.FlaxTemperatureLogitsWarper(float(config.temperature)))
    if config.top_k:
        found.append(L.FlaxTopKLogitsWarper(config.top_k, **kept))
    if config.top_p < 1:
        found.append(L.FlaxTopPLogitsWarper(config.top_p, **kept))
    if config.min_p is not None:
        found.append(L.FlaxMinPLogitsWarper(config.min_p, **kept))
    if config.typical_p < 1:
        found.append(L.FlaxTypicalLogitsWarper(config.typical_p, **kept))
    if config.epsilon_cutoff > 0:
        found.append(L.FlaxEpsilonLogitsWarper(config.epsilon_cutoff, **kept))
    if config.eta_cutoff > 0:
        found.append(L.FlaxEtaLogitsWarper(config.eta_cutoff, **kept))
    return found
