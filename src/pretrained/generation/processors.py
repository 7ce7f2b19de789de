"""Which logits processors settings ask for, in the order in which torch models apply them, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import InvalidOptionError

__all__ = ["processors_for"]

Make = Callable[..., Any]  # (name of a class without the framework's prefix, its arguments) → a processor


def processors_for(
    make: Make, config: Any, length: int, max_length: int, encoder_ids: Any, eos: list[int], given: Iterable[Any]
) -> list[Any]:
    """The processors for a prompt of `length` columns, and those that the caller gives.

    Raises:
        InvalidOptionError: a setting that needs another.
    """
    found: list[Any] = []
    if config.sequence_bias is not None:
        found.append(make("SequenceBiasLogitsProcessor", _biases(config.sequence_bias)))
    if config.encoder_repetition_penalty != 1:
        penalty = float(config.encoder_repetition_penalty)
        found.append(make("EncoderRepetitionPenaltyLogitsProcessor", penalty, encoder_ids))
    if config.repetition_penalty != 1:
        found.append(make("RepetitionPenaltyLogitsProcessor", float(config.repetition_penalty)))
    if config.no_repeat_ngram_size > 0:
        found.append(make("NoRepeatNGramLogitsProcessor", config.no_repeat_ngram_size))
    if config.encoder_no_repeat_ngram_size > 0:
        found.append(make("EncoderNoRepeatNGramLogitsProcessor", encoder_ids, config.encoder_no_repeat_ngram_size))
    if config.bad_words_ids is not None:
        words = [word for word in config.bad_words_ids if not (len(word) == 1 and word[0] in eos)]
        found.append(make("SequenceBiasLogitsProcessor", {tuple(word): float("-inf") for word in words}))
    if eos and config.min_length > 0:
        found.append(make("MinLengthLogitsProcessor", config.min_length, _ids(eos)))
    if eos and (config.min_new_tokens or 0) > 0:
        found.append(make("MinLengthLogitsProcessor", length + config.min_new_tokens, _ids(eos)))
    found += _forcing(make, config, length, max_length, eos)
    found += given
    if config.do_sample:
        found += _filters(make, config, eos)
    if config.renormalize_logits:
        found.append(make("LogitNormalization"))
    return found


def _ids(ids: Any) -> Any:
    import numpy as np

    return np.atleast_1d(np.asarray(ids, np.int32))


def _biases(given: Any) -> dict[tuple[int, ...], float]:
    import numpy as np

    items = given.items() if isinstance(given, dict) else given
    return {tuple(np.atleast_1d(ids).tolist()): float(bias) for ids, bias in items}


def _forcing(make: Make, config: Any, length: int, max_length: int, eos: list[int]) -> list[Any]:
    found: list[Any] = []
    if config.forced_bos_token_id is not None:
        found.append(make("ForcedBOSTokenLogitsProcessor", _ids(config.forced_bos_token_id)))
    if config.forced_eos_token_id is not None:
        found.append(make("ForcedEOSTokenLogitsProcessor", max_length, _ids(config.forced_eos_token_id)))
    if config.remove_invalid_values:
        found.append(make("InfNanRemoveLogitsProcessor"))
    if config.exponential_decay_length_penalty is not None:
        name = "exponential_decay_length_penalty"
        if not eos:
            raise InvalidOptionError(f"{name} makes the end likelier: it needs eos_token_id", key=name)
        start, factor = config.exponential_decay_length_penalty
        found.append(make("ExponentialDecayLengthPenalty", start + length, float(factor), _ids(eos)))
    if config.suppress_tokens is not None:
        found.append(make("SuppressTokensLogitsProcessor", _ids(config.suppress_tokens)))
    if config.begin_suppress_tokens is not None:
        begin = length + (config.forced_bos_token_id is not None and length <= 1)
        found.append(make("SuppressTokensAtBeginLogitsProcessor", _ids(config.begin_suppress_tokens), begin))
    return found


def _filters(make: Make, config: Any, eos: list[int]) -> list[Any]:
    # Of beams at least one has to have somewhere to go but the end.
    kept = {"min_tokens_to_keep": 1 if config.num_beams == 1 else len(eos) + 1 if eos else 2}
    found: list[Any] = []
    if config.temperature != 1:
        found.append(make("TemperatureLogitsWarper", float(config.temperature)))
    if config.top_k:
        found.append(make("TopKLogitsWarper", config.top_k, **kept))
    if config.top_p < 1:
        found.append(make("TopPLogitsWarper", float(config.top_p), **kept))
    if config.min_p is not None:
        found.append(make("MinPLogitsWarper", float(config.min_p), **kept))
    if config.typical_p < 1:
        found.append(make("TypicalLogitsWarper", float(config.typical_p), **kept))
    if config.epsilon_cutoff > 0:
        found.append(make("EpsilonLogitsWarper", float(config.epsilon_cutoff), **kept))
    if config.eta_cutoff > 0:
        found.append(make("EtaLogitsWarper", float(config.eta_cutoff), **kept))
    return found
