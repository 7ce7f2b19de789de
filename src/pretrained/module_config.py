"""The config as modules see it."""

from __future__ import annotations

import copy
from typing import Any

from .configuration import PretrainedConfig
from .errors import ConfigError

__all__ = ["ModuleConfig"]


class ModuleConfig:
    """A copy of a config that is not written to, with what is no part of a config: how to compute.

    Two of equal configs are equal and have one hash, so that what is built from one can be kept for the next.

    Args:
        config: copied.
        dtype: that modules compute in, as the framework has dtypes; None for that of their parameters.
        gradient_checkpointing: whether layers keep their inputs alone and are computed again in the backward pass.
    """

    def __init__(self, config: PretrainedConfig, dtype: Any = None, gradient_checkpointing: bool = False) -> None:
        self.compute_dtype = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self._config = copy.deepcopy(config)
        attention = config._attn_implementation
        self.key = (type(config), config.to_json_string(), attention, self.compute_dtype, gradient_checkpointing)

    def __getattr__(self, name: str) -> Any:
        if name == "_config":  # while a copy of this is made, before it has one
            raise AttributeError(name)
        return getattr(self._config, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleConfig) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"ModuleConfig({type(self._config).__name__}, dtype={self.compute_dtype})"

    def num_heads(self, layer: int) -> int:
        """Attention heads of a layer, less those that were pruned."""
        return int(self.num_attention_heads) - len(self._pruned(layer))

    def num_groups(self, layer: int) -> int:
        """Heads of keys and values of a layer, each shared by a group of heads, less those whose group was pruned.

        Raises:
            ConfigError: the heads cannot be grouped so, or part of a group was pruned.
        """
        heads, groups = int(self.num_attention_heads), int(self.num_key_value_heads)
        if heads % groups:
            sizes = f"num_attention_heads={heads}, num_key_value_heads={groups}"
            raise ConfigError(f"key heads must divide the query heads: {sizes}", key="num_key_value_heads")
        size, gone = heads // groups, self._pruned(layer)
        left = [head for head in range(heads) if head not in gone]
        if rest := [head for head in left if any(other // size == head // size for other in gone)]:
            raise ConfigError(
                f"every {size} heads share their keys and values, so they go together; heads {rest} of layer {layer} "
                "would be left over",
                key="pruned_heads",
            )
        return len(left) // size

    def _pruned(self, layer: int) -> set[int]:
        return set((self._config.pruned_heads or {}).get(layer, ()))
