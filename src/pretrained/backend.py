"""What a framework must be able to do for a load; everything else of the story is the same for all three."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from ._types import Shape
from .adapters import Adapter
from .checkpoint.deliver import Placer
from .checkpoint.dtypes import DtypePolicy
from .checkpoint.execute import Sink
from .checkpoint.plan_load import ParamSpec
from .quantization.scheme import Quantizer, Scheme

__all__ = ["Backend"]


class Backend(Sink, Protocol):
    """One load in one framework. An object of it serves one model, from skeleton to finish."""

    def skeleton(self, build: Callable[[], Any]) -> Any:
        """Calls `build` so that uninitialised memory is only described; what a constructor computes is real."""

    def quantizer(self, scheme: Scheme) -> Quantizer:
        """What quantizes the model, asked for before the skeleton; its part of bind and finish is the backend's."""

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """Parameters and persistent buffers of the model, tied ones as one."""

    def initialise(self, model: Any, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Gives these parameters, and buffers without memory, the values a freshly built model has. No others."""

    @property
    def placer(self) -> Placer:
        """What places this model; asked for after `params`, and only when a placement was."""

    def bind(self, model: Any, values: MutableMapping[str, Any]) -> None:
        """Puts arrays in the places of parameters, under all their names. Cannot fail half way.

        It may take them out of `values` as it goes, so that none is in memory twice.
        """

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Whatever makes the model ready: eval mode, nothing left without memory; `renamed` is for the way back."""

    def adapter(self, found: Adapter, *, strict: bool) -> Callable[[Any], object]:
        """What puts the adapter on a model, once there is one. What is wrong with its config shows here already."""

    def describe(self, array: Any) -> tuple[Shape, str] | None:
        """(shape, dtype name) of an array of the framework or of numpy; None if it is no array."""

    def equals(self, array: Any, other: Any) -> bool:
        """Whether two arrays hold the same bits."""
