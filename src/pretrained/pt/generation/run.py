"""The story of one call of generate: settings, inputs, a cache, a way to decode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig, GenerationMode
from ..kv_cache import StaticKVCache
from .assisted import assisted_decoding
from .beams import beam_search
from .caches import make_cache
from .calls import Call
from .compiled import CompiledStep, cache_room, compiled_step
from .contrastive import contrastive_search
from .few_rows import few_row_products
from .group_beams import group_beam_search
from .logits import id_tensor
from .prepare import Lengths, model_inputs, set_lengths, settings_for
from .processors import Prompt, criteria_for, processors_for
from .record import Record
from .sampling import decode
from .steps import Steps

__all__ = ["generate"]

_WAYS: dict[GenerationMode, Callable[[Call], Any]] = {
    GenerationMode.GREEDY_SEARCH: decode,
    GenerationMode.SAMPLE: decode,
    GenerationMode.BEAM_SEARCH: beam_search,
    GenerationMode.BEAM_SAMPLE: beam_search,
    GenerationMode.GROUP_BEAM_SEARCH: group_beam_search,
    GenerationMode.CONTRASTIVE_SEARCH: contrastive_search,
    GenerationMode.ASSISTED_GENERATION: assisted_decoding,
}
_UNSUPPORTED = {
    "constraints": "prefix_allowed_tokens_fn",
    "force_words_ids": "prefix_allowed_tokens_fn",
    "dola_layers": None,
    "use_mtp": None,
    "assistant_early_exit": "assistant_model",
    "speculation_type": "assistant_model",
    "token_healing": None,
}


def generate(
    model: Any,
    inputs: Tensor | None,
    generation_config: GenerationConfig | None,
    processors: list[Any],
    criteria: list[Any],
    *,
    prefix_fn: Any,
    assistant: Any,
    streamer: Any,
    negative: tuple[Tensor | None, Tensor | None],
    keywords: Mapping[str, Any],
) -> Any:
    """What `GenerationMixin.generate` returns; arguments are those of it."""
    if not model.can_generate():
        raise OptionError(
            f"{type(model).__name__} has no next-token logits to generate from: load the model with its head, such as "
            "AutoModelForCausalLM",
            key="generate",
        )
    config, kwargs, extras, lengths = settings_for(model, generation_config, keywords)
    mode = config.get_generation_mode(assistant)
    if extras.get("compile"):
        _settle_compiled(config, mode, kwargs)
    _refuse_unsupported(config, mode, streamer, extras)
    keeps = bool(config.return_dict_in_generate) or kwargs.get("past_key_values") is not None
    step = compiled_step(model) if extras.get("compile") else None
    outlives = keeps or step is not None or model.hf_quantizer is not None
    rows = few_row_products(model, assistant) if step is None else nullcontext()
    with torch.no_grad() if outlives else torch.inference_mode(), rows:
        extras["assistant"] = assistant
        call = _call(model, config, inputs, kwargs, lengths, extras, step, (prefix_fn, processors, criteria, negative))
        call.streamer = streamer
        if streamer is not None:
            streamer.put(call.ids.cpu())
        result = _WAYS[mode](call)
        if step is not None and not keeps and isinstance(call.steps.cache, StaticKVCache):
            step.give(len(call.ids) * call.num_copies, call.steps.cache.max_length, call.steps.cache)
    return result if outlives else result.clone()


def _call(
    model: Any,
    config: GenerationConfig,
    inputs: Tensor | None,
    kwargs: dict[str, Any],
    lengths: Lengths,
    extras: dict[str, Any],
    step: CompiledStep | None,
    given: tuple[Any, list[Any], list[Any], tuple[Tensor | None, Tensor | None]],
) -> Call:
    """All that a way to decode is given. `given`: a function of prefixes, processors, criteria, what is not wanted."""
    prefix_fn, processors, criteria, negative = given
    eos = None if config.eos_token_id is None else id_tensor("eos_token_id", config.eos_token_id, model.device)
    ids, kwargs, encoder_ids = model_inputs(model, inputs, kwargs, config, eos)
    embeds, copies = kwargs.get("inputs_embeds"), max(config.num_beams, config.num_return_sequences)
    embedded = 0 if embeds is None else embeds.shape[1] - ids.shape[1]
    set_lengths(config, lengths, ids.shape[1], model, embedded)
    mask = kwargs.get("decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask")
    if "past_key_values" not in kwargs and config.use_cache:
        room = config.max_length + max(0, embedded)
        kwargs["past_key_values"] = _cache_for(model, config, room, len(ids) * copies, step)
    prompt = Prompt(ids.shape[1], None if mask is None else mask.repeat_interleave(copies, 0), encoder_ids, *negative)
    record = Record(config, kwargs.get("encoder_outputs"))
    wanted = {n: True for n in ("output_attentions", "output_hidden_states") if record.is_wanted and getattr(config, n)}
    pad = config.pad_token_id
    return Call(
        model=model,
        config=config,
        ids=ids,
        steps=Steps(model, kwargs, config.max_length, config.use_cache, wanted, step.one_call() if step else None),
        processors=processors_for(model, config, prompt, eos, prefix_fn, processors, ids.device),
        criteria=criteria_for(model, config, eos, extras.get("tokenizer"), criteria),
        record=record,
        eos=eos,
        pad_id=int(eos[0]) if pad is None and eos is not None else pad,
        num_copies=copies,
        generator=extras.get("generator"),
        extra={**extras, "encoder_ids": encoder_ids},
    )


def _cache_for(model: Any, config: GenerationConfig, room: int, rows: int, step: CompiledStep | None) -> Any:
    """The cache of a call; with a compiled step that of an earlier one, if its shape is the same."""
    if step is None:
        return make_cache(model, config, room)
    room = cache_room(room)
    return step.take(rows, room, lambda: make_cache(model, config, room))


def _settle_compiled(config: GenerationConfig, mode: GenerationMode, kwargs: Mapping[str, Any]) -> None:
    """A compiled step has a static cache, and one new token for each row."""
    if mode in (GenerationMode.ASSISTED_GENERATION, GenerationMode.CONTRASTIVE_SEARCH) or not config.use_cache:
        what = mode.value if config.use_cache else "use_cache=False"
        raise InvalidOptionError(f"compile=True has one new token a step and a cache: not with {what}", key="compile")
    held = kwargs.get("past_key_values")
    if config.cache_implementation not in (None, "static") or (held is not None and not held.preallocated):
        raise InvalidOptionError("compile=True needs a static cache: shapes may not change", key="compile")
    config.cache_implementation = "static"


def _refuse_unsupported(
    config: GenerationConfig, mode: GenerationMode, streamer: Any, extras: Mapping[str, Any]
) -> None:
    for name, instead in _UNSUPPORTED.items():
        if getattr(config, name):
            hint = f"; {instead} is there for it" if instead else ""
            raise InvalidOptionError(f"{name}={getattr(config, name)!r:.60} is not supported{hint}", key=name)
    if streamer is not None and (config.num_beams > 1 or config.num_return_sequences > 1):
        raise InvalidOptionError(
            "a streamer follows one sequence: num_beams and num_return_sequences must be 1", key="streamer"
        )
    if extras.get("custom_generate") is not None:
        raise InvalidOptionError("custom_generate is not supported: call the function yourself", key="custom_generate")
