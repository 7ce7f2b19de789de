"""From what a caller passes to generate to a `Call`: settings merged, inputs checked and completed, an encoder run."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...configuration_fields import fields_of
from ...errors import InvalidOptionError, OptionError
from ...generation.config import GenerationConfig
from ...generation.fields import unknown_setting
from .logits import id_tensor
from .steps import accepted_names

__all__ = ["EXTRAS", "Inputs", "Lengths", "first_ids", "model_inputs", "set_lengths", "settings_for"]

logger = logging.getLogger(__name__)

# Keywords that only some ways to decode take, and those that are there for other people's code.
EXTRAS = frozenset(
    {
        *("tokenizer", "assistant_tokenizer", "generator", "compile", "synced_gpus", "trust_remote_code"),
        *("use_model_defaults", "custom_generate"),
    }
)
_OUTPUTS = ("output_attentions", "output_hidden_states")


class Lengths(NamedTuple):
    """Which lengths the caller, or the model's settings, gave."""

    has_max: bool
    has_min: bool


def settings_for(
    model: Any, given: GenerationConfig | None, keywords: Mapping[str, Any]
) -> tuple[GenerationConfig, dict[str, Any], dict[str, Any], Lengths]:
    """(settings, inputs of the model, extras, which lengths were given) of the keywords of a call.

    A keyword stands above `given`, that above the model's own settings, these above the defaults.

    Raises:
        OptionError: a keyword that nobody knows; names the nearest. ConfigError: an impossible setting.
    """
    if given is not None and not isinstance(given, GenerationConfig):
        raise OptionError(
            f"generation_config is a GenerationConfig, not a {type(given).__name__}", key="generation_config"
        )
    own = model.generation_config or GenerationConfig()
    config: GenerationConfig = (given or GenerationConfig()).filled_from(own)
    rest = config.update(**{name: value for name, value in keywords.items() if name not in EXTRAS})
    config = config.filled_from()
    lengths = Lengths("max_length" in vars(config), "min_length" in vars(config))
    config.validate()
    extras = {name: value for name, value in keywords.items() if name in EXTRAS}
    _refuse_unknown(model, rest, config)
    return config, rest, extras, lengths


def _refuse_unknown(model: Any, rest: Mapping[str, Any], config: GenerationConfig) -> None:
    taken = accepted_names(model.prepare_inputs_for_generation)
    passes_on = any(
        p.kind is p.VAR_KEYWORD for p in inspect.signature(model.prepare_inputs_for_generation).parameters.values()
    )
    if passes_on:
        taken |= accepted_names(model.forward)
    if model.config.is_encoder_decoder:
        inner = accepted_names(model.get_encoder().forward) | accepted_names(model.get_decoder().forward)
        taken |= inner | {f"decoder_{name}" for name in inner} | {"encoder_outputs"}
    taken -= {"self", "labels", "next_sequence_length", "is_first_iteration", "return_dict"}
    for name in sorted(rest):
        if name not in taken:
            raise unknown_setting(name, {*taken, *fields_of(type(config)), *EXTRAS}, "generate")


class Inputs(NamedTuple):
    """The prompt's ids `(batch, seq)`, what forward is given too, and the ids that an encoder saw."""

    ids: Tensor
    kwargs: dict[str, Any]
    encoder_ids: Tensor | None


def model_inputs(
    model: Any, inputs: Tensor | None, given: dict[str, Any], config: GenerationConfig, eos: Tensor | None
) -> Inputs:
    """The inputs of the first step; an encoder is run here.

    Raises:
        InvalidOptionError: the input is of no use, or is there twice; or there is none and nothing to start from.
    """
    given = {name: value for name, value in given.items() if value is not None}
    name = model.main_input_name
    if inputs is not None and name in given:
        raise OptionError(f"generate was given inputs and {name}=, which are one: pass either", key=name)
    main = given.pop(name, None) if inputs is None else inputs
    _check_main(name, main)
    if model.config.is_encoder_decoder:
        return _crossed_inputs(model, main, name, given, config)
    embeds = given.get("inputs_embeds")
    if main is None and embeds is None:
        main = first_ids(config.bos_token_id, 1, model.device, "bos_token_id")
    if main is None:
        assert embeds is not None
        main = torch.ones((len(embeds), 0), dtype=torch.int64, device=embeds.device)
    if embeds is not None:
        config.use_cache = True  # the ids of a later step are not the whole text
    if "attention_mask" not in given and "attention_mask" in accepted_names(model.forward):
        given["attention_mask"] = _mask_of(main if embeds is None else None, config.pad_token_id, eos)
    if "attention_mask" in given and given["attention_mask"] is None:
        del given["attention_mask"]
    _warn_of_right_padding(main, given.get("attention_mask"))
    return Inputs(main, given, main if main.shape[1] else None)


def _check_main(name: str, main: Any) -> None:
    if main is None:
        return
    if not isinstance(main, Tensor):
        raise InvalidOptionError(f"{name} is a tensor, not a {type(main).__name__}", key=name)
    if name == "input_ids" and (main.dim() != 2 or main.is_floating_point()):
        raise InvalidOptionError(
            f"input_ids are integers (batch, seq), found {str(main.dtype).removeprefix('torch.')} of shape "
            f"{tuple(main.shape)}",
            key=name,
        )


def first_ids(token: Any, batch: int, device: Any, name: str) -> Tensor:
    """`(batch, 1)` of the token that decoding starts from; a list has one for each row.

    Raises:
        InvalidOptionError: there is none, or not one for each row.
    """
    if token is None:
        raise InvalidOptionError(f"there is no prompt, and no {name} to start from: pass either", key=name)
    ids = id_tensor(name, token, device)
    if len(ids) not in (1, batch):
        raise InvalidOptionError(f"{name} has {len(ids)} tokens for a batch of {batch}", key=name)
    return ids[:, None].expand(batch, 1).clone()


def _mask_of(ids: Tensor | None, pad: int | None, eos: Tensor | None) -> Tensor | None:
    """A mask of the padding that there seems to be; `None` where padding cannot be told from the end of a text."""
    if ids is None or pad is None or not ids.shape[1] or (eos is not None and bool((eos == pad).any())):
        return None
    mask = ids != pad
    return None if bool(mask.all()) else mask.long()


def _warn_of_right_padding(ids: Tensor, mask: Tensor | None) -> None:
    if len(ids) > 1 and mask is not None and mask.dim() == 2 and mask.shape[1] and bool((mask[:, -1] == 0).any()):
        logger.warning("a row ends in padding, which a decoder would go on from: pad on the left")


def _crossed_inputs(
    model: Any, main: Tensor | None, name: str, given: dict[str, Any], config: GenerationConfig
) -> Inputs:
    embeds = given.pop("inputs_embeds", None)
    encoded = given.get("encoder_outputs")
    if main is not None and embeds is not None:
        raise OptionError(f"generate was given {name} and inputs_embeds: pass either", key="inputs_embeds")
    if main is None and embeds is None and encoded is None:
        main = first_ids(config.bos_token_id, 1, model.device, "bos_token_id")
    if "attention_mask" not in given and main is not None and main.dim() == 2:
        mask = _mask_of(main, config.pad_token_id, None if config.eos_token_id is None else torch.tensor(-1))
        given |= {} if mask is None else {"attention_mask": mask}
    if encoded is None:
        encoded = _encode(model, {name: main} if embeds is None else {"inputs_embeds": embeds}, given, config)
    elif isinstance(encoded, (tuple, list)):
        from ..outputs import BaseModelOutput

        encoded = BaseModelOutput(*encoded[:3])
    given["encoder_outputs"] = encoded
    batch, device = len(encoded[0]), encoded[0].device
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    ids = given.pop("decoder_input_ids", None)
    first = None if ids is not None and start is None else first_ids(start, batch, device, "decoder_start_token_id")
    if ids is None:
        ids = first
    elif first is not None and bool((ids[:, 0] != first[:, 0]).all()):
        ids = torch.cat((first, ids), 1)
        if (mask := given.get("decoder_attention_mask")) is not None:
            given["decoder_attention_mask"] = torch.cat((torch.ones_like(mask[:, :1]), mask), 1)
    return Inputs(ids, given, main if main is not None and main.dim() == 2 else None)


def _encode(model: Any, main: dict[str, Any], given: dict[str, Any], config: GenerationConfig) -> Any:
    encoder = model.get_encoder()
    taken = accepted_names(encoder.forward)
    given = {k: v for k, v in given.items() if k in taken and not k.startswith("decoder_") and k != "use_cache"}
    wanted = {name: True for name in _OUTPUTS if getattr(config, name) and config.return_dict_in_generate}
    return encoder(**main, **given, **wanted, return_dict=True)


def set_lengths(config: GenerationConfig, given: Lengths, length: int, model: Any, embedded: int = 0) -> None:
    """Settles `max_length` and `min_length`, prompt included; `embedded`: tokens of it that are no ids.

    Raises:
        InvalidOptionError: there is no room for one token.
    """
    if config.max_new_tokens is not None:
        if given.has_max:
            logger.warning("max_new_tokens=%s counts, and not max_length", config.max_new_tokens)
        config.max_length = length + config.max_new_tokens
    elif not given.has_max:
        limit = getattr(model.config, "max_position_embeddings", None)
        longest = length + config.max_length
        config.max_length = max(length + 1, min(longest, limit)) if isinstance(limit, int) else longest
    elif embedded:
        config.max_length -= embedded
    if config.min_new_tokens is not None:
        config.min_length = length + config.min_new_tokens
    elif embedded:
        config.min_length = max(0, config.min_length - embedded)
    if length >= config.max_length:
        raise InvalidOptionError(
            f"the prompt has {length + embedded} tokens, and max_length={config.max_length + embedded} is the length "
            "of all: pass max_new_tokens, which counts the new ones alone",
            key="max_length",
        )
    if config.min_length > config.max_length:
        warnings.warn(
            f"min_length={config.min_length} is more than max_length={config.max_length}, where generation ends",
            stacklevel=2,
        )
