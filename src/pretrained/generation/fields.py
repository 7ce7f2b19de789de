"""What each setting of generation may be: its type, its range, and what is read and written for it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from ..configuration_fields import Field, check_value, to_json_value
from ..errors import ConfigError, OptionError
from .watermarking import as_watermark

__all__ = ["CACHES", "check_range", "check_together", "check_type", "json_of", "plain", "unknown_setting"]

# Kinds of KV cache that `cache_implementation` may name. The later ones are older names of "static": a model with a
# sliding window has layers that slide in any of them.
CACHES = (
    "dynamic",
    "static",
    "quantized",
    "offloaded",
    "offloaded_static",
    "sliding_window",
    "hybrid",
    "hybrid_chunked",
    "offloaded_hybrid",
    "offloaded_hybrid_chunked",
    "dynamic_full",
)

_COUNTS_FROM_1 = (
    *("max_new_tokens", "num_beams", "num_return_sequences", "num_beam_groups", "max_cache_len", "prefill_chunk_size"),
    *("num_assistant_tokens", "prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit"),
    *("assistant_lookbehind", "target_lookbehind"),
)
_COUNTS = ("max_length", "min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
_SHARES = ("top_p", "min_p", "top_h", "typical_p", "assistant_confidence_threshold")
_CUTOFFS = ("epsilon_cutoff", "eta_cutoff")
_PENALTIES = ("repetition_penalty", "encoder_repetition_penalty")

_Range = tuple[Callable[[Any], bool], str]
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(_COUNTS_FROM_1, (lambda n: n >= 1, "must be 1 or more")),
    **dict.fromkeys(_COUNTS, (lambda n: n >= 0, "must be 0 or more")),
    **dict.fromkeys(_SHARES, (lambda x: 0 <= x <= 1, "must be from 0 to 1")),
    **dict.fromkeys(_CUTOFFS, (lambda x: 0 <= x < 1, "must be from 0 to less than 1")),
    **dict.fromkeys(_PENALTIES, (lambda x: 0 < x < math.inf, "must be above 0")),
    "top_k": (lambda k: k >= 0, "must be 0 (off) or more"),
    "temperature": (lambda t: 0 <= t < math.inf, "must be 0 or more"),
    "length_penalty": (lambda x: not math.isnan(x), "must be a number"),
    "diversity_penalty": (lambda x: 0 <= x < math.inf, "must be 0 or more"),
    "penalty_alpha": (lambda x: 0 <= x <= 1, "must be from 0 to 1"),
    "max_time": (lambda s: s >= 0, "must be 0 or more seconds"),
    "guidance_scale": (lambda x: math.isfinite(x), "must be finite"),
    "assistant_ensemble_weight": (lambda w: 0 < w < 1, "must be above 0 and below 1"),
    "early_stopping": (lambda v: v in (True, False, "never"), "must be True, False or 'never'"),
    "cache_implementation": (lambda v: v in CACHES, f"must be one of {', '.join(CACHES)}"),
    "num_assistant_tokens_schedule": (
        lambda v: v in ("constant", "heuristic", "heuristic_transient"),
        "must be 'constant', 'heuristic' or 'heuristic_transient'",
    ),
    "exponential_decay_length_penalty": (
        lambda v: len(v) == 2 and v[0] >= 0 and v[1] > 0,
        "must be (the token it starts at, a factor above 0)",
    ),
    "bad_words_ids": (
        lambda words: all(isinstance(word, list) and word and _are_ids(word) for word in words),
        "must be a list of lists of token ids, none empty",
    ),
    "suppress_tokens": (lambda ids: _are_ids(ids), "must be a list of token ids"),
    "begin_suppress_tokens": (lambda ids: _are_ids(ids), "must be a list of token ids"),
    "eos_token_id": (lambda v: _is_id(v) or (_are_ids(v) and bool(v)), "must be a token id or a list of them"),
    "stop_strings": (
        lambda v: isinstance(v, str) or all(isinstance(s, str) and s for s in v),
        "must be a string or a list of strings, none empty",
    ),
    "sequence_bias": (lambda v: _is_bias(v), "must give token ids and a number for each sequence"),
}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ids(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_id, values))


def _is_bias(value: Any) -> bool:
    pairs = value.items() if isinstance(value, Mapping) else value
    return bool(pairs) and all(
        len(pair) == 2 and bool(pair[0]) and all(map(_is_id, pair[0])) and isinstance(pair[1], Real) for pair in pairs
    )


def plain(name: str, value: Any) -> Any:
    """A value as the rest of the code counts on it: numbers of numpy and of tensors as Python's, tuples as lists."""
    if name == "watermarking_config" and value is not None:
        return as_watermark(value)
    if isinstance(value, (bool, int, float, str, Mapping)) or value is None or name == "constraints":
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if callable(tolist := getattr(value, "tolist", None)):
        return tolist()
    return [plain(name, item) for item in value] if isinstance(value, (list, tuple, set)) else value


def check_type(name: str, value: Any, field: Field) -> None:
    """Raises ConfigError, naming the setting, unless the value is of a type that it may have."""
    if value is None:
        return
    try:
        check_value(name, value, field)
    except ConfigError as error:
        reason = error.reason.replace("config key", "generation setting", 1)
        raise ConfigError(reason, key=name, reason=reason) from None


def check_range(name: str, value: Any) -> None:
    """Raises ConfigError, naming the setting, unless the value is possible."""
    if value is None or name not in _RANGES:
        return
    is_possible, complaint = _RANGES[name]
    try:
        fits = is_possible(value)
    except (TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise ConfigError(f"generation setting {name!r} {complaint}, found {value!r:.80}", key=name)


def check_together(config: Any) -> None:
    """Raises ConfigError, naming the setting, where settings contradict each other."""
    beams, groups, wanted = config.num_beams or 1, config.num_beam_groups or 1, config.num_return_sequences or 1
    if wanted > 1 and beams == 1 and not config.do_sample:
        complaint = f"num_return_sequences={wanted} without beams or sampling: greedy decoding has one result"
        raise ConfigError(complaint, key="num_return_sequences")
    if wanted > beams > 1:
        raise ConfigError(f"num_return_sequences={wanted} is more than num_beams={beams}", key="num_return_sequences")
    if groups > beams or beams % groups:
        complaint = f"num_beams={beams} cannot be split into num_beam_groups={groups} of one size"
        raise ConfigError(complaint, key="num_beam_groups")
    if groups > 1 and config.do_sample:
        raise ConfigError("groups of beams do not sample: num_beam_groups with do_sample", key="num_beam_groups")
    suppressed = set(config.suppress_tokens or ())
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = getattr(config, name)
        ids = set() if forced is None else {forced} if isinstance(forced, int) else set(forced)
        if ids and ids <= suppressed:
            raise ConfigError(f"{name}={forced} is also in suppress_tokens: no token would be left", key=name)


def json_of(name: str, value: Any) -> Any:
    """A setting as JSON has it. Sequences cannot be keys there: a bias for them is written as a list of pairs."""
    if name == "sequence_bias" and isinstance(value, Mapping):
        return [[list(ids), bias] for ids, bias in value.items()]
    return to_json_value(value)


def unknown_setting(name: str, known: Iterable[str], of: str = "generation") -> OptionError:
    """The error for a keyword nobody knows, with the nearest name somebody does."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return OptionError(f"{of} has no option {name!r:.80}{hint}", key=name)
