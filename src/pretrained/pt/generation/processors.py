"""From settings to the processors and criteria of one call, in the order in which they are applied."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import InvalidOptionError
from ...generation.watermarking import WatermarkingConfig
from . import logits as L
from . import logits_filters as F
from . import logits_models as M
from . import logits_repeats as R
from . import stopping as S

__all__ = ["Prompt", "criteria_for", "processors_for"]

logger = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """What processors ask of the prompt: its length, its mask `(batch, seq)`, the encoder's ids, what to avoid."""

    length: int
    mask: Tensor | None = None
    encoder_ids: Tensor | None = None
    negative_ids: Tensor | None = None
    negative_mask: Tensor | None = None


def processors_for(
    model: Any, config: Any, prompt: Prompt, eos: Tensor | None, prefix_fn: Any, given: Iterable[Any], device: Any
) -> L.LogitsProcessorList:
    """The processors that `config` asks for, those `given` by the caller among them, then the filters of sampling.

    Raises:
        InvalidOptionError: a setting without what it needs.
    """
    found = L.LogitsProcessorList(
        [
            *_guiding(model, config, prompt),
            *_of_repeats(config, prompt, eos),
            *_of_length(config, prompt, eos),
            *_forcing(config, prompt, eos, prefix_fn),
        ]
    )
    found = L.LogitsProcessorList(_merged(found, list(given)))
    found += _filters(config, eos) if config.do_sample else ()
    if config.watermarking_config is not None:
        found.append(_watermark(config.watermarking_config, model.config.get_text_config().vocab_size, device))
    if config.renormalize_logits:
        found.append(L.LogitNormalization())
    return found


def _merged(ours: Iterable[Any], theirs: list[Any]) -> list[Any]:
    """Ours, then the caller's; one of the caller's stands in the place of ours of the same class."""
    left, merged = list(theirs), []
    for item in ours:
        mine = next((other for other in left if type(other) is type(item)), None)
        if mine is not None:
            logger.warning("the %s that was passed is used in place of the settings'", type(mine).__name__)
            left.remove(mine)
        merged.append(item if mine is None else mine)
    return [*merged, *left]


def _guiding(model: Any, config: Any, prompt: Prompt) -> list[Any]:
    if config.guidance_scale in (None, 1):
        return []
    if model.config.is_encoder_decoder:
        raise InvalidOptionError("guidance_scale is for decoders: an encoder has one input", key="guidance_scale")
    unwanted = {"unconditional_ids": prompt.negative_ids, "unconditional_attention_mask": prompt.negative_mask}
    guide = M.UnbatchedClassifierFreeGuidanceLogitsProcessor
    return [guide(config.guidance_scale, model, **unwanted, use_cache=config.use_cache)]


def _of_repeats(config: Any, prompt: Prompt, eos: Tensor | None) -> list[Any]:
    found: list[Any] = []
    if config.sequence_bias is not None:
        found.append(R.SequenceBiasLogitsProcessor(config.sequence_bias))
    needs_ids = config.encoder_repetition_penalty != 1 or config.encoder_no_repeat_ngram_size > 0
    if needs_ids and prompt.encoder_ids is None:
        name = (
            "encoder_repetition_penalty" if config.encoder_repetition_penalty != 1 else "encoder_no_repeat_ngram_size"
        )
        raise InvalidOptionError(f"{name} looks at the prompt's ids, and there are only embeddings", key=name)
    if config.encoder_repetition_penalty != 1 and prompt.encoder_ids is not None:
        penalty = config.encoder_repetition_penalty
        found.append(R.EncoderRepetitionPenaltyLogitsProcessor(penalty, prompt.encoder_ids))
    if config.repetition_penalty != 1:
        skipped = None if prompt.mask is None else (prompt.mask != 0).int().argmax(1)
        found.append(R.RepetitionPenaltyLogitsProcessor(config.repetition_penalty, skipped))
    if config.no_repeat_ngram_size > 0:
        found.append(R.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.encoder_no_repeat_ngram_size > 0 and prompt.encoder_ids is not None:
        size = config.encoder_no_repeat_ngram_size
        found.append(R.EncoderNoRepeatNGramLogitsProcessor(size, prompt.encoder_ids))
    if config.bad_words_ids is not None:
        found.append(R.NoBadWordsLogitsProcessor(config.bad_words_ids, eos))
    return found


def _of_length(config: Any, prompt: Prompt, eos: Tensor | None) -> list[Any]:
    found: list[Any] = []
    if eos is not None and config.min_length > 0:
        found.append(L.MinLengthLogitsProcessor(config.min_length, eos))
    if eos is not None and (config.min_new_tokens or 0) > 0:
        found.append(L.MinNewTokensLengthLogitsProcessor(prompt.length, config.min_new_tokens, eos))
    return found


def _forcing(config: Any, prompt: Prompt, eos: Tensor | None, prefix_fn: Any) -> list[Any]:
    found: list[Any] = []
    if prefix_fn is not None:
        found.append(L.PrefixConstrainedLogitsProcessor(prefix_fn, config.num_beams // (config.num_beam_groups or 1)))
    if config.forced_bos_token_id is not None:
        found.append(L.ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        found.append(L.ForcedEOSTokenLogitsProcessor(config.max_length, config.forced_eos_token_id))
    if config.remove_invalid_values:
        found.append(L.InfNanRemoveLogitsProcessor())
    if config.exponential_decay_length_penalty is not None:
        name = "exponential_decay_length_penalty"
        if eos is None:
            raise InvalidOptionError(f"{name} makes the end likelier: it needs eos_token_id", key=name)
        found.append(L.ExponentialDecayLengthPenalty(config.exponential_decay_length_penalty, eos, prompt.length))
    if config.suppress_tokens is not None:
        found.append(L.SuppressTokensLogitsProcessor(config.suppress_tokens))
    if config.begin_suppress_tokens is not None:
        is_forced = config.forced_bos_token_id is not None and prompt.length <= 1
        found.append(L.SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, prompt.length + is_forced))
    return found


def _filters(config: Any, eos: Tensor | None) -> list[Any]:
    # Of beams at least one has to have somewhere to go but the end.
    least = 1 if config.num_beams == 1 else 2 if eos is None else len(eos) + 1
    kept = {"min_tokens_to_keep": least}
    found: list[Any] = []
    if config.temperature != 1:
        found.append(F.TemperatureLogitsWarper(config.temperature))
    if config.top_h is not None:
        found.append(F.TopHLogitsWarper(config.top_h))
    if config.top_k:
        found.append(F.TopKLogitsWarper(config.top_k, **kept))
    if config.top_p < 1:
        found.append(F.TopPLogitsWarper(config.top_p, **kept))
    if config.min_p is not None:
        found.append(F.MinPLogitsWarper(config.min_p, **kept))
    if config.typical_p < 1:
        found.append(F.TypicalLogitsWarper(config.typical_p, **kept))
    if config.epsilon_cutoff > 0:
        found.append(F.EpsilonLogitsWarper(config.epsilon_cutoff, **kept))
    if config.eta_cutoff > 0:
        found.append(F.EtaLogitsWarper(config.eta_cutoff, **kept))
    return found


def _watermark(mark: Any, vocab_size: int, device: Any) -> Any:
    if isinstance(mark, WatermarkingConfig):
        return M.WatermarkLogitsProcessor(vocab_size, device, **mark.to_dict())
    from .logits_synthid import SynthIDTextWatermarkLogitsProcessor

    return SynthIDTextWatermarkLogitsProcessor(device=device, **mark.to_dict())


def criteria_for(
    model: Any, config: Any, eos: Tensor | None, tokenizer: Any, given: Iterable[Any]
) -> S.StoppingCriteriaList:
    """The criteria that `config` asks for and those `given` by the caller.

    Raises:
        InvalidOptionError: there are strings to stop at and no tokenizer.
    """
    found = S.StoppingCriteriaList([S.MaxLengthCriteria(config.max_length)])
    if config.max_time is not None:
        found.append(S.MaxTimeCriteria(config.max_time))
    if config.stop_strings is not None:
        if tokenizer is None:
            raise InvalidOptionError(
                "stop_strings are compared with text: pass the model's tokenizer too, as tokenizer=", key="tokenizer"
            )
        found.append(S.StopStringCriteria(tokenizer, config.stop_strings))
    if eos is not None:
        found.append(S.EosTokenCriteria(eos))
    if config.is_assistant and config.assistant_confidence_threshold > 0:
        found.append(S.ConfidenceCriteria(config.assistant_confidence_threshold))
    return S.StoppingCriteriaList(_merged(found, list(given)))
