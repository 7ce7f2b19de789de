"""One load into a JAX model: the Backend protocol for JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import jax
import numpy as np

from ..adapters import Adapter
from ..building import building
from ..checkpoint.arrays import ArraySink, describe
from ..checkpoint.boxes import Box, permuted, whole
from ..checkpoint.deliver import Placer
from ..checkpoint.dtypes import DtypePolicy, is_floating
from ..checkpoint.plan_load import ParamSpec
from ..checkpoint.rules import Permute, apply_ops
from ..errors import InvalidOptionError
from ..quantization.scheme import Quantizer, Scheme
from ..tying import aliases_of
from .init import draw_all
from .sharding import Assembly, assemble, box_here, shardings_of
from .structure import Place, nest

__all__ = ["FlaxBackend"]

_AT_ONCE = 2**27  # bytes that are on their way to the devices of a mesh together


class FlaxBackend(ArraySink):
    """The JAX side of one load: arrays of numpy until all are there, then on to the devices at once.

    Args:
        settings: attributes that the model gets before its structure is looked at.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._settings = dict(settings or {})
        self._shardings: Mapping[str, jax.sharding.Sharding] = {}
        self._initial: dict[str, jax.Array] = {}
        self._places: Mapping[str, Place] = {}

    # The model

    def skeleton(self, build: Callable[[], Any]) -> Any:
        """The model without arrays."""
        with building():
            model = build()
        for name, value in self._settings.items():
            setattr(model, name, value)
        return model

    def quantizer(self, scheme: Scheme) -> Quantizer:
        """Raises InvalidOptionError: the schemes there are quantize torch's layers."""
        raise InvalidOptionError(
            f"{scheme.config.quant_method} quantizes torch's layers; JAX models are not quantized here",
            key="quantization_config",
        )

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """The parameters, in torch's layout, with the names that are tied to them."""
        self._places = model.structure.by_name
        self._shardings = shardings_of(model)
        aliases = aliases_of(model)
        return [
            ParamSpec(place.name, place.torch_shape, place.dtype, aliases.get(place.name, ()), box=self._box(place))
            for place in model.structure.places
        ]

    def _box(self, place: Place) -> Box | None:
        """The part that this process holds, in torch's layout; None for all of it."""
        sharding = self._shardings.get(place.name)
        if sharding is None or (sharding.is_fully_replicated and sharding.addressable_devices):
            return None
        box = box_here(sharding, place.shape)
        for op in reversed(place.ops):
            assert isinstance(op, Permute)
            box = permuted(box, op.inverse)
        return box

    def initialise(self, model: Any, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Draws what the checkpoint lacks."""
        _require_64_bits(policy)
        dtypes = {spec.name: policy.dtype_of(spec.name) for spec in specs if is_floating(spec.dtype)}
        places = [self._places[spec.name] for spec in specs]
        self._initial = draw_all(model.structure, places, model.key, dtypes, self._shardings)
        model._missing_keys = {place.path for place in places}

    @property
    def placer(self) -> Placer:
        """Raises InvalidOptionError: parameters of JAX models are placed by a mesh."""
        raise InvalidOptionError(
            "device_map= places torch modules; for a JAX model pass mesh= and sharding_rules=", key="device_map"
        )

    def bind(self, model: Any, values: MutableMapping[str, Any]) -> None:
        """Puts the arrays on their devices; one that lies as XLA wants it is used where it lies."""
        put = self._put_here if not self._shardings else self._put_on_mesh
        found = put(values) | {self._places[name].path: array for name, array in self._initial.items()}
        model._values = nest({place.path: found[place.path] for place in model.structure.places})
        model._is_initialized = True

    def _put_here(self, values: Mapping[str, Any]) -> dict[tuple[str, ...], jax.Array]:
        """Path → array on the default device, all in one go."""
        arrays = [self._arranged(name, value) for name, value in values.items()]
        return {self._places[name].path: array for name, array in zip(values, jax.device_put(arrays), strict=True)}

    def _put_on_mesh(self, values: MutableMapping[str, Any]) -> dict[tuple[str, ...], jax.Array]:
        """Path → array over the mesh, some at a time: what is there is let go in main memory."""
        found: dict[tuple[str, ...], jax.Array] = {}
        waiting: list[tuple[Place, Assembly]] = []
        nbytes = 0
        for name in list(values):
            place, sharding = self._places[name], self._shardings[name]
            part = self._arranged(name, values.pop(name))
            is_all = tuple(part.shape) == place.shape
            origin = whole(place.shape) if is_all else box_here(sharding, place.shape)
            waiting.append((place, Assembly(part, origin, place.shape, sharding)))
            nbytes += part.nbytes
            if nbytes > _AT_ONCE or not values:
                made = assemble([assembly for _, assembly in waiting])
                found |= {place.path: array for (place, _), array in zip(waiting, made, strict=True)}
                waiting, nbytes = [], 0
        return found

    def _arranged(self, name: str, value: Any) -> Any:
        """What came from the checkpoint, as the model lays it out."""
        return apply_ops(self._places[name].ops, value)

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Names that a save writes again are kept."""
        if renamed:
            model._loaded_names = dict(renamed)

    def adapter(self, found: Adapter, *, strict: bool) -> Callable[[Any], object]:
        """Raises InvalidOptionError: adapters are layers of torch."""
        raise InvalidOptionError("the folder holds an adapter, which only torch models take", key="adapter")

    # Arrays

    def describe(self, array: Any) -> tuple[tuple[int, ...], str] | None:
        """Shape and dtype of an array of JAX or numpy, and of whatever numpy can see as one."""
        if isinstance(array, jax.Array):
            return tuple(array.shape), array.dtype.name
        if describe(array) is None and getattr(array, "__array__", None) is not None:
            array = np.asarray(array)
        return describe(array)


def _require_64_bits(policy: DtypePolicy) -> None:
    asked = {policy.default, *(dtype for _, dtype in policy.overrides)}
    if "float64" in asked and not jax.config.read("jax_enable_x64"):
        raise InvalidOptionError(
            "the parameters are float64, which JAX has only after jax.config.update('jax_enable_x64', True); or pass "
            "param_dtype='float32'",
            key="param_dtype",
        )
