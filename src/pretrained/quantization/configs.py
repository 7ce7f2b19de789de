"""The schemes of quantization as data: what from_pretrained is given and what config.json holds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..checkpoint.dtypes import dtype_name, is_floating
from ..errors import InvalidOptionError, OptionError

__all__ = ["TORCHAO_TYPES", "BitsAndBytesConfig", "SchemeConfig", "TorchAoConfig"]

_KEY = "quantization_config"

# Our name of a scheme of torchao → torchao's own class of settings.
TORCHAO_TYPES = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
}
_STORAGES = ("uint8", "float16", "bfloat16", "float32")


@dataclass(init=False)
class TorchAoConfig:
    """Quantization by torchao.

    Args:
        quant_type: "int8_weight_only", "int8_dynamic_activation_int8_weight" or "float8_weight_only"; or an object of
            torchao's own, such as `torchao.quantization.Int8WeightOnlyConfig()`.
        modules_to_not_convert: layers, by name or part of it, that stay as they are; by default the model's head and
            what is tied to the embeddings.
        kwargs: settings of the scheme, for a `quant_type` that is a string.

    Raises:
        InvalidOptionError: a scheme that is not supported. OptionError: a keyword nobody knows.
    """

    quant_type: Any
    modules_to_not_convert: list[str] | None
    quant_type_kwargs: dict[str, Any]

    quant_method = "torchao"

    def __init__(
        self,
        quant_type: Any = "int8_weight_only",
        modules_to_not_convert: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("include_input_output_embeddings", "untie_embedding_weights"):
            if kwargs.get(name):
                raise InvalidOptionError(f"TorchAoConfig: {name}=True is not supported by this version", key=name)
        inner = kwargs.get("quant_type_kwargs") or {}
        left_out = ("include_input_output_embeddings", "untie_embedding_weights", "quant_type_kwargs", "quant_method")
        self.quant_type_kwargs = {**inner, **{k: v for k, v in kwargs.items() if k not in left_out}}
        self.quant_type = _inner_type(quant_type)
        self.modules_to_not_convert = _names("modules_to_not_convert", modules_to_not_convert)
        if self.type_name not in TORCHAO_TYPES.values():
            raise InvalidOptionError(
                f"TorchAoConfig: quant_type {self.type_name:.80} is not supported by this version; there is "
                f"{', '.join(TORCHAO_TYPES)}",
                key="quant_type",
            )
        if self.quant_type_kwargs and not isinstance(self.quant_type, str):
            name = next(iter(self.quant_type_kwargs))
            raise OptionError(f"TorchAoConfig has no option {name!r:.80} beside a quant_type with settings", key=name)

    @property
    def type_name(self) -> str:
        """The name of torchao's class of settings."""
        found = self.quant_type
        if isinstance(found, str):
            return TORCHAO_TYPES.get(found, found)
        return str(found.get("_type")) if isinstance(found, Mapping) else type(found).__name__

    @property
    def bits(self) -> int:
        """Bits that a quantized weight takes."""
        return 8

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds. Settings that are an object of torchao's appear by name alone until a load has
        written them out."""
        found = self.quant_type if isinstance(self.quant_type, (str, Mapping)) else {"_type": self.type_name}
        named = {"quant_type": found, "quant_type_kwargs": dict(self.quant_type_kwargs)}
        return {
            "quant_method": self.quant_method,
            **(named if isinstance(found, str) else {"quant_type": {"default": found}}),
            "modules_to_not_convert": self.modules_to_not_convert,
            "include_input_output_embeddings": False,
            "untie_embedding_weights": False,
        }


def _inner_type(quant_type: Any) -> Any:
    """The settings themselves: files have them below "default", for any module that has none of its own."""
    if isinstance(quant_type, Mapping) and "_type" not in quant_type:
        if set(quant_type) != {"default"}:
            named = ", ".join(repr(str(key)[:40]) for key in list(quant_type)[:4])
            raise InvalidOptionError(
                f"TorchAoConfig: quant_type has settings for {named or 'nothing'}; one 'default' for all layers is "
                "supported",
                key="quant_type",
            )
        quant_type = quant_type["default"]
    return dict(quant_type) if isinstance(quant_type, Mapping) else quant_type


@dataclass
class BitsAndBytesConfig:
    """Quantization by bitsandbytes: LLM.int8() or 4 bits.

    Attributes:
        load_in_8bit: weights as int8, a scale for each row.
        load_in_4bit: weights as 4 bits, a scale for each block of 64.
        llm_int8_threshold: activations beyond it are computed in 16 bits; 0 for none.
        llm_int8_skip_modules: layers, by name or part of it, that stay as they are; by default the model's head and
            what is tied to the embeddings.
        llm_int8_enable_fp32_cpu_offload: accepted; a quantized model lies on one device.
        llm_int8_has_fp16_weight: must be False.
        bnb_4bit_compute_dtype: dtype that 4-bit layers compute in; float32 if None.
        bnb_4bit_quant_type: "nf4" or "fp4".
        bnb_4bit_use_double_quant: whether the scales are quantized as well.
        bnb_4bit_quant_storage: dtype that the packed weights are stored as; "uint8" if None.

    Raises:
        InvalidOptionError: values that make no sense, or that this version cannot follow.
    """

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: Sequence[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: bool = False
    bnb_4bit_compute_dtype: Any = None
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: Any = None

    quant_method = "bitsandbytes"

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise _bad(field.name, f"is True or False, not {getattr(self, field.name)!r:.60}")
        if self.load_in_8bit == self.load_in_4bit:
            found = "both" if self.load_in_8bit else "neither"
            raise _bad("load_in_4bit", f"and load_in_8bit: {found} of them is True; one has to be")
        if self.llm_int8_has_fp16_weight:
            raise _bad("llm_int8_has_fp16_weight", "is True, which is not supported by this version")
        threshold = self.llm_int8_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
            raise _bad("llm_int8_threshold", f"is a number from 0 on, not {threshold!r:.60}")
        if self.bnb_4bit_quant_type not in ("nf4", "fp4"):
            raise _bad("bnb_4bit_quant_type", f"is 'nf4' or 'fp4', not {self.bnb_4bit_quant_type!r:.60}")
        self.llm_int8_threshold = float(threshold)
        self.llm_int8_skip_modules = _names("llm_int8_skip_modules", self.llm_int8_skip_modules)
        self.bnb_4bit_compute_dtype = dtype_name(self.bnb_4bit_compute_dtype or "float32", "bnb_4bit_compute_dtype")
        self.bnb_4bit_quant_storage = dtype_name(self.bnb_4bit_quant_storage or "uint8", "bnb_4bit_quant_storage")
        if not is_floating(self.bnb_4bit_compute_dtype):
            raise _bad("bnb_4bit_compute_dtype", f"is a floating dtype, not {self.bnb_4bit_compute_dtype}")
        if self.bnb_4bit_quant_storage not in _STORAGES:
            raise _bad("bnb_4bit_quant_storage", f"is one of {', '.join(_STORAGES)}, not {self.bnb_4bit_quant_storage}")

    @property
    def modules_to_not_convert(self) -> list[str] | None:
        """The same list as `llm_int8_skip_modules`, under the name other schemes have for it."""
        return None if self.llm_int8_skip_modules is None else list(self.llm_int8_skip_modules)

    @property
    def bits(self) -> int:
        """Bits that a quantized weight takes."""
        return 4 if self.load_in_4bit else 8

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {"_load_in_8bit": self.load_in_8bit, "_load_in_4bit": self.load_in_4bit}
        return {"quant_method": self.quant_method, **own, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BitsAndBytesConfig:
        """The config with these values.

        Raises:
            OptionError: a key nobody knows; it may change what the weights mean.
        """
        known = {field.name for field in fields(cls)}
        given = {k: v for k, v in values.items() if k != "quant_method" and not k.startswith("_")}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise OptionError(f"BitsAndBytesConfig has no option {name!r:.80}{hint}", key=name)
        return cls(**given)


def _bad(name: str, complaint: str) -> InvalidOptionError:
    return InvalidOptionError(f"BitsAndBytesConfig: {name} {complaint}", key=name)


def _names(key: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise InvalidOptionError(f"{key} is a list of module names, not {value!r:.60}", key=key)
    return list(value)


SchemeConfig = TorchAoConfig | BitsAndBytesConfig
