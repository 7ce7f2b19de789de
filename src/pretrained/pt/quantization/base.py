"""What every scheme of quantization does: choose the layers, quantize weights one by one while they are read, put
them in their places, and take them apart again for a save.

A weight that is quantized at rest consists of parts, ordinary tensors which are read as such. One that is not is read
as ever and quantized at once, so that beside the quantized model there is one full weight at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._types import Shape
from ...checkpoint.dtypes import DtypePolicy, is_floating
from ...checkpoint.find import Weights
from ...checkpoint.plan_load import LoadPlan, ParamSpec
from ...checkpoint.tensors import Entry, count_elements
from ...errors import InvalidOptionError, MissingFrameworkError, TensorError
from ...quantization.scheme import Scheme, replace_names

__all__ = ["AtRest", "Pending", "Quantized", "TorchQuantizer", "nbytes_of", "num_elements", "refuse_quantized"]


@dataclass
class Pending:
    """A full weight on its way, and what quantizes it."""

    array: Any
    quantize: Callable[[Tensor], Tensor]


@dataclass
class Quantized:
    """A quantized weight on its way; `num_nonfinite` of the elements that it was made from were infinite or NaN."""

    weight: Tensor
    num_nonfinite: int = 0

    def to(self, device: Any) -> Quantized:
        """The same on another device."""
        return Quantized(self.weight.to(torch.device(device)), self.num_nonfinite)


@dataclass(frozen=True)
class _QuantizeOp:
    """The last step of a weight's way."""

    quantize: Callable[[Tensor], Tensor]

    @property
    def inverse(self) -> Any:
        """There is none: what is lost is lost."""
        raise ValueError("quantizing cannot be undone")

    def shape(self, shape: Shape) -> Shape:
        """The shape that the weight stands for."""
        return shape

    def apply(self, array: Any) -> Pending:
        """The array with what quantizes it; the backend knows the dtype that comes between."""
        return Pending(array, self.quantize)


@dataclass(frozen=True)
class AtRest:
    """A weight that is quantized at rest.

    Attributes:
        stem: the weight's name in the checkpoint.
        parts: what a scheme calls a part → the entry that holds it.
        notes: what the file says of the weight beside its tensors.
    """

    stem: str
    parts: Mapping[str, Entry]
    notes: str = ""


class TorchQuantizer(ABC):
    """One model's quantization. It stays with the model as `hf_quantizer`.

    Attributes:
        config: the scheme; after the load with the layers that stay as they are.
        layers: names of the quantized layers.

    Raises:
        MissingFrameworkError: the library is not installed.
    """

    library: ClassVar[str]
    needs_metadata: ClassVar[bool] = False

    def __init__(self, scheme: Scheme) -> None:
        if find_spec(self.library) is None:
            raise MissingFrameworkError(
                f"quantization by {self.library} needs {self.library}, which is not installed: "
                "pip install 'pretrained[quant]'",
                key="quantization_config",
            )
        self.config = scheme.config
        self.is_pre_quantized = False
        self.layers: list[str] = []
        self._says_at_rest = scheme.is_at_rest
        self._full: dict[str, ParamSpec] = {}  # weight → what it is when it is not quantized
        self._found: dict[str, AtRest] = {}
        self._names: dict[str, dict[str, str]] = {}  # weight → part → name of the part in the model
        self._skipped: list[str] = []

    @property
    def passes_gradients(self) -> bool:
        """Whether gradients reach what comes before a quantized layer."""
        return True

    # What a scheme does

    @abstractmethod
    def find_at_rest(self, weights: Weights) -> dict[str, AtRest]:
        """Weights that are quantized at rest, by their names there.

        Raises:
            TensorError: a weight lacks a part of it.
        """

    @abstractmethod
    def part_specs(self, name: str, full: ParamSpec, found: AtRest) -> dict[str, ParamSpec]:
        """What each part must be for a weight of this shape: part → spec under the part's name in the model.

        Raises:
            TensorError: a part is of a dtype or shape that cannot be.
        """

    @abstractmethod
    def quantize(self, weight: Tensor) -> Tensor:
        """The weight `(out, in)`, quantized."""

    @abstractmethod
    def assemble(self, full: ParamSpec, found: AtRest, parts: Mapping[str, Tensor]) -> Tensor:
        """The quantized weight that the parts make.

        Raises:
            TensorError: they contradict each other, or the shape of the layer.
        """

    @abstractmethod
    def install(self, linear: nn.Linear, weight: Tensor) -> nn.Module:
        """The layer that computes with a quantized weight in place of `linear`; it may be the same object."""

    def flatten(self, state: Mapping[str, Any], rename: Callable[[str], str]) -> tuple[dict[str, Any], dict[str, str]]:
        """(tensors as they are written, by name; what the files have to note beside them)."""
        return {rename(name): tensor for name, tensor in state.items()}, {}

    def check_save(self, form: str, has_own_writer: bool) -> None:
        """Raises InvalidOptionError if what the files have to note would have no place in them."""
        if self.needs_metadata and (form != "safetensors" or has_own_writer):
            name = "save_function" if has_own_writer else "safe_serialization"
            raise InvalidOptionError(
                f"{name}: a model quantized by {self.library} is saved as safetensors, by our own writer: what its "
                f"tensors are stands in the metadata. Leave {name} out",
                key=name,
            )

    # Between skeleton and bind

    def prepare(
        self, model: Any, specs: Sequence[ParamSpec], weights: Weights, place: Callable[[str], str]
    ) -> list[ParamSpec]:
        """What the checkpoint has to give: `specs`, with the parts of weights quantized at rest in place of these."""
        found = self.find_at_rest(weights) if self._says_at_rest else {}
        own = {name: spec for spec in specs for name in (spec.name, *spec.aliases)}
        if not found:
            self._full = {name: own[name] for name in self._choose(model, own)}
            return list(specs)
        self.is_pre_quantized = True
        replaced: dict[str, list[ParamSpec]] = {}
        for stem, weight in found.items():
            if (name := place(stem)) in own:
                _check_layer(model, own[name], name, weight)
                parts = self.part_specs(name, own[name], weight)
                self._full[name], self._found[name] = own[name], weight
                self._names[name] = {part: spec.name for part, spec in parts.items()}
                replaced[name] = list(parts.values())
        return [part for spec in specs for part in replaced.get(spec.name, [spec])]

    def _choose(self, model: Any, own: Mapping[str, ParamSpec]) -> list[str]:
        """Names of the weights to quantize: those of plain linear layers that nothing else shares."""
        given = self.config.modules_to_not_convert
        self._skipped = _default_skips(model) if given is None else given
        never = [*self._skipped, *(getattr(type(model), "_keep_in_fp32_modules", None) or ())]
        chosen = [
            f"{name}.weight" if name else "weight"
            for name, module in model.named_modules()
            if type(module) is nn.Linear and not any(f".{part}." in f".{name}." for part in never)
        ]
        chosen = [name for name in chosen if name in own and not own[name].aliases]
        if not chosen:
            raise InvalidOptionError(
                f"quantization_config: {type(model).__name__} has no linear layer to quantize beside "
                f"{', '.join(self._skipped) or 'its embeddings'}, which stay as they are",
                key="quantization_config",
            )
        return chosen

    def sizes(self, specs: Sequence[ParamSpec]) -> list[ParamSpec]:
        """The same with the sizes that weights will have when they are quantized."""
        online = self._full.keys() - self._found.keys()
        return [self._small(spec) if spec.name in online else spec for spec in specs]

    def _small(self, spec: ParamSpec) -> ParamSpec:
        return spec._replace(shape=(-(-count_elements(spec.shape) * self.config.bits // 8),), dtype="uint8")

    def keep_dtypes(self, policy: DtypePolicy) -> DtypePolicy:
        """The policy, less the parts of quantized weights: these have the dtypes they have."""
        kept = [
            (name, self._found[weight].parts[part].dtype)
            for weight, names in self._names.items()
            for part, name in names.items()
            if is_floating(self._found[weight].parts[part].dtype)
        ]
        kept.sort(key=lambda item: -len(item[0]))  # the scales' names begin with the weight's
        return replace(policy, overrides=(*kept, *policy.overrides)) if kept else policy

    def stamp(self, plan: LoadPlan) -> None:
        """Makes the steps of weights that are not quantized yet quantize them.

        What the checkpoint lacks stays as it is: it has to be trained before anything can be said with it.
        """
        for name, parts in self._names.items():
            self._give_up_incomplete(plan, name, set(parts.values()))
        filled = {step.param for step in plan.steps}
        self._full = {name: spec for name, spec in self._full.items() if name in filled or name in self._found}
        op = _QuantizeOp(self.quantize)
        for index, step in enumerate(plan.steps):
            if step.param in self._full and step.param not in self._found:
                plan.steps[index] = step._replace(ops=(*step.ops, op))
                plan.renamed.pop(step.param, None)  # the parts it is saved as have the model's name

    def _give_up_incomplete(self, plan: LoadPlan, name: str, parts: set[str]) -> None:
        """A weight of which a part does not fit is initialised as a whole, if that is allowed at all."""
        rest = [spec for spec in plan.initialise if spec.name not in parts]
        if len(rest) < len(plan.initialise):
            plan.steps = [step for step in plan.steps if step.param not in parts]
            plan.initialise = [*rest, self._full.pop(name)]
            del self._found[name]

    # Bind and finish

    def take(self, model: Any, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Puts quantized weights in their places; (the values of everything else, names of these weights).

        Raises:
            TensorError: the parts of a weight contradict each other.
        """
        rest = dict(values)
        weights: dict[str, Tensor] = {}
        for name, full in self._full.items():
            if name in self._found:
                parts = {part: rest.pop(part_name) for part, part_name in self._names[name].items()}
                weights[name] = self.assemble(full, self._found[name], parts)
            else:
                weights[name] = rest.pop(name).weight
        self._weights = weights
        return rest, list(weights)

    def place(self, model: Any) -> None:
        """Puts the weights of `take` into the model, after everything else is in it."""
        for name, weight in self._weights.items():
            layer = name.rpartition(".")[0]
            linear = model.get_submodule(layer)
            new = self.install(linear, weight)
            if new is not linear:
                new.training = linear.training
                owner, _, key = layer.rpartition(".")
                setattr(model.get_submodule(owner), key, new)
            self.layers.append(layer)
        del self._weights

    def finish(self, model: Any) -> None:
        """Notes on model and config what was quantized, and forgets what only the load needed."""
        if not self.is_pre_quantized:
            self.config = replace_names(self._portable(), self._skipped)
        self._full, self._found, self._names = {}, {}, {}
        model.hf_quantizer = self
        model.is_quantized = True
        model.quantization_method = self.config.quant_method
        model.config.quantization_config = self.config

    def _portable(self) -> Any:
        """The config as other programs read it too."""
        return self.config


def _check_layer(model: Any, full: ParamSpec, name: str, weight: AtRest) -> None:
    layer, _, key = name.rpartition(".")
    module = model.get_submodule(layer)
    entry = next(iter(weight.parts.values()))
    if type(module) is not nn.Linear or key != "weight":
        raise flaw(entry, f"is quantized, and {name} is of a {type(module).__name__}; only linear layers can be")
    if full.aliases:
        raise flaw(
            entry,
            f"is quantized, and {name} is tied to {full.aliases[0]}. If they are meant to differ, load with "
            "tie_word_embeddings=False",
        )


def flaw(entry: Entry, reason: str) -> TensorError:
    """The error for a part of a quantized weight."""
    return TensorError(f"{entry.file}: tensor {entry.name} {reason}", path=entry.file, tensor=entry.name, reason=reason)


def _default_skips(model: Any) -> list[str]:
    """The head: whatever is beside the base model, and the output embeddings wherever they are."""
    base = model.base_model
    names = [] if base is model else [name for name, child in model.named_children() if child is not base]
    get_output = getattr(model, "get_output_embeddings", None)
    output = None if get_output is None else get_output()
    names += [name for name, module in model.named_modules() if output is not None and module is output]
    return [name for name in dict.fromkeys(names) if not any(name.startswith(f"{other}.") for other in names)]


def num_elements(parameter: Tensor) -> int:
    """Elements that a parameter stands for; those of a packed one are not its bytes."""
    state = parameter.__dict__.get("quant_state")
    return parameter.numel() if state is None else count_elements(tuple(state.shape))


def nbytes_of(tensor: Tensor) -> int:
    """Bytes that a tensor takes, with the scales of a quantized one."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        return sum(nbytes_of(getattr(tensor, name)) for name in flatten()[0])
    notes = tensor.__dict__
    inner = [] if (scale := notes.get("SCB")) is None else [scale]
    if (state := notes.get("quant_state")) is not None:
        inner = list(state.as_dict(packed=True).values())
    return tensor.numel() * tensor.element_size() + sum(map(nbytes_of, inner))


def refuse_quantized(model: Any, layer: nn.Module | None, what: str) -> None:
    """Raises InvalidOptionError if `layer`, or any layer where that is None, is quantized.

    Raises:
        InvalidOptionError: says what to do.
    """
    quantizer = model.__dict__.get("hf_quantizer")
    if quantizer is None:
        return
    modules = dict(model.named_modules())
    names = [name for name in quantizer.layers if layer is None or modules.get(name) is layer]
    if names:
        raise InvalidOptionError(
            f"cannot {what}: {names[0]} is quantized by {quantizer.config.quant_method}. Do it on the model before it "
            "is quantized, save that, and load it with quantization_config=",
            key="quantization_config",
        )
