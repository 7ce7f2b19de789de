"""The structure of a model: which parameters its module has, under which names, and the variables that they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras

from .._types import Shape
from .kinds import Init, Kind
from .layers import Parameter

__all__ = ["Place", "Structure"]


class Place(NamedTuple):
    """One parameter.

    Attributes:
        name: what torch's checkpoints call it, and where it is in the module.
        owner: the layer that has it. leaf: the attribute.
        described: shape, dtype, kind and how it is drawn.
    """

    name: str
    owner: Any
    leaf: str
    described: Parameter

    @property
    def shape(self) -> Shape:
        """As torch has it, and as the variable has."""
        return self.described.shape

    @property
    def dtype(self) -> str:
        """What its constructor gave it."""
        return self.described.dtype

    @property
    def kind(self) -> Kind:
        """Its sort."""
        return self.described.kind

    @property
    def init(self) -> Init:
        """How it is drawn."""
        return self.described.init

    @property
    def variable(self) -> Any:
        """The variable; of a module that is yet to be filled the description."""
        return getattr(self.owner, self.leaf)


class Structure:
    """The parameters of a module that was just described, in the order of its constructors."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.places = list(_walk(module, ""))
        self.by_name = {place.name: place for place in self.places}

    def fill(self, values: Mapping[str, Any]) -> None:
        """Puts variables into their places: name → a variable that is there already, or a tensor to make one of."""
        for place in self.places:
            given = values[place.name]
            if not isinstance(given, keras.Variable):
                trains = place.described.is_trainable
                given = keras.Variable(given, dtype=given.dtype, name=place.name, trainable=trains, autocast=False)
            setattr(place.owner, place.leaf, given)

    @property
    def variables(self) -> dict[str, Any]:
        """Name → variable."""
        return {place.name: place.variable for place in self.places}


def _walk(owner: Any, prefix: str) -> Iterator[Place]:
    for key, value in vars(owner).items():
        if not key.startswith("_"):
            yield from _places(owner, key, value, f"{prefix}{key}")


def _places(owner: Any, key: str, value: Any, name: str) -> Iterator[Place]:
    if isinstance(value, Parameter):
        yield Place(name, owner, key, value)
    elif isinstance(value, keras.layers.Layer):
        yield from _walk(value, f"{name}.")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if isinstance(item, keras.layers.Layer):
                yield from _walk(item, f"{name}.{index}.")
