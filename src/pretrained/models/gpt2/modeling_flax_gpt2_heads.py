"""GPT-2 in JAX with its heads. Inputs that are not described here are those of `FlaxGPT2Module`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...errors import unknown_name
from ...flax import tasks
from ...flax.headed import (
    CrossedCausalLM,
    LastTokenClassification,
    LMHead,
    QuestionAnswering,
    TokenClassification,
    asked,
)
from ...flax.kinds import Normal
from ...flax.layers import Linear, Module, activation, dropout, folded
from ...flax.module_config import ModuleConfig
from ...flax.outputs import FlaxGPT2DoubleHeadsModelOutput
from .modeling_flax_gpt2 import FlaxGPT2Module, FlaxGPT2PreTrainedModel

__all__ = [
    "FlaxGPT2DoubleHeadsModel",
    "FlaxGPT2ForQuestionAnswering",
    "FlaxGPT2ForSequenceClassification",
    "FlaxGPT2ForTokenClassification",
    "FlaxGPT2LMHeadModel",
]

Array = jax.Array
SUMMARIES = ("cls_index", "first", "last", "mean")


class FlaxGPT2LMHeadModule(LMHead, CrossedCausalLM):
    """GPT-2 with next-token logits."""

    inputs_like, base_name = FlaxGPT2Module, "transformer"


class FlaxGPT2SequenceSummary(Module):
    """One number, or one vector, for a whole sequence."""

    def __init__(self, config: ModuleConfig) -> None:
        if config.summary_type not in SUMMARIES:
            raise unknown_name("summary_type", config.summary_type, SUMMARIES)
        self.config = config
        size = 1 if config.summary_proj_to_labels else config.n_embd
        init = Normal(config.initializer_range)
        self.summary = Linear(config.n_embd, size, init=init) if config.summary_use_proj else None
        self.act = activation(config.summary_activation or "linear", "summary_activation")

    def __call__(self, states: Array, places: Array | None = None, rng: Array | None = None) -> Array:
        """`(batch, …, 1 or hidden)` of `(batch, …, seq, hidden)`; `places` `(batch, …)` says which is looked at, if the
        type is "cls_index": the last one by default."""
        kind = self.config.summary_type
        if kind == "mean":
            state = states.mean(-2)
        elif kind == "cls_index" and places is not None:
            state = jnp.take_along_axis(states, places[..., None, None], -2)[..., 0, :]
        else:
            state = states[..., 0 if kind == "first" else -1, :]
        state = dropout(state, self.config.summary_first_dropout, rng)
        state = self.act(state if self.summary is None else self.summary(state))
        return dropout(state, self.config.summary_last_dropout, rng, place=1)


class FlaxGPT2DoubleHeadsModule(LMHead):
    """GPT-2 with next-token logits and a logit for each of several continuations."""

    inputs_like, base_name = FlaxGPT2Module, "transformer"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.multiple_choice_head = FlaxGPT2SequenceSummary(config)

    def __call__(
        self,
        input_ids: Array | None = None,
        *,
        mc_token_ids: Array | None = None,
        rng: Array | None = None,
        **inputs: Any,
    ) -> FlaxGPT2DoubleHeadsModelOutput:
        """Logits `(batch, choices, seq, vocab)` and `(batch, choices)` of inputs `(batch, choices, seq)`.

        `mc_token_ids` `(batch, choices)` are the places that the choice is made at; the last ones by default.
        """
        given = {"input_ids": input_ids, **inputs}
        tasks.require_one(input_ids, inputs.get("inputs_embeds"))
        shape = inputs["inputs_embeds"].shape[:-1] if input_ids is None else input_ids.shape
        if len(shape) == 3:
            names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
            given = tasks.flat_choices(given, *names)[1]
        outputs = self.base(rng=rng, **given)
        states = outputs.last_hidden_state.reshape(*shape, -1)
        choices = self.multiple_choice_head(states, mc_token_ids, folded(rng, 2))
        return FlaxGPT2DoubleHeadsModelOutput(
            logits=self.logits(states),
            mc_logits=choices[..., 0] if choices.shape[-1] == 1 else choices,
            past_key_values=outputs.past_key_values,
            **asked(outputs),
        )


class FlaxGPT2ForSequenceClassificationModule(LastTokenClassification):
    """GPT-2 with logits for the whole input, from its last token."""

    inputs_like, base_name = FlaxGPT2Module, "transformer"


class FlaxGPT2ForTokenClassificationModule(TokenClassification):
    """GPT-2 with logits for each token."""

    inputs_like, base_name = FlaxGPT2Module, "transformer"

    @property
    def rate(self) -> float:
        """The first of the two rates that the config may have, or 0.1."""
        rates = (self.config.classifier_dropout, self.config.hidden_dropout, 0.1)
        return next(rate for rate in rates if rate is not None)


class FlaxGPT2ForQuestionAnsweringModule(QuestionAnswering):
    """GPT-2 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = FlaxGPT2Module, "transformer"


class _WithTokenHead(FlaxGPT2PreTrainedModel):
    """The models that have next-token logits."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    _output_embeddings = "lm_head.weight"


class FlaxGPT2LMHeadModel(_WithTokenHead):
    """GPT-2 with next-token logits."""

    module_class = FlaxGPT2LMHeadModule


class FlaxGPT2DoubleHeadsModel(_WithTokenHead):
    """GPT-2 with next-token logits and a logit for each of several continuations."""

    module_class = FlaxGPT2DoubleHeadsModule


class FlaxGPT2ForSequenceClassification(FlaxGPT2PreTrainedModel):
    """GPT-2 with logits for the whole input, taken at its last token."""

    module_class = FlaxGPT2ForSequenceClassificationModule


class FlaxGPT2ForTokenClassification(FlaxGPT2PreTrainedModel):
    """GPT-2 with logits for each token."""

    module_class = FlaxGPT2ForTokenClassificationModule


class FlaxGPT2ForQuestionAnswering(FlaxGPT2PreTrainedModel):
    """GPT-2 with logits of where in the text an answer starts and ends."""

    module_class = FlaxGPT2ForQuestionAnsweringModule
