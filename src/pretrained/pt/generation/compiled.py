"""A decoding step compiled once: static shapes, one graph, on a CPU products of few rows as loops over the weight.

`generate(compile=True)` uses it for the steps after the prompt. The cache has a length that calls share, so that a call
with a longer text finds the step compiled.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidOptionError
from ..kv_cache import StaticKVCache

__all__ = ["CompiledStep", "cache_room", "compiled_step"]

logger = logging.getLogger(__name__)

BUCKET = 128  # lengths of a cache are multiples of it, so that few graphs serve all calls


def cache_room(length: int) -> int:
    """Tokens that a static cache has room for when `length` are needed."""
    return -(-length // BUCKET) * BUCKET


class CompiledStep:
    """The forward pass of new tokens as one graph, what its first call took, and the caches it was made for.

    Args:
        model: has a forward that takes a static cache and `cache_position`.
    """

    def __init__(self, model: Any) -> None:
        # The model has this object, not the other way round: a cycle would keep its weights until the next collection.
        self._model = weakref.ref(model)
        self._run: Callable[..., Any] | None = None
        self._signatures: set[Any] = set()
        self._spare: dict[tuple[int, int], Any] = {}
        self.first_call_seconds = 0.0

    def take(self, rows: int, room: int, make: Callable[[], Any]) -> Any:
        """A static cache for so many rows and tokens; that of an earlier call if it is free: graphs know addresses."""
        cache = self._spare.pop((rows, room), None)
        if cache is None:
            return make()
        cache.reset()
        return cache

    def give(self, rows: int, room: int, cache: Any) -> None:
        """Takes a cache back that nobody holds."""
        self._spare[rows, room] = cache

    def one_call(self) -> Callable[[dict[str, Any]], Any]:
        """The step for one call of generate: what it depends on is checked at the first step alone."""
        checked: list[Any] = []

        def step(inputs: dict[str, Any]) -> Any:
            signature = _signature(inputs)
            known = signature in checked
            if not checked:
                _fix_addresses(inputs)
            checked[:] = [signature]
            return self._step(inputs, signature, skip_checks=known)

        return step

    def _step(self, inputs: dict[str, Any], signature: Any, skip_checks: bool) -> Any:
        model = self._model()
        assert model is not None
        if self._run is None:
            self._run = torch.compile(_forward, backend=_backend_for(model), dynamic=False, fullgraph=True)
        if model.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # what the last step returned is used up
        if signature in self._signatures:
            with torch.compiler.set_stance(skip_guard_eval_unsafe=skip_checks and len(self._signatures) == 1):
                return self._run(model, inputs)
        start = time.perf_counter()
        with torch._dynamo.config.patch(recompile_limit=64):
            outputs = self._run(model, inputs)
        seconds = time.perf_counter() - start
        self.first_call_seconds += seconds
        logger.info("compiled a step of %s in %.1f s", type(model).__name__, seconds)
        self._signatures.add(signature)
        return outputs


def _fix_addresses(inputs: dict[str, Any]) -> None:
    """Says of the cache's buffers that they stay where they are, so that CUDA graphs write into them."""
    cache = inputs.get("past_key_values")
    for buffer in cache.buffers() if isinstance(cache, StaticKVCache) else ():
        torch._dynamo.mark_static_address(buffer)


def _forward(model: Any, inputs: dict[str, Any]) -> Any:
    return model(**inputs)


def _signature(value: Any) -> Any:
    """What a graph depends on: names, shapes and dtypes of tensors, and other values."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return type(value), getattr(value, "max_length", None)


def _backend_for(model: Any) -> Any:
    """Inductor; for a CPU with products of few rows decomposed, for CUDA with its graphs."""
    return {"cpu": _with_loops, "cuda": _with_graphs}.get(model.device.type, "inductor")


def _with_graphs(graph: Any, inputs: Any) -> Any:
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs, config_patches={"triton.cudagraphs": True})


def _with_loops(graph: Any, inputs: Any) -> Any:
    from torch._inductor.compile_fx import compile_fx

    from .compiled_products import OPTIONS, decompositions

    return compile_fx(graph, inputs, config_patches=dict(OPTIONS), decompositions=decompositions())


_STEPS: weakref.WeakKeyDictionary[Any, CompiledStep] = weakref.WeakKeyDictionary()


def compiled_step(model: Any) -> CompiledStep:
    """The model's compiled step, one for all of its calls.

    Raises:
        InvalidOptionError: the model is on several devices, or quantized by a library that does not compile.
    """
    if len({parameter.device for parameter in model.parameters()}) > 1:
        raise InvalidOptionError("compile=True needs the model on one device", key="compile")
    if model not in _STEPS:
        _STEPS[model] = CompiledStep(model)
    return _STEPS[model]
