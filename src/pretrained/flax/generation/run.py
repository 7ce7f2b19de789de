"""One call of generate: settings, a prompt of a size that programs are compiled for, processors, and the loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...configuration_fields import fields_of
from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig, GenerationMode
from ...generation.fields import unknown_setting
from .. import calls, live
from .loop import Plan, Prompt, Settings, run
from .outputs import FlaxBeamSearchOutput, FlaxGreedySearchOutput, FlaxSampleOutput
from .processors import processors_for

__all__ = ["bucket", "generate"]

logger = logging.getLogger(__name__)

_MODES = frozenset(
    {
        GenerationMode.GREEDY_SEARCH,
        GenerationMode.SAMPLE,
        GenerationMode.BEAM_SEARCH,
        GenerationMode.BEAM_SAMPLE,
    }
)
# Settings that torch models have and JAX models do not.
_UNSUPPORTED = (
    *("constraints", "force_words_ids", "dola_layers", "use_mtp", "assistant_early_exit", "prompt_lookup_num_tokens"),
    *("token_healing", "guidance_scale", "watermarking_config", "stop_strings", "max_time", "top_h"),
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
)
_CONSTANT = ("encoder_hidden_states", "encoder_attention_mask")  # inputs that are the same at every step
_BLOCK = 128  # columns by which sizes grow, beyond the small ones


def bucket(count: int) -> int:
    """The size that `count` columns are rounded up to: 16, 32, 64, 128, then multiples of 128."""
    return next((size for size in (16, 32, 64) if count <= size), -(-count // _BLOCK) * _BLOCK)


def generate(
    model: Any,
    input_ids: Any,
    generation_config: GenerationConfig | None,
    prng_key: Any,
    params: Any,
    processors: list[Any],
    *,
    trace: bool,
    streamer: Any,
    keywords: Mapping[str, Any],
) -> Any:
    """What `FlaxGenerationMixin.generate` returns; arguments are those of it."""
    if not model.can_generate():
        raise OptionError(
            f"{type(model).__name__} has no next-token logits to generate from: load the model with its head, such as "
            "FlaxAutoModelForCausalLM",
            key="generate",
        )
    config, rest, has_max = _settings_for(model, generation_config, keywords)
    _refuse_unsupported(config, streamer)
    params = live.params_of(model) if params is None else params
    ids, mask, inputs, encoder_ids = _inputs_of(model, input_ids, rest, config, params)
    max_length = _max_length(config, has_max, ids.shape[1], model)
    eos = [] if config.eos_token_id is None else np.atleast_1d(config.eos_token_id).tolist()
    pad = config.pad_token_id if config.pad_token_id is not None else eos[0] if eos else 0
    copies = max(config.num_beams, config.num_return_sequences)
    plan, prompt = _sized(model, config, ids, mask, inputs, max_length, copies)
    settings = Settings(
        jnp.asarray(max_length, jnp.int32),
        jnp.asarray(eos, jnp.int32),
        jnp.asarray(pad, jnp.int32),
        jnp.asarray(config.length_penalty, jnp.float32),
    )
    applied = processors_for(config, ids.shape[1], max_length, encoder_ids, eos, processors)
    key = jax.random.key(0) if prng_key is None else prng_key
    if streamer is not None:
        streamer.put(ids)
    sequences, scores = run(
        model._program,
        plan,
        type(model)._empty_cache,
        "decode" if plan.is_crossed else "__call__",
        (params, prompt, settings, applied, key),
        trace=trace,
        on_token=None if streamer is None else lambda tokens: streamer.put(np.asarray(tokens)),
    )
    if streamer is not None:
        streamer.end()
    sequences = sequences[:, :max_length]
    if config.num_beams > 1:
        return FlaxBeamSearchOutput(sequences=sequences, scores=scores)
    return (FlaxSampleOutput if config.do_sample else FlaxGreedySearchOutput)(sequences=sequences)


def _settings_for(
    model: Any, given: GenerationConfig | None, keywords: Mapping[str, Any]
) -> tuple[GenerationConfig, dict[str, Any], bool]:
    """(settings, inputs of the module, whether somebody gave max_length)."""
    if given is not None and not isinstance(given, GenerationConfig):
        raise OptionError(
            f"generation_config is a GenerationConfig, not a {type(given).__name__}", key="generation_config"
        )
    own = model.generation_config or GenerationConfig()
    config: GenerationConfig = (given or GenerationConfig()).filled_from(own)
    rest = config.update(**keywords)
    config = config.filled_from()
    has_max = "max_length" in vars(config)
    config.validate()
    taken = {"attention_mask", *_CONSTANT} | ({"decoder_input_ids"} if model.config.is_encoder_decoder else set())
    for name in sorted(rest):
        if name not in taken:
            raise unknown_setting(name, {*taken, *fields_of(type(config)), "prng_key", "trace", "params"}, "generate")
    return config, {name: value for name, value in rest.items() if value is not None}, has_max


def _refuse_unsupported(config: GenerationConfig, streamer: Any) -> None:
    for name in _UNSUPPORTED:
        if getattr(config, name):
            raise InvalidOptionError(
                f"{name}={getattr(config, name)!r:.60} is there for torch models, not for JAX models", key=name
            )
    if (mode := config.get_generation_mode()) not in _MODES:
        raise InvalidOptionError(f"{mode.value} is there for torch models, not for JAX models", key="generation_config")
    if streamer is not None and (config.num_beams > 1 or config.num_return_sequences > 1):
        raise InvalidOptionError(
            "a streamer follows one sequence: num_beams and num_return_sequences must be 1", key="streamer"
        )


def _ids_array(name: str, ids: Any) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InvalidOptionError(
            f"{name} are integers (batch, seq), found {array.dtype} of shape {array.shape}", key=name
        )
    return array.astype(np.int32)


def _inputs_of(
    model: Any, input_ids: Any, rest: dict[str, Any], config: GenerationConfig, params: Any
) -> tuple[np.ndarray, np.ndarray, dict[str, Any], np.ndarray | None]:
    """(the ids that a decoder starts from, their mask, inputs of every step, the ids that an encoder saw)."""
    if input_ids is None:
        input_ids = [[_first_token(config.bos_token_id, "bos_token_id")]]
    ids = _ids_array(model.main_input_name, input_ids)
    mask = rest.get("attention_mask")
    mask = _mask_of(ids, config) if mask is None else np.asarray(mask).astype(np.int32)
    if mask.shape != ids.shape:
        raise InvalidOptionError(f"attention_mask is {mask.shape}, and input_ids {ids.shape}", key="attention_mask")
    constant = {name: rest[name] for name in _CONSTANT if name in rest}
    if not model.config.is_encoder_decoder:
        if len(ids) > 1 and (mask[:, -1] == 0).any():
            logger.warning("a row ends in padding, which a decoder would go on from: pad on the left")
        return ids, mask, constant, ids
    encoded = model.encode(*_padded_right(ids, mask), params=params)
    inputs = {"encoder_outputs": (encoded.last_hidden_state,), "encoder_attention_mask": _padded_right(ids, mask)[1]}
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    given = rest.get("decoder_input_ids")
    if given is None:
        given = np.full((len(ids), 1), _first_token(start, "decoder_start_token_id"))
    first = _ids_array("decoder_input_ids", given)
    return first, np.ones_like(first), inputs, ids


def _first_token(token: Any, name: str) -> int:
    if token is None:
        raise InvalidOptionError(f"there is no prompt, and no {name} to start from: pass either", key=name)
    return int(np.atleast_1d(token)[0])


def _mask_of(ids: np.ndarray, config: GenerationConfig) -> np.ndarray:
    """A mask of the padding that there seems to be; all ones where padding cannot be told from the end of a text."""
    pad, eos = config.pad_token_id, config.eos_token_id
    if pad is None or (eos is not None and pad in np.atleast_1d(eos)):
        return np.ones_like(ids)
    return (ids != pad).astype(np.int32)


def _padded_right(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an encoder is given, of a size that programs are compiled for."""
    missing = ((0, 0), (0, bucket(ids.shape[1]) - ids.shape[1]))
    return np.pad(ids, missing), np.pad(mask, missing)


def _max_length(config: GenerationConfig, has_max: bool, length: int, model: Any) -> int:
    """Columns of the longest text, prompt included.

    Raises:
        InvalidOptionError: there is no room for one token.
    """
    longest = config.max_length
    if config.max_new_tokens is not None:
        if has_max:
            logger.warning("max_new_tokens=%s counts, and not max_length", config.max_new_tokens)
        longest = length + config.max_new_tokens
    elif not has_max:
        limit = getattr(model.config, "max_position_embeddings", None)
        longest = length + config.max_length
        longest = max(length + 1, min(longest, limit)) if isinstance(limit, int) else longest
    if length >= longest:
        raise InvalidOptionError(
            f"the prompt has {length} tokens, and max_length={longest} is the length of all: pass max_new_tokens, "
            "which counts the new ones alone",
            key="max_length",
        )
    return int(longest)


def _sized(
    model: Any, config: GenerationConfig, ids: np.ndarray, mask: np.ndarray, inputs: Any, max_length: int, copies: int
) -> tuple[Plan, Prompt]:
    """The program's sizes, and the prompt rounded up to them."""
    length = ids.shape[1]
    is_crossed = model.config.is_encoder_decoder
    padded = length if is_crossed else bucket(length)  # a decoder's own start is one token, nearly always
    new = bucket(max_length - length)
    left = ((0, 0), (padded - length, 0))
    plan = Plan(
        room=padded + new,
        cache_room=padded + new,
        cache_dtype=live.dtype_of(model).name,
        copies=copies,
        do_sample=config.do_sample,
        num_beams=config.num_beams,
        num_returned=config.num_return_sequences,
        early_stopping=config.early_stopping,
        is_crossed=is_crossed,
        keeps_last=calls.takes(model._module_class, "logits_to_keep", "decode" if is_crossed else "__call__"),
    )
    return plan, Prompt(np.pad(ids, left), np.pad(mask, left), np.asarray(length, np.int32), inputs)
