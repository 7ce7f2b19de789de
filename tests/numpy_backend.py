"""A framework of a page, made of numpy: what the engine is tested with where no other framework is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pretrained.checkpoint.dtypes import DtypePolicy
from pretrained.checkpoint.formats.safetensors import Outgoing, write
from pretrained.checkpoint.plan_load import ParamSpec
from pretrained.configuration import PretrainedConfig

__all__ = ["NumpyBackend", "NumpyModel", "NumpySink", "numpy_dtype", "save_arrays"]

Array = np.ndarray[Any, Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def save_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Path:
    tensors = [
        Outgoing(name, array.dtype.name, array.shape, lambda a=array: bytes_of(a)) for name, array in arrays.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write(path, tensors, metadata or {})
    return path


def bytes_of(array: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


class NumpySink:
    """The Sink protocol; notes the bytes of each cast, and that `worker` came first in its thread."""

    alignment = 1

    def __init__(self) -> None:
        self.ready = threading.local()
        self.casts: list[int] = []

    def view(self, buffer: Any, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        return np.frombuffer(buffer, numpy_dtype(dtype), int(np.prod(shape)), offset).reshape(shape)

    def cast(self, source: Any, source_dtype: str, target: Any, target_dtype: str) -> None:
        assert self.ready.yes
        values = np.frombuffer(source, numpy_dtype(source_dtype))
        self.casts.append(values.nbytes)
        with np.errstate(over="ignore"):
            np.frombuffer(target, numpy_dtype(target_dtype))[:] = values.astype(numpy_dtype(target_dtype))

    def count_nonfinite(self, values: Any, dtype: str) -> int:
        array = values if isinstance(values, np.ndarray) else np.frombuffer(values, numpy_dtype(dtype))
        return int((~np.isfinite(array.astype(np.float64))).sum())

    def from_array(self, array: Any, dtype: str) -> Array:
        with np.errstate(over="ignore"):
            return np.array(array, numpy_dtype(dtype), order="C")

    def fill(self, target: Array, array: Any) -> None:
        with np.errstate(over="ignore"):
            target[...] = array

    def worker(self) -> None:
        self.ready.yes = True


class NumpyModel:
    """A model that is a dict of arrays: `shapes(config)` says which, `ties` which of them are one."""

    config_class: type[PretrainedConfig] = PretrainedConfig
    base_model_prefix = "base"
    ties: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, config: Any, scale: float = 1.0) -> None:
        self.config = config
        self.scale = scale
        self.arrays: dict[str, Array | None] = dict.fromkeys(self.shapes(config))
        self.generation_config: Any = None
        self.renamed: dict[str, str] = {}
        self.is_ready = False

    @staticmethod
    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        return {"w": (config.size,), "layer.b": (config.size, 2)}

    @classmethod
    def _choose(cls, config: Any, snapshot: Any = None) -> tuple[type[PretrainedConfig], Any]:
        return cls.config_class, cls


class NumpyBackend(NumpySink):
    """The Backend protocol. What is initialised becomes -1, so that it shows."""

    def skeleton(self, build: Callable[[], Any]) -> Any:
        return build()

    def params(self, model: NumpyModel) -> Sequence[ParamSpec]:
        shapes = model.shapes(model.config)
        second = {alias for aliases in model.ties.values() for alias in aliases}
        return [ParamSpec(n, s, "float32", tuple(model.ties.get(n, ()))) for n, s in shapes.items() if n not in second]

    def initialise(self, model: NumpyModel, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        for spec in specs:
            model.arrays[spec.name] = np.full(spec.shape, -1, numpy_dtype(policy.dtype_of(spec.name)))

    def bind(self, model: NumpyModel, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            for each in (name, *model.ties.get(name, ())):
                model.arrays[each] = value

    def finish(self, model: NumpyModel, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        model.is_ready, model.renamed = True, dict(renamed)

    def describe(self, array: Any) -> tuple[tuple[int, ...], str] | None:
        return (array.shape, array.dtype.name) if isinstance(array, np.ndarray) else None

    def equals(self, array: Any, other: Any) -> bool:
        return self.describe(array) == self.describe(other) and bool(bytes_of(array) == bytes_of(other))
