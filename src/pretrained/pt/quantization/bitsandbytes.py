"""Weights quantized by bitsandbytes, 4 or 8 bits, in the layout of its own state dicts.

4 bits: `weight` (packed), `weight.absmax` (a scale for each block), `weight.quant_map` (the 16 values),
`weight.quant_state.bitsandbytes__nf4` (JSON as bytes), and with quantized scales `weight.nested_absmax` and
`weight.nested_quant_map`. 8 bits: `weight`, `SCB` (the largest absolute value of each row), `weight_format`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.dtypes import is_floating
from ...checkpoint.find import Weights
from ...checkpoint.json_text import parse_json
from ...checkpoint.plan_load import ParamSpec
from ...checkpoint.tensors import BITS, Entry, count_elements
from ...errors import TensorError
from ..slots import bytes_of, torch_dtype
from .base import AtRest, TorchQuantizer, flaw

__all__ = ["Bits4Quantizer", "Bits8Quantizer"]

_BLOCKSIZES = frozenset(2**power for power in range(5, 13))
_STATE = ".quant_state.bitsandbytes__"
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_MAX_STATE = 4096  # bytes of JSON
_NUM_MAP, _NUM_NESTED_MAP = 16, 256


def _library() -> Any:
    import bitsandbytes

    return bitsandbytes


class Bits4Quantizer(TorchQuantizer):
    """4 bits a weight, a scale for each block of 64."""

    library = "bitsandbytes"
    config: Any

    def find_at_rest(self, weights: Weights) -> dict[str, AtRest]:
        """Weights that have a quantization state beside them."""
        found = {}
        for key, entry in weights.entries.items():
            stem, mark, _ = key.partition(_STATE)
            if not mark:
                continue
            parts = {"state": entry, **_present(weights, {"weight": stem, **{p: f"{stem}.{p}" for p in _PARTS}})}
            _require(parts, ("weight", "absmax", "quant_map"), stem, entry)
            if ("nested_absmax" in parts) != ("nested_quant_map" in parts):
                raise flaw(entry, f"has one of nested_absmax and nested_quant_map beside it: {stem} is not complete")
            found[stem] = AtRest(stem, parts)
        return found

    def part_specs(self, name: str, full: ParamSpec, found: AtRest) -> dict[str, ParamSpec]:
        """What the parts of a packed weight must be; the length of the scales is known when the state is read."""
        parts = found.parts
        storage = parts["weight"].dtype
        is_nested = "nested_absmax" in parts
        _require_dtype(parts["weight"], {"uint8", "float16", "bfloat16", "float32"})
        _require_dtype(parts["absmax"], {"uint8"} if is_nested else {"float32"})
        _require_dtype(parts["state"], {"uint8"})
        for part in ("quant_map", "nested_absmax", "nested_quant_map"):
            if part in parts:
                _require_dtype(parts[part], {"float32"})
        if parts["state"].nbytes > _MAX_STATE:
            raise flaw(parts["state"], f"has {parts['state'].nbytes} bytes; a quantization state has some hundred")
        num_bytes = -(-count_elements(full.shape) // 2)
        shapes = {
            "weight": (-(-num_bytes * 8 // BITS[storage]), 1),
            "quant_map": (_NUM_MAP,),
            "nested_quant_map": (_NUM_NESTED_MAP,),
        }
        return {
            part: ParamSpec(name + entry.name[len(found.stem) :], shapes.get(part, entry.shape), entry.dtype)
            for part, entry in parts.items()
        }

    def quantize(self, weight: Tensor) -> Tensor:
        """The weight, packed, with its scales."""
        functional = _library().functional
        packed, state = functional.quantize_4bit(
            weight,
            blocksize=64,
            compress_statistics=self.config.bnb_4bit_use_double_quant,
            quant_type=self.config.bnb_4bit_quant_type,
            quant_storage=torch_dtype(self.config.bnb_4bit_quant_storage),
        )
        return self._parameter(packed, state)

    def _parameter(self, packed: Tensor, state: Any) -> Tensor:
        parameter: Tensor = _library().nn.Params4bit(
            packed,
            requires_grad=False,
            quant_state=state,
            blocksize=state.blocksize,
            compress_statistics=state.nested,
            quant_type=state.quant_type,
            quant_storage=packed.dtype,
            bnb_quantized=True,
        )
        return parameter

    def assemble(self, full: ParamSpec, found: AtRest, parts: Mapping[str, Tensor]) -> Tensor:
        """The packed weight with its scales. Lengths are checked here: the kernels read as far as the state says."""
        _check_state(full, found.parts, _read_state(found.parts["state"], parts["state"]))
        key = found.parts["state"].name[len(found.stem) + 1 :]
        stats = {key if part == "state" else part: parts[part] for part in parts if part != "weight"}
        # A state is a few bytes of JSON, read on the CPU wherever the weight is.
        stats[key] = stats[key].cpu()
        state = _library().functional.QuantState.from_dict(stats, device=parts["weight"].device)
        return self._parameter(parts["weight"], state)

    def install(self, linear: nn.Linear, weight: Tensor) -> nn.Module:
        """bitsandbytes' own layer with this weight and the bias of `linear`."""
        state: Any = weight.__dict__["quant_state"]
        layer: nn.Module = _library().nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=torch_dtype(self.config.bnb_4bit_compute_dtype),
            compress_statistics=state.nested,
            quant_type=state.quant_type,
            quant_storage=weight.dtype,
            device="meta",
        )
        layer._parameters.update(weight=weight, bias=linear.bias)  # type: ignore[call-overload]
        # Repacking for a CPU's own instructions rounds the scales, in place: a save would write other weights.
        layer.__dict__.update(quant_state=state, support_avx512bf16_for_cpu=False)
        return layer

    def finish(self, model: Any) -> None:
        """Notes what was quantized."""
        super().finish(model)
        model.is_loaded_in_4bit = True


class Bits8Quantizer(TorchQuantizer):
    """LLM.int8(): a scale for each row, outliers among the activations in 16 bits.

    Source: Dettmers et al., LLM.int8(), arXiv 2208.07339.
    """

    library = "bitsandbytes"
    config: Any

    def find_at_rest(self, weights: Weights) -> dict[str, AtRest]:
        """Weights that have SCB beside them."""
        found = {}
        for key, entry in weights.entries.items():
            layer, _, last = key.rpartition(".")
            if last != "SCB":
                continue
            stem = f"{layer}.weight"
            parts = {"scale": entry, **_present(weights, {"weight": stem, "format": f"{layer}.weight_format"})}
            _require(parts, ("weight",), stem, entry)
            found[stem] = AtRest(stem, parts)
        return found

    def part_specs(self, name: str, full: ParamSpec, found: AtRest) -> dict[str, ParamSpec]:
        """int8 rows, float32 scales, and a number that says how rows are laid out."""
        kinds = {"weight": "int8", "scale": "float32", "format": "uint8"}
        shapes = {"weight": full.shape, "scale": full.shape[:1], "format": ()}
        for part, entry in found.parts.items():
            _require_dtype(entry, {kinds[part]})
        layer, old = name.removesuffix("weight"), found.stem.removesuffix("weight")
        return {
            part: ParamSpec(layer + entry.name[len(old) :], shapes[part], entry.dtype)
            for part, entry in found.parts.items()
        }

    def quantize(self, weight: Tensor) -> Tensor:
        """The weight as int8, computed from float16 as bitsandbytes does."""
        rows, scale, _ = _library().functional.int8_vectorwise_quant(weight.to(torch.float16))
        return self._parameter(rows, scale)

    def _parameter(self, rows: Tensor, scale: Tensor) -> Tensor:
        parameter: Tensor = _library().nn.Int8Params(
            rows, requires_grad=False, has_fp16_weights=False, CB=rows, SCB=scale
        )
        return parameter

    def assemble(self, full: ParamSpec, found: AtRest, parts: Mapping[str, Tensor]) -> Tensor:
        """The rows with their scales."""
        if "format" in parts and int(parts["format"]) != 0:
            raise flaw(found.parts["format"], f"is {int(parts['format'])}; 0, plain rows, is supported")
        return self._parameter(parts["weight"], parts["scale"])

    def install(self, linear: nn.Linear, weight: Tensor) -> nn.Module:
        """bitsandbytes' own layer with this weight and the bias of `linear`."""
        layer: nn.Module = _library().nn.Linear8bitLt(
            linear.in_features,
            linear.out_features,
            bias=False,
            has_fp16_weights=False,
            threshold=self.config.llm_int8_threshold,
            device="meta",
        )
        layer._parameters.update(weight=weight, bias=linear.bias)  # type: ignore[call-overload]
        return layer

    def finish(self, model: Any) -> None:
        """Notes what was quantized."""
        super().finish(model)
        model.is_loaded_in_8bit = True


def _present(weights: Weights, names: Mapping[str, str]) -> dict[str, Entry]:
    return {part: weights.entries[name] for part, name in names.items() if name in weights.entries}


def _require(parts: Mapping[str, Entry], needed: tuple[str, ...], stem: str, entry: Entry) -> None:
    if lacking := [part for part in needed if part not in parts]:
        raise flaw(entry, f"belongs to {stem}, which is not complete: {', '.join(lacking)} is not in the checkpoint")


def _require_dtype(entry: Entry, allowed: set[str]) -> None:
    if entry.dtype not in allowed:
        raise flaw(entry, f"is {entry.dtype}; as a part of a quantized weight it is {' or '.join(sorted(allowed))}")


def _read_state(entry: Entry, tensor: Tensor) -> dict[str, Any]:
    try:
        return parse_json(bytes(bytes_of(tensor)), path=entry.file, error=TensorError)
    except TensorError as error:
        raise flaw(entry, f"is no quantization state: {error.reason}") from error


def _check_state(full: ParamSpec, parts: Mapping[str, Entry], state: Mapping[str, Any]) -> None:
    """Raises TensorError for a state that does not describe these parts of a weight of this shape."""
    entry, quant_type = parts["state"], parts["state"].name.rpartition("__")[2]
    if state.get("quant_type") != quant_type or quant_type not in ("nf4", "fp4"):
        raise flaw(entry, f"says quant_type {state.get('quant_type')!r:.40}; 'nf4' or 'fp4', as in its name, can be")
    if state.get("shape") != list(full.shape) or not all(type(size) is int for size in state["shape"]):
        raise flaw(entry, f"says shape {state.get('shape')!r:.80}; the layer's weight is {list(full.shape)}")
    if not is_floating(str(state.get("dtype"))) or BITS[str(state["dtype"])] < 16:
        raise flaw(entry, f"says dtype {state.get('dtype')!r:.40}, which is no floating one")
    num_blocks = _num_blocks(entry, state.get("blocksize"), count_elements(full.shape))
    _require_count(parts["absmax"], num_blocks)
    if "nested_absmax" not in parts:
        return
    if state.get("nested_dtype") != "float32" or not isinstance(state.get("nested_offset"), (int, float)):
        raise flaw(entry, "says no nested_dtype 'float32' and nested_offset")
    _require_count(parts["nested_absmax"], _num_blocks(entry, state.get("nested_blocksize"), num_blocks))


def _num_blocks(entry: Entry, size: Any, count: int) -> int:
    if type(size) is not int or size not in _BLOCKSIZES:
        raise flaw(entry, f"says a block has {size!r:.40} elements; 32, 64, … 4096 can be")
    return -(-count // size)


def _require_count(entry: Entry, count: int) -> None:
    if count_elements(entry.shape) != count:
        raise flaw(entry, f"has {count_elements(entry.shape)} scales; the blocks of the weight need {count}")
