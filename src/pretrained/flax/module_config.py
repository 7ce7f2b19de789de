"""The config as JAX modules see it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .. import module_config
from ..configuration import PretrainedConfig

__all__ = ["ModuleConfig"]


class ModuleConfig(module_config.ModuleConfig):
    """The same with a dtype of JAX; modules that hold one can be compared as JAX compares them."""

    def __init__(self, config: PretrainedConfig, dtype: Any = None, gradient_checkpointing: bool = False) -> None:
        super().__init__(config, None if dtype is None else jnp.dtype(dtype), gradient_checkpointing)
