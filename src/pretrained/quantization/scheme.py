"""Which scheme a load follows: the caller's, or the one that config.json says the checkpoint has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..checkpoint.dtypes import DtypePolicy
from ..checkpoint.find import Weights
from ..checkpoint.plan_load import LoadPlan, ParamSpec
from ..errors import ConfigError, InvalidOptionError, OptionError, PretrainedError
from ..options import LoadOptions
from .configs import BitsAndBytesConfig, SchemeConfig, TorchAoConfig

__all__ = ["Quantizer", "Scheme", "choose_scheme", "replace_names"]

logger = logging.getLogger(__name__)

_KEY = "quantization_config"
_METHODS = ("torchao", "bitsandbytes")
# Settings that say how a quantized weight is computed with, not what it is: the caller's hold for any checkpoint.
_OF_RUNNING = ("bnb_4bit_compute_dtype", "llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload")


@dataclass(frozen=True)
class Scheme:
    """A scheme, and whether config.json says that the checkpoint is quantized by it already."""

    config: SchemeConfig
    is_at_rest: bool = False


class Quantizer(Protocol):
    """One load of a quantized model in one framework, between skeleton and bind."""

    def prepare(
        self, model: Any, specs: Sequence[ParamSpec], weights: Weights, place: Callable[[str], str]
    ) -> list[ParamSpec]:
        """What the checkpoint has to give: `specs`, with the parts of weights that are quantized at rest in place of
        these. `place` says what the model calls a tensor of the checkpoint."""

    def sizes(self, specs: Sequence[ParamSpec]) -> list[ParamSpec]:
        """The same with the sizes that weights will have when they are quantized."""

    def keep_dtypes(self, policy: DtypePolicy) -> DtypePolicy:
        """The policy, less the parts of quantized weights: these have the dtypes they have."""

    def stamp(self, plan: LoadPlan) -> None:
        """Makes the steps of weights that are not quantized yet quantize them."""


def choose_scheme(options: LoadOptions, config: Any) -> Scheme | None:
    """The scheme of a load; None if nothing is quantized.

    Raises:
        ConfigError: the checkpoint is quantized by a scheme that is not supported, or says it in no known way.
        InvalidOptionError: what the caller asks for is not supported or contradicts the checkpoint.
        OptionError: an option of a scheme that nobody knows.
    """
    asked = _asked(options)
    found = getattr(config, _KEY, None)
    if found is None:
        return None if asked is None else Scheme(asked)
    try:
        at_rest = _parse(found)
    except (InvalidOptionError, OptionError) as error:
        reason = f"config key {_KEY!r}: {error.message}"
        raise ConfigError(reason, key=_KEY, reason=error.reason) from error
    return Scheme(at_rest if asked is None else _merged(at_rest, asked), is_at_rest=True)


def _asked(options: LoadOptions) -> SchemeConfig | None:
    given = options.quantization_config
    in_8bit, in_4bit = options.load_in_8bit, options.load_in_4bit
    if (in_8bit or in_4bit) and given is not None:
        name = "load_in_8bit" if in_8bit else "load_in_4bit"
        raise OptionError(f"{name}= and {_KEY}= say the same thing: give one of them", key=_KEY)
    if in_8bit or in_4bit:
        return BitsAndBytesConfig(load_in_8bit=in_8bit, load_in_4bit=in_4bit)
    return None if given is None else _parse(given)


def _parse(value: Any) -> SchemeConfig:
    """A config of ours from one, from a mapping as in config.json, or from anything that can become such a mapping."""
    if isinstance(value, (TorchAoConfig, BitsAndBytesConfig)):
        return replace_names(value, value.modules_to_not_convert)
    to_dict = getattr(value, "to_dict", None)
    values = to_dict() if callable(to_dict) else value
    if not isinstance(values, Mapping):
        raise InvalidOptionError(
            f"{_KEY} is a TorchAoConfig, a BitsAndBytesConfig or a dict with 'quant_method', not a "
            f"{type(value).__name__}",
            key=_KEY,
        )
    method = values.get("quant_method")
    method = getattr(method, "value", method)
    if method is None and (values.get("load_in_4bit") or values.get("load_in_8bit")):
        method = "bitsandbytes"  # files of its first releases do not say it
    if method not in _METHODS:
        raise _unsupported(method)
    if method == "bitsandbytes":
        return BitsAndBytesConfig.from_dict(values)
    if "quant_type" not in values:
        raise InvalidOptionError(f"{_KEY}: torchao needs 'quant_type'", key="quant_type")
    return TorchAoConfig(**{str(k): v for k, v in values.items() if not str(k).startswith("_")})


def _unsupported(method: Any) -> PretrainedError:
    if method is None:
        return InvalidOptionError(f"{_KEY} has no 'quant_method'; there is {', '.join(_METHODS)}", key=_KEY)
    return InvalidOptionError(
        f"quantization by {str(method)!r:.60} is not supported by this version; there is {', '.join(_METHODS)}. Use a "
        "checkpoint of the model that is not quantized, or one quantized by these",
        key=_KEY,
    )


def replace_names(config: SchemeConfig, names: Sequence[str] | None) -> SchemeConfig:
    """A copy of the config with another list of layers that stay as they are."""
    if isinstance(config, BitsAndBytesConfig):
        return replace(config, llm_int8_skip_modules=names)
    return TorchAoConfig(config.quant_type, names, **config.quant_type_kwargs)


def _merged(at_rest: SchemeConfig, asked: SchemeConfig) -> SchemeConfig:
    """The checkpoint's config, with the caller's settings where these are free."""
    first, second = (f"{c.quant_method} with {c.bits} bits" for c in (at_rest, asked))
    if first != second:
        raise InvalidOptionError(
            f"the checkpoint is quantized by {first}, and {_KEY}= asks for {second}; leave it out, or load a "
            "checkpoint that is not quantized",
            key=_KEY,
        )
    if not (isinstance(at_rest, BitsAndBytesConfig) and isinstance(asked, BitsAndBytesConfig)):
        if _without_names(at_rest) != _without_names(asked):
            logger.warning("the checkpoint is quantized already: its own %s is used, not the one passed", _KEY)
        return at_rest
    merged = replace(at_rest, **{name: getattr(asked, name) for name in _OF_RUNNING})
    if _without_names(merged) != _without_names(asked):
        logger.warning("the checkpoint is quantized already: of %s only how to compute is used", _KEY)
    return merged


def _without_names(config: SchemeConfig) -> dict[str, Any]:
    return replace_names(config, None).to_dict()
