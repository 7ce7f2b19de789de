"""TFGenerationMixin: what a TensorFlow model needs to generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...generation.config import GenerationConfig
from ..kv_cache import KVCache, empty_cache
from .run import generate

__all__ = ["TFGenerationMixin"]


class TFGenerationMixin:
    """Generation for a model whose module returns `logits` `(batch, seq, vocab)` and takes `past_key_values`."""

    module_class: ClassVar[Any]
    config: Any
    dtype: Any

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the class generates sequences: its module says so by `generates = True`."""
        return cls.module_class is not None and bool(cls.module_class.generates)

    @classmethod
    def _empty_cache(cls, module: Any, size: tuple[int, int], dtype: Any, inputs: Mapping[str, Any]) -> KVCache:
        """A cache for `size` (rows, tokens), without tokens; a class whose layers differ overrides it."""
        if "encoder_outputs" in inputs:
            cache: KVCache = module.init_cache(*size, inputs["encoder_outputs"])
            return cache
        return empty_cache(module.config, size, dtype)

    @classmethod
    def _first_position(cls, config: Any) -> int:
        """The position id of a text's first token."""
        return 0

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: list[Any] | None = None,
        seed: Any = None,
        jit_compile: bool = False,
        trace: bool = True,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Sequences, by one program for each size of prompt and of text.

        Within a `tf.function` it is a part of that: inputs then need shapes that are known when it is traced.

        Args:
            inputs: the prompt `(batch, seq)`, padded on the left; an encoder's input. `input_ids` by name is the same.
            generation_config: settings; what they leave open comes from the model's own, then from the defaults.
            logits_processor: called with (ids, scores, length) after those that the settings ask for; traced.
            seed: of what is drawn, a number or two; drawn itself without one, as `tf.random.set_seed` has it.
            jit_compile: whether XLA compiles the program: slow at first, fast from then on, and the same tokens.
            trace: False makes no program, for debugging.
            streamer: has put(ids) and end(); is given the prompt, then each token.
            kwargs: any setting by name; attention_mask and further inputs of the module.

        Returns:
            Token ids `(batch * num_return_sequences, length)`; with `return_dict_in_generate=True` an output with
            `sequences`, and of beams `sequences_scores`.

        Raises:
            OptionError: a keyword nobody knows; names the nearest.
            ConfigError, InvalidOptionError: a setting or input that makes no sense, or that TensorFlow models lack.
        """
        return generate(
            self,
            inputs,
            generation_config,
            logits_processor or [],
            seed=seed,
            jit_compile=jit_compile,
            trace=trace,
            streamer=streamer,
            keywords=kwargs,
        )
