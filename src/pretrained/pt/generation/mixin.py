"""GenerationMixin: what a model needs to generate, as the methods that people and subclasses know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...generation.config import GenerationConfig
from ..step_inputs import step_inputs
from .run import generate
from .steps import picked
from .transitions import transition_scores

__all__ = ["GenerationMixin", "defines_generation"]


def _next_inputs(
    self: Any, input_ids: Tensor, next_sequence_length: int | None = None, **kwargs: Any
) -> dict[str, Any]:
    """The keywords of forward for one step: of `input_ids` `(batch, seq)` what the cache does not hold yet.

    `next_sequence_length` is how many that are; the rest is as `step_inputs` has it.
    """
    return step_inputs(input_ids, next_sequence_length=next_sequence_length, **kwargs)


class GenerationMixin:
    """Generation for a model whose forward returns `logits` `(batch, seq, vocab)`.

    A class generates if it defines `prepare_inputs_for_generation`, or names this mixin among its bases; then
    `can_generate()` says so. Hooks: `prepare_inputs_for_generation`, and `_reorder_cache` for caches that are tuples.
    """

    generation_config: Any

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: list[Any] | None = None,
        stopping_criteria: list[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], list[int]] | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        negative_prompt_ids: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Sequences `(batch * num_return_sequences, seq)`, prompts included; an encoder–decoder's are its decoder's.

        Args:
            inputs: the prompt `(batch, seq)`, padded on the left; an encoder's input; also as input_ids=…
            generation_config: settings; what they leave open comes from the model's own, then from the defaults.
            logits_processor: applied to scores after those that the settings ask for.
            stopping_criteria: beside those that the settings ask for.
            prefix_allowed_tokens_fn: called with a row of the batch and its text; returns the ids that may come next.
            assistant_model: a smaller model of the same vocabulary, whose drafts are checked several tokens at once.
            streamer: has put(ids) and end(); is given the prompt, then each token.
            negative_prompt_ids: with guidance_scale, the prompt to move away from.
            negative_prompt_attention_mask: `(batch, seq)` of these.
            kwargs: any setting by name; inputs of forward; `tokenizer=` with stop_strings; `generator=`, of random
                numbers; `compile=True`, a compiled step.

        Returns:
            A tensor; with return_dict_in_generate=True an output object (docs/generation.md).

        Raises:
            OptionError: a keyword nobody knows; names the nearest.
            ConfigError, InvalidOptionError: a setting or input that makes no sense.
        """
        return generate(
            self,
            inputs,
            generation_config,
            logits_processor or [],
            stopping_criteria or [],
            prefix_fn=prefix_allowed_tokens_fn,
            assistant=assistant_model,
            streamer=streamer,
            negative=(negative_prompt_ids, negative_prompt_attention_mask),
            keywords=kwargs,
        )

    prepare_inputs_for_generation: Any = _next_inputs  # of any signature in a subclass

    @staticmethod
    def _reorder_cache(past_key_values: Any, beam_idx: Tensor) -> Any:
        """Legacy tuples whose row `i` is what row `beam_idx[i]` was."""
        return picked(past_key_values, beam_idx)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """Scores of the tokens that were chosen, `(rows, new)`; of beams their log-probabilities.

        Args:
            sequences: `(rows, seq)` that generate returned.
            scores: of each step `(rows, vocab)`, as `output_scores=True` returns them.
            beam_indices: `(rows, new)`, as beam search returns them.
            normalize_logits: whether to make log-probabilities of the scores first.
        """
        return transition_scores(sequences, scores, beam_indices, normalize_logits)


def defines_generation(cls: type) -> bool:
    """Whether a class, or one that it is derived from, says how it generates."""
    for base in cls.__mro__:
        if base is not GenerationMixin and "prepare_inputs_for_generation" in vars(base):
            return True
        if GenerationMixin in base.__bases__ and not vars(base).get("_is_any_model", False):
            return True
    return False
