"""One load into a TensorFlow model: the Backend protocol for TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..adapters import Adapter
from ..building import building
from ..checkpoint.arrays import ALIGNMENT, ArraySink, describe
from ..checkpoint.deliver import Placer
from ..checkpoint.dtypes import DtypePolicy, is_floating
from ..checkpoint.plan_load import ParamSpec
from ..errors import InvalidOptionError
from ..quantization.scheme import Quantizer, Scheme
from ..tying import aliases_of
from . import live

__all__ = ["TFBackend", "tensor_on"]


class TFBackend(ArraySink):
    """The TensorFlow side of one load: arrays of numpy until all are there, then variables on their memory."""

    def __init__(self) -> None:
        super().__init__()
        self._initial: dict[str, tf.Tensor] = {}

    # The model

    def skeleton(self, build: Callable[[], Any]) -> Any:
        """The model without variables."""
        with building():
            return build()

    def quantizer(self, scheme: Scheme) -> Quantizer:
        """Raises InvalidOptionError: the schemes there are quantize torch's layers."""
        raise InvalidOptionError(
            f"{scheme.config.quant_method} quantizes torch's layers; TensorFlow models are not quantized here",
            key="quantization_config",
        )

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """The parameters, with the names that are tied to them."""
        aliases = aliases_of(model)
        return [
            ParamSpec(place.name, place.shape, place.dtype, aliases.get(place.name, ()))
            for place in model.structure.places
        ]

    def initialise(self, model: Any, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Draws what the checkpoint lacks."""
        for spec in specs:
            dtype = policy.dtype_of(spec.name) if is_floating(spec.dtype) else spec.dtype
            self._initial[spec.name] = live.drawn(model, model.structure.by_name[spec.name], dtype)

    @property
    def placer(self) -> Placer:
        """Raises InvalidOptionError: TensorFlow places variables itself."""
        raise InvalidOptionError(
            "device_map= places torch modules; for a TensorFlow model load within tf.device(…) or a strategy's scope",
            key="device_map",
        )

    def bind(self, model: Any, values: MutableMapping[str, Any]) -> None:
        """Makes the variables, on the arrays' own memory."""
        tensors: dict[str, Any] = {name: tensor_on(array) for name, array in values.items()}
        model.structure.fill({**tensors, **self._initial})

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Names that a save writes again are kept."""
        if renamed:
            model._loaded_names = dict(renamed)

    def adapter(self, found: Adapter, *, strict: bool) -> Callable[[Any], object]:
        """Raises InvalidOptionError: adapters are layers of torch."""
        raise InvalidOptionError("the folder holds an adapter, which only torch models take", key="adapter")

    # Arrays

    def describe(self, array: Any) -> tuple[tuple[int, ...], str] | None:
        """Shape and dtype of an array of TensorFlow or numpy, and of whatever numpy can see as one."""
        if describe(array) is None and getattr(array, "__array__", None) is not None:
            array = np.asarray(array)
        return describe(array)


# What DLPack has no name for in numpy travels as integers of the same size.
_STAND_INS: Mapping[str, tuple[Any, tf.DType]] = {
    "bfloat16": (np.uint16, tf.bfloat16),
    "float8_e4m3fn": (np.uint8, tf.dtypes.experimental.float8_e4m3fn),
    "float8_e5m2": (np.uint8, tf.dtypes.experimental.float8_e5m2),
}


def tensor_on(array: Any) -> tf.Tensor:
    """A tensor on the memory of an array, which it keeps alive; a copy where TensorFlow could not compute on that.

    TensorFlow ends the process when an operation meets memory that begins elsewhere than at a multiple of 64 bytes.
    """
    found = np.asarray(array)
    own, dtype = _STAND_INS.get(found.dtype.name, (None, None))
    plain = found if own is None else found.view(own)
    if not (plain.size and plain.flags.c_contiguous and plain.flags.writeable and plain.ctypes.data % ALIGNMENT == 0):
        plain = _aligned(plain)
    if plain.dtype == np.bool_ or not plain.size:
        return tf.convert_to_tensor(found)
    tensor = tf.experimental.dlpack.from_dlpack(plain.__dlpack__())
    return tensor if dtype is None else tf.bitcast(tensor, dtype)


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes."""
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
