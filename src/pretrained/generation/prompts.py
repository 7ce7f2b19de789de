"""What generation begins with, in arrays of numpy: settings, a prompt of a size that programs are compiled for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from ..configuration_fields import fields_of
from ..errors import InvalidOptionError, OptionError
from .config import GenerationConfig, GenerationMode
from .fields import unknown_setting

__all__ = [
    "CONSTANT_INPUTS", "bucket", "first_token", "ids_array", "longest_text", "mask_of", "padded_right", "refuse",
    "settings_for",
]  # fmt: skip

logger = logging.getLogger(__name__)

CONSTANT_INPUTS = ("encoder_hidden_states", "encoder_attention_mask")  # the same at every step
# Settings that torch models have and compiled decoding does not.
_UNSUPPORTED = (
    *("constraints", "force_words_ids", "dola_layers", "use_mtp", "assistant_early_exit", "prompt_lookup_num_tokens"),
    *("token_healing", "guidance_scale", "watermarking_config", "stop_strings", "max_time", "top_h"),
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
)
_BLOCK = 128  # columns by which sizes grow, beyond the small ones


def bucket(count: int) -> int:
    """The size that `count` columns are rounded up to: 16, 32, 64, 128, then multiples of 128."""
    return next((size for size in (16, 32, 64) if count <= size), -(-count // _BLOCK) * _BLOCK)


def settings_for(
    model: Any, given: GenerationConfig | None, keywords: Mapping[str, Any], others: Collection[str]
) -> tuple[GenerationConfig, dict[str, Any], bool]:
    """(settings, inputs of the module, whether somebody gave max_length); `others` are keywords of generate itself.

    Raises:
        OptionError: a keyword nobody knows; names the nearest. ConfigError: a setting that makes no sense.
    """
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
    taken = {"attention_mask", *CONSTANT_INPUTS}
    taken |= {"decoder_input_ids"} if model.config.is_encoder_decoder else set()
    for name in sorted(rest):
        if name not in taken:
            raise unknown_setting(name, {*taken, *fields_of(type(config)), *others}, "generate")
    return config, {name: value for name, value in rest.items() if value is not None}, has_max


def refuse(config: GenerationConfig, streamer: Any, modes: Collection[GenerationMode], framework: str) -> None:
    """Raises InvalidOptionError where a setting asks for what models of this framework do not do."""
    for name in _UNSUPPORTED:
        if getattr(config, name):
            raise InvalidOptionError(
                f"{name}={getattr(config, name)!r:.60} is there for torch models, not for {framework} models", key=name
            )
    if (mode := config.get_generation_mode()) not in modes:
        raise InvalidOptionError(
            f"{mode.value} is there for torch models, not for {framework} models", key="generation_config"
        )
    if streamer is not None and (config.num_beams > 1 or config.num_return_sequences > 1):
        raise InvalidOptionError(
            "a streamer follows one sequence: num_beams and num_return_sequences must be 1", key="streamer"
        )


def ids_array(name: str, ids: Any) -> Any:
    """Token ids `(batch, seq)` as int32.

    Raises:
        InvalidOptionError: they are none.
    """
    import numpy as np

    array = np.asarray(ids)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InvalidOptionError(
            f"{name} are integers (batch, seq), found {array.dtype} of shape {array.shape}", key=name
        )
    return array.astype(np.int32)


def first_token(token: Any, name: str) -> int:
    """The token to begin with, where there is no prompt.

    Raises:
        InvalidOptionError: there is none either.
    """
    import numpy as np

    if token is None:
        raise InvalidOptionError(f"there is no prompt, and no {name} to start from: pass either", key=name)
    return int(np.atleast_1d(token)[0])


def mask_of(ids: Any, config: GenerationConfig) -> Any:
    """A mask of the padding that there seems to be; all ones where padding cannot be told from the end of a text."""
    import numpy as np

    pad, eos = config.pad_token_id, config.eos_token_id
    if pad is None or (eos is not None and pad in np.atleast_1d(eos)):
        return np.ones_like(ids)
    return (ids != pad).astype(np.int32)


def padded_right(ids: Any, mask: Any) -> tuple[Any, Any]:
    """What an encoder is given, of a size that programs are compiled for."""
    import numpy as np

    missing = ((0, 0), (0, bucket(ids.shape[1]) - ids.shape[1]))
    return np.pad(ids, missing), np.pad(mask, missing)


def longest_text(config: GenerationConfig, has_max: bool, length: int, model: Any) -> int:
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
