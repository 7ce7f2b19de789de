"""Weights quantized by torchao, in the layout of its safetensors support.

The weight `x.weight` is at rest as the tensors `x._weight_qdata`, `x._weight_scale` and, with int8,
`x._weight_zero_point`; the file's metadata has under the weight's name the kind of tensor they make, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...checkpoint.dtypes import DtypePolicy
from ...checkpoint.find import Weights
from ...checkpoint.json_text import parse_json
from ...checkpoint.plan_load import ParamSpec
from ...checkpoint.tensors import Entry
from ...errors import InvalidOptionError, TensorError
from ...quantization.configs import TORCHAO_TYPES, TorchAoConfig
from ...quantization.scheme import Scheme
from .base import AtRest, TorchQuantizer, flaw

__all__ = ["TorchAoQuantizer"]

# Kind of tensor → dtype of its elements at rest, and its parts.
_KINDS = {"Int8Tensor": "int8", "Float8Tensor": "float8_e4m3fn"}
_DTYPES = {"scale": {"float32", "bfloat16", "float16"}, "zero_point": {"int8"}}
_NAMES_KEY = "tensor_names"
_PLAIN = "Tensor"


class TorchAoQuantizer(TorchQuantizer):
    """Weights that are torchao's tensors, in ordinary linear layers.

    Raises:
        InvalidOptionError: torchao refuses the settings.
    """

    library = "torchao"
    needs_metadata = True
    config: TorchAoConfig

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme)
        self._settings = _settings_of(self.config)
        self._policy: DtypePolicy | None = None

    @property
    def passes_gradients(self) -> bool:
        """Not where activations are rounded: autograd sees nothing there."""
        return "DynamicActivation" not in self.config.type_name

    def find_at_rest(self, weights: Weights) -> dict[str, AtRest]:
        """Weights that the metadata of a file calls one of torchao's tensors."""
        found = {}
        for path, container in weights.containers.items():
            if _NAMES_KEY not in container.metadata:
                continue
            for stem, text in container.metadata.items():
                if '"_tensor_data_names"' not in text or stem in found:
                    continue
                notes = parse_json(text, path=f"{path}: __metadata__[{stem[:100]!r}]", error=TensorError)
                found[stem] = AtRest(stem, _parts(weights, stem, notes, path), text)
        return found

    def part_specs(self, name: str, full: ParamSpec, found: AtRest) -> dict[str, ParamSpec]:
        """Elements in the shape of the weight, scales for blocks of them."""
        notes = json.loads(found.notes)
        first = found.parts["qdata"]
        kind, blocks = notes.get("_type"), _block_sizes(notes, full, first)
        if kind not in _KINDS:
            raise flaw(first, f"belongs to a {str(kind)!r:.60}; {' and '.join(_KINDS)} are supported")
        scales = tuple(size // block for size, block in zip(full.shape, blocks, strict=True))
        specs = {}
        for part, entry in found.parts.items():
            allowed = _DTYPES.get(part, {_KINDS[kind]})
            if entry.dtype not in allowed:
                raise flaw(entry, f"is {entry.dtype}; as {part} of a {kind} it is {' or '.join(sorted(allowed))}")
            shape = full.shape if part == "qdata" else scales
            specs[part] = ParamSpec(_part_name(name, part), shape, entry.dtype)
        return specs

    def keep_dtypes(self, policy: DtypePolicy) -> DtypePolicy:
        """The policy, less the parts of quantized weights."""
        self._policy = policy
        return super().keep_dtypes(policy)

    def quantize(self, weight: Tensor) -> Tensor:
        """The weight as one of torchao's tensors."""
        from torchao.quantization import quantize_

        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        quantize_(layer, self._settings)
        return layer.weight

    def assemble(self, full: ParamSpec, found: AtRest, parts: Mapping[str, Tensor]) -> Tensor:
        """torchao's tensor of these parts. Of the kinds that its JSON may name, only torchao's own are built."""
        from torchao.prototype.safetensors.safetensors_utils import object_from_dict

        assert self._policy is not None
        notes = json.loads(found.notes)
        dtype = {"_type": "torch.dtype", "_data": self._policy.dtype_of(full.name)}
        values = {**notes["_data"], **parts, "dtype": dtype}
        try:
            weight = object_from_dict({"_type": notes["_type"], "_data": values})
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
            reason = f"has notes that torchao cannot read: {error}"
            raise flaw(found.parts["qdata"], reason) from error
        return nn.Parameter(weight, requires_grad=False)

    def install(self, linear: nn.Linear, weight: Tensor) -> nn.Module:
        """The same layer."""
        linear._parameters["weight"] = weight  # type: ignore[assignment]
        return linear

    def flatten(self, state: Mapping[str, Any], rename: Callable[[str], str]) -> tuple[dict[str, Any], dict[str, str]]:
        """(tensors as they are written, by name; the metadata that says how they belong together)."""
        from torchao.prototype.safetensors.safetensors_utils import TensorSubclassAttributeJSONEncoder

        tensors: dict[str, Any] = {}
        notes: dict[str, str] = {}
        for old, tensor in state.items():
            name = rename(old)
            parts = _parts_of(tensor)
            tensors |= {_part_name(name, part): value for part, value in parts.items()} if parts else {name: tensor}
            notes[name] = (
                json.dumps(tensor, cls=TensorSubclassAttributeJSONEncoder) if parts else f'{{"_type": "{_PLAIN}"}}'
            )
        return tensors, {**notes, _NAMES_KEY: json.dumps(list(notes))}

    def _portable(self) -> TorchAoConfig:
        """The config with torchao's settings as its own JSON, which every reader of torchao's files knows."""
        from torchao.core.config import config_to_dict

        return TorchAoConfig(config_to_dict(self._settings), self.config.modules_to_not_convert)


def _settings_of(config: TorchAoConfig) -> Any:
    """torchao's own object for a config."""
    import torchao.quantization
    from torchao.core.config import config_from_dict

    found = config.quant_type
    if not isinstance(found, (str, Mapping)):
        return found
    try:
        if isinstance(found, Mapping):
            return config_from_dict(dict(found))
        kind = getattr(torchao.quantization, TORCHAO_TYPES[found])
        # Loading a model is no occasion to change the settings of a compiler.
        return kind(**{"set_inductor_config": False, **config.quant_type_kwargs})
    except (ValueError, TypeError, AssertionError, AttributeError) as error:
        raise InvalidOptionError(
            f"TorchAoConfig: torchao refuses the settings of {config.type_name}: {error}", key="quant_type"
        ) from error


def _part_name(name: str, part: str) -> str:
    layer, _, key = name.rpartition(".")
    return f"{layer}._{key}_{part}"


def _parts(weights: Weights, stem: str, notes: Mapping[str, Any], path: Path) -> dict[str, Entry]:
    listed = notes.get("_tensor_data_names")
    names = listed if isinstance(listed, list) and all(isinstance(name, str) for name in listed) else []
    if "qdata" not in names or "scale" not in names or not isinstance(notes.get("_data"), Mapping):
        raise _incomplete(path, stem, "the metadata does not say which tensors it consists of")
    if other := sorted({*names} - {"qdata", "scale", "zero_point"}):
        raise _incomplete(path, stem, f"has {other[0]!r:.60}, which this version cannot load")
    parts = {name: weights.entries.get(_part_name(stem, name)) for name in sorted(names)}
    if lacking := [name for name, entry in parts.items() if entry is None]:
        raise _incomplete(path, stem, f"is not complete: {_part_name(stem, lacking[0])} is not in the checkpoint")
    return {name: entry for name, entry in parts.items() if entry is not None}


def _incomplete(path: Path, stem: str, reason: str) -> TensorError:
    return TensorError(f"{path}: {stem}: {reason}", path=path, tensor=stem, reason=reason)


def _block_sizes(notes: Mapping[str, Any], full: ParamSpec, entry: Entry) -> list[int]:
    """How many elements along each axis share a scale."""
    sizes = notes["_data"].get("block_size")
    is_fitting = isinstance(sizes, list) and len(sizes) == len(full.shape)
    if not is_fitting or not all(
        type(b) is int and b > 0 and s % b == 0 for b, s in zip(sizes, full.shape, strict=True)
    ):
        raise flaw(entry, f"has blocks of {sizes!r:.60}, which do not fit the layer's weight {list(full.shape)}")
    return list(sizes)


def _parts_of(tensor: Any) -> dict[str, Tensor]:
    """The tensors that one of torchao's consists of; none for an ordinary one."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    return {} if flatten is None else {name: getattr(tensor, name) for name in flatten()[0]}
