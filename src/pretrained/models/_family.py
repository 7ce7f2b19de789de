"""What a family declares of itself: names only, so that a registry can be built without importing a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Family"]


@dataclass(frozen=True)
class Family:
    """The names of one model family. Values are `module:Class`, with the module relative to the family's folder.

    Attributes:
        model_type: the value of `model_type` in config.json.
        config: where the config class is.
        pt: auto class name → model class, for torch.
        flax: the same for Flax, under `FlaxAutoModel…` names.
        tf: the same for TensorFlow, under `TFAutoModel…` names.
        names: further public classes that no auto class leads to.
        siblings: model_type → further families that live in the same folder.
    """

    model_type: str
    config: str
    pt: Mapping[str, str] = field(default_factory=dict)
    flax: Mapping[str, str] = field(default_factory=dict)
    tf: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    siblings: Mapping[str, Family] = field(default_factory=dict)
