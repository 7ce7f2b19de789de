"""One call of generate: settings, a prompt of a size that programs are made for, processors, and the loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from ...call_inputs import takes
from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig, GenerationMode
from ...generation.processors import processors_for
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
from . import logits as L
from . import logits_repeats as R
from .loop import Decoder, Plan, Prompt, Settings
from .outputs import (
    TFBeamSampleOutput,
    TFBeamSearchOutput,
    TFContrastiveSearchOutput,
    TFGreedySearchOutput,
    TFSampleOutput,
)  # fmt: skip
from .sampling import key_of

__all__ = ["Programs", "generate"]

logger = logging.getLogger(__name__)
Tensor: TypeAlias = tf.Tensor

_OUTPUTS: Mapping[GenerationMode, Any] = {
    GenerationMode.GREEDY_SEARCH: TFGreedySearchOutput,
    GenerationMode.SAMPLE: TFSampleOutput,
    GenerationMode.BEAM_SEARCH: TFBeamSearchOutput,
    GenerationMode.BEAM_SAMPLE: TFBeamSampleOutput,
    GenerationMode.CONTRASTIVE_SEARCH: TFContrastiveSearchOutput,
}
_CLASSES = {name: getattr(module, name) for module in (L, R) for name in module.__all__ if name.startswith("TF")}


class Programs:
    """The programs that a model has been decoded with; they know its variables, so they go when those do."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def get(self, decoder: Decoder, made_for: tuple[Any, ...], key: Any, compiled: bool) -> Any:
        """The function of (prompt, settings, numbers of processors, seed)."""
        whole_key = (key, decoder.plan, made_for, compiled)
        if whole_key not in self._made:

            def run(prompt: Prompt, settings: Settings, numbers: list[Tensor], seed: Tensor) -> tuple[Tensor, ...]:
                return decoder.whole(prompt, settings, L.put_together(made_for, numbers), seed)

            self._made[whole_key] = tf.function(run, jit_compile=True if compiled else None, autograph=False)
        return self._made[whole_key]

    def encoder(self, module: Any, compiled: bool) -> Any:
        """The function of (ids, mask) that gives what the module's encoder makes of them, `(batch, seq, hidden)`."""
        key = ("encode", compiled)
        if key not in self._made:

            def run(ids: Tensor, mask: Tensor) -> Tensor:
                return module.encode(ids, mask).last_hidden_state

            self._made[key] = tf.function(run, jit_compile=True if compiled else None, autograph=False)
        return self._made[key]


class Start(NamedTuple):
    """What a decoder starts from: ids and mask `(batch, seq)`, inputs of every step, the ids that an encoder saw."""

    ids: Any
    mask: Any
    inputs: dict[str, Any]
    encoder_ids: Any


@tf.autograph.experimental.do_not_convert  # what depends on tensors here says so itself
def generate(
    model: Any,
    inputs: Any,
    generation_config: GenerationConfig | None,
    processors: list[Any],
    *,
    seed: Any,
    jit_compile: bool,
    trace: bool,
    streamer: Any,
    keywords: Mapping[str, Any],
) -> Any:
    """What `TFGenerationMixin.generate` returns; arguments are those of it."""
    if not model.can_generate():
        raise OptionError(
            f"{type(model).__name__} has no next-token logits to generate from: load the model with its head, such as "
            "TFAutoModelForCausalLM",
            key="generate",
        )
    rest = dict(keywords)
    named = {name: rest.pop(name) for name in ("input_ids", model.main_input_name) if name in rest}
    inputs = next(iter(named.values()), None) if inputs is None else inputs
    config, rest, has_max = settings_for(model, generation_config, rest, ("seed", "jit_compile", "trace", "streamer"))
    refuse(config, streamer, _OUTPUTS, "TensorFlow")
    as_program = tf.executing_eagerly() and trace and streamer is None
    start = _start_of(model, inputs, rest, config, jit_compile if as_program else None)
    length = int(start.ids.shape[1])
    max_length = longest_text(config, has_max, length, model)
    plan, prompt = _sized(model, config, start, max_length)
    eos = [] if config.eos_token_id is None else np.atleast_1d(config.eos_token_id).tolist()
    settings = _settings(config, max_length, eos)
    applied = processors_for(_made, config, length, max_length, start.encoder_ids, eos, processors)
    method = "decode" if plan.is_crossed else "call"
    decoder = Decoder(model.module, plan, type(model)._empty_cache, method)
    if streamer is not None:
        streamer.put(np.asarray(start.ids))
    arguments = (prompt, settings, L.TFLogitsProcessorList(applied), key_of(seed))
    found = _run(model, decoder, arguments, jit_compile, trace, streamer)
    sequences = found[0][:, :max_length]
    if tf.executing_eagerly():
        sequences = sequences[:, : min(int(found[1]), max_length)]
    if not config.return_dict_in_generate:
        return sequences
    scores = {"sequences_scores": found[2]} if len(found) > 2 else {}
    return _OUTPUTS[config.get_generation_mode()](sequences=sequences, **scores)


def _run(
    model: Any, decoder: Decoder, arguments: tuple[Any, ...], jit_compile: bool, trace: bool, streamer: Any
) -> tuple[Tensor, ...]:
    prompt, settings, processors, key = arguments
    if not tf.executing_eagerly():  # within somebody's own function
        return decoder.whole(prompt, settings, processors, key)
    if streamer is not None or not trace:
        on_token = None if streamer is None else lambda tokens: streamer.put(np.asarray(tokens))
        found = decoder.stepped(prompt, settings, processors, key, on_token)
        if streamer is not None:
            streamer.end()
        return found
    made_for, numbers = L.taken_apart(processors)
    program = model._programs.get(decoder, made_for, type(model)._empty_cache, jit_compile)
    result: tuple[Tensor, ...] = program(prompt, settings, numbers, key)
    return result


def _made(name: str, *arguments: Any, **keywords: Any) -> Any:
    cls = _CLASSES[f"TF{name}"]
    return cls.of(*arguments) if cls is R.TFSequenceBiasLogitsProcessor else cls(*arguments, **keywords)


def _settings(config: GenerationConfig, max_length: int, eos: list[int]) -> Settings:
    pad = config.pad_token_id if config.pad_token_id is not None else eos[0] if eos else 0
    return Settings(
        tf.constant(max_length),
        tf.constant(eos, tf.int32, (len(eos),)),
        tf.constant(pad),
        tf.constant(config.length_penalty, tf.float32),
        tf.constant(config.penalty_alpha or 0.0, tf.float32),
    )


def _start_of(model: Any, inputs: Any, rest: dict[str, Any], config: GenerationConfig, compiled: bool | None) -> Start:
    """What a decoder starts from; of a model with an encoder what that made of the input.

    The encoder runs as a program of its own, by XLA if `compiled` is true; as it is if that is None.
    """
    if inputs is None:
        inputs = [[first_token(config.bos_token_id, "bos_token_id")]]
    ids, mask = _ids_and_mask(model.main_input_name, inputs, rest.get("attention_mask"), config)
    constant = {name: tf.convert_to_tensor(rest[name]) for name in CONSTANT_INPUTS if name in rest}
    if not model.config.is_encoder_decoder:
        if isinstance(mask, np.ndarray) and len(ids) > 1 and (mask[:, -1] == 0).any():
            logger.warning("a row ends in padding, which a decoder would go on from: pad on the left")
        return Start(ids, mask, constant, ids)
    seen, visible = padded_right(ids, mask) if isinstance(ids, np.ndarray) else (ids, mask)
    seen, visible = tf.convert_to_tensor(seen), tf.convert_to_tensor(visible)
    if compiled is None:
        states = model.module.encode(seen, visible).last_hidden_state
    else:
        states = model._programs.encoder(model.module, compiled)(seen, visible)
    further = {"encoder_outputs": (states,), "encoder_attention_mask": visible}
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    given = rest.get("decoder_input_ids")
    if given is None:
        given = np.full((ids.shape[0], 1), first_token(start, "decoder_start_token_id"))
    first, _ = _ids_and_mask("decoder_input_ids", given, None, config)
    return Start(first, np.ones(tuple(first.shape), np.int32), further, ids)


def _ids_and_mask(name: str, given: Any, mask: Any, config: GenerationConfig) -> tuple[Any, Any]:
    """Ids and mask `(batch, seq)`: of numpy, or where somebody's function is traced tensors with known shapes."""
    if not tf.is_tensor(given) or tf.executing_eagerly():
        ids = ids_array(name, given)
        mask = mask_of(ids, config) if mask is None else np.asarray(mask).astype(np.int32)
    else:
        if not given.shape.is_fully_defined():
            raise InvalidOptionError(
                f"{name} have the shape {given.shape}: give tf.function an input_signature with numbers", key=name
            )
        ids = tf.cast(given, tf.int32)
        pad, eos = config.pad_token_id, config.eos_token_id
        is_told = pad is not None and (eos is None or pad not in np.atleast_1d(eos))
        found = (ids != pad) if is_told else tf.ones_like(ids)
        mask = tf.cast(found if mask is None else mask, tf.int32)
    if tuple(mask.shape) != tuple(ids.shape):
        raise InvalidOptionError(f"attention_mask is {mask.shape}, and {name} {ids.shape}", key="attention_mask")
    return ids, mask


def _sized(model: Any, config: GenerationConfig, start: Start, max_length: int) -> tuple[Plan, Prompt]:
    """The program's sizes, and the prompt rounded up to them."""
    length = int(start.ids.shape[1])
    is_crossed = model.config.is_encoder_decoder
    is_free = isinstance(start.ids, np.ndarray)  # otherwise it is a part of somebody's program, of one size
    padded = bucket(length) if is_free and not is_crossed else length  # a decoder's own start is one token
    new = bucket(max_length - length) if is_free else max_length - length
    left = ((0, 0), (padded - length, 0))
    is_contrastive = config.get_generation_mode() == GenerationMode.CONTRASTIVE_SEARCH
    plan = Plan(
        room=padded + new,
        cache_room=padded + new,
        cache_dtype=_cache_dtype(model),
        copies=1 if is_contrastive else max(config.num_beams, config.num_return_sequences),
        do_sample=config.do_sample,
        num_beams=config.num_beams,
        num_returned=config.num_return_sequences,
        early_stopping=config.early_stopping,
        is_crossed=is_crossed,
        first_position=type(model)._first_position(model.config),
        keeps_last=takes(type(model).module_class, "logits_to_keep", "decode" if is_crossed else "call"),
        num_tried=config.top_k if is_contrastive else 0,
    )
    ids, mask = (tf.pad(tf.convert_to_tensor(part), left) for part in (start.ids, start.mask))
    return plan, Prompt(ids, mask, tf.constant(length), start.inputs)


def _cache_dtype(model: Any) -> str:
    """What keys and values are computed in: of a mixed policy its dtype, else that of the parameters."""
    policy = model.dtype_policy
    is_mixed = policy.compute_dtype != policy.variable_dtype
    found: str = policy.compute_dtype if is_mixed else model.dtype
    return found
