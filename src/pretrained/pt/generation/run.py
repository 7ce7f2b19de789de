"""The story of one call of generate: settings, inputs, a cache, a way to decode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig, GenerationMode
from .assisted import assisted_decoding
from .beams import beam_search
from .caches import make_cache
from .calls import Call
from .contrastive import contrastive_search
from .group_beams import group_beam_search
from .logits import id_tensor
from .prepare import model_inputs, set_lengths, settings_for
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
    _refuse_unsupported(config, mode, streamer, extras)
    keeps = bool(config.return_dict_in_generate) or kwargs.get("past_key_values") is not None
    with torch.no_grad() if keeps or model.hf_quantizer is not None else torch.inference_mode():
        eos = None if config.eos_token_id is None else id_tensor("eos_token_id", config.eos_token_id, model.device)
        ids, kwargs, encoder_ids = model_inputs(model, inputs, kwargs, config, eos)
        embeds = kwargs.get("inputs_embeds")
        set_lengths(config, lengths, ids.shape[1], model, 0 if embeds is None else embeds.shape[1] - ids.shape[1])
        mask = kwargs.get("decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask")
        prompt = Prompt(ids.shape[1], mask, encoder_ids, *negative)
        copies = max(config.num_beams, config.num_return_sequences)
        if "past_key_values" not in kwargs and config.use_cache:
            kwargs["past_key_values"] = make_cache(model, config, ids, embeds)
        prompt = prompt._replace(mask=None if mask is None else mask.repeat_interleave(copies, 0))
        record = Record(config, kwargs.get("encoder_outputs"))
        wanted = {n: True for n in ("output_attentions", "output_hidden_states") if getattr(config, n)}
        call = Call(
            model,
            config,
            ids,
            Steps(model, kwargs, config.max_length, config.use_cache, wanted if record.is_wanted else {}),
            processors_for(model, config, prompt, eos, prefix_fn, processors, ids.device),
            criteria_for(model, config, eos, extras.get("tokenizer"), criteria),
            record,
            eos,
            config.pad_token_id if config.pad_token_id is not None else None if eos is None else int(eos[0]),
            copies,
            streamer,
            extras.get("generator"),
            extras | {"assistant": assistant, "encoder_ids": encoder_ids},
        )
        if streamer is not None:
            streamer.put(ids.cpu())
        result = _WAYS[mode](call)
    return result if keeps else result.clone()


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
