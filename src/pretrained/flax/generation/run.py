"""One call of generate: settings, a prompt of a size that programs are compiled for, processors, and the loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig, GenerationMode
from ...generation.prompts import (
    CONSTANT_INPUTS,
    bucket,
    first_token,
    ids_array,
    longest_text,
    mask_of,
    padded_right,
    refuse,
    settings_for,
)  # fmt: skip
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
    config, rest, has_max = settings_for(model, generation_config, keywords, ("prng_key", "trace", "params"))
    refuse(config, streamer, _MODES, "JAX")
    params = live.params_of(model) if params is None else params
    ids, mask, inputs, encoder_ids = _inputs_of(model, input_ids, rest, config, params)
    max_length = longest_text(config, has_max, ids.shape[1], model)
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


def _inputs_of(
    model: Any, input_ids: Any, rest: dict[str, Any], config: GenerationConfig, params: Any
) -> tuple[np.ndarray, np.ndarray, dict[str, Any], np.ndarray | None]:
    """(the ids that a decoder starts from, their mask, inputs of every step, the ids that an encoder saw)."""
    if input_ids is None:
        input_ids = [[first_token(config.bos_token_id, "bos_token_id")]]
    ids = ids_array(model.main_input_name, input_ids)
    mask = rest.get("attention_mask")
    mask = mask_of(ids, config) if mask is None else np.asarray(mask).astype(np.int32)
    if mask.shape != ids.shape:
        raise InvalidOptionError(f"attention_mask is {mask.shape}, and input_ids {ids.shape}", key="attention_mask")
    constant = {name: rest[name] for name in CONSTANT_INPUTS if name in rest}
    if not model.config.is_encoder_decoder:
        if len(ids) > 1 and (mask[:, -1] == 0).any():
            logger.warning("a row ends in padding, which a decoder would go on from: pad on the left")
        return ids, mask, constant, ids
    encoded = model.encode(*padded_right(ids, mask), params=params)
    inputs = {"encoder_outputs": (encoded.last_hidden_state,), "encoder_attention_mask": padded_right(ids, mask)[1]}
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    given = rest.get("decoder_input_ids")
    if given is None:
        given = np.full((len(ids), 1), first_token(start, "decoder_start_token_id"))
    first = ids_array("decoder_input_ids", given)
    return first, np.ones_like(first), inputs, ids


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
        first_position=type(model)._first_position(model.config),
        keeps_last=calls.takes(model._module_class, "logits_to_keep", "decode" if is_crossed else "__call__"),
    )
    return plan, Prompt(np.pad(ids, left), np.pad(mask, left), np.asarray(length, np.int32), inputs)
