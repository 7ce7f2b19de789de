"""FlaxGenerationMixin: what a JAX model needs to generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from ...generation.config import GenerationConfig
from ..kv_cache import KVCache, empty_cache
from .run import generate

__all__ = ["FlaxGenerationMixin"]


class FlaxGenerationMixin:
    """Generation for a model whose module returns `logits` `(batch, seq, vocab)` and takes `past_key_values`."""

    module_class: ClassVar[Any]
    config: Any
    dtype: Any

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the class generates sequences: its module says so by `generates = True`."""
        return bool(getattr(cls.module_class, "generates", False))

    @classmethod
    def _empty_cache(cls, module: Any, size: tuple[int, int], dtype: Any, inputs: Mapping[str, Any]) -> KVCache:
        """A cache for `size` (rows, tokens), without tokens; a class whose layers differ overrides it."""
        if "encoder_outputs" in inputs:
            cache: KVCache = module.init_cache(*size, inputs["encoder_outputs"])
            return cache
        return empty_cache(module.config, size, dtype)

    def init_cache(self, batch_size: int, max_length: int) -> KVCache:
        """A cache with room for `max_length` tokens, to be passed as past_key_values."""
        return empty_cache(self.config, (batch_size, max_length), self.dtype)

    def generate(
        self,
        input_ids: Any = None,
        generation_config: GenerationConfig | None = None,
        prng_key: jax.Array | None = None,
        trace: bool = True,
        params: Mapping[str, Any] | None = None,
        logits_processor: list[Any] | None = None,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Sequences, by one compiled program for each size of prompt and of text.

        Args:
            input_ids: the prompt `(batch, seq)`, padded on the left; an encoder's input.
            generation_config: settings; what they leave open comes from the model's own, then from the defaults.
            prng_key: of what is drawn; key 0 without one.
            trace: False compiles nothing, for debugging.
            params: in place of the model's own.
            logits_processor: called with (ids, scores, length) after those that the settings ask for; traced.
            streamer: has put(ids) and end(); is given the prompt, then each token.
            kwargs: any setting by name; attention_mask and further inputs of the module.

        Returns:
            FlaxGreedySearchOutput, FlaxSampleOutput or FlaxBeamSearchOutput; `sequences` are
            `(batch * num_return_sequences, max_length)`.

        Raises:
            OptionError: a keyword nobody knows; names the nearest.
            ConfigError, InvalidOptionError: a setting or input that makes no sense, or that JAX models do not have.
        """
        return generate(
            self,
            input_ids,
            generation_config,
            prng_key,
            params,
            logits_processor or [],
            trace=trace,
            streamer=streamer,
            keywords=kwargs,
        )
