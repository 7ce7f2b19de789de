"""GPT-2 in TensorFlow with its heads. Inputs that are not described here are those of `TFGPT2Module`."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import unknown_name
from ...module_config import ModuleConfig
from ...tf import losses, tasks
from ...tf.headed import (
    CrossedCausalLM,
    LastTokenClassification,
    LMHead,
    QuestionAnswering,
    TokenClassification,
    asked,
)
from ...tf.kinds import Normal
from ...tf.layers import Linear, Module, activation, dropout, folded, shape_of
from ...tf.outputs import TFGPT2DoubleHeadsModelOutput
from .modeling_tf_gpt2 import TFGPT2Module, TFGPT2PreTrainedModel

__all__ = [
    "TFGPT2DoubleHeadsModel",
    "TFGPT2ForQuestionAnswering",
    "TFGPT2ForSequenceClassification",
    "TFGPT2ForTokenClassification",
    "TFGPT2LMHeadModel",
]

Tensor: TypeAlias = tf.Tensor
SUMMARIES = ("cls_index", "first", "last", "mean")


class TFGPT2LMHeadModule(LMHead, CrossedCausalLM):
    """GPT-2 with next-token logits."""

    inputs_like, base_name = TFGPT2Module, "transformer"


class TFGPT2SequenceSummary(Module):
    """One number, or one vector, for a whole sequence."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        if config.summary_type not in SUMMARIES:
            raise unknown_name("summary_type", config.summary_type, SUMMARIES)
        self.config = config
        size = 1 if config.summary_proj_to_labels else config.n_embd
        init = Normal(config.initializer_range)
        self.summary = Linear(config.n_embd, size, init=init) if config.summary_use_proj else None
        self.act = activation(config.summary_activation or "linear", "summary_activation")

    def call(self, states: Tensor, places: Tensor | None = None, rng: Tensor | None = None) -> Tensor:
        """`(batch, …, 1 or hidden)` of `(batch, …, seq, hidden)`; `places` `(batch, …)` says which is looked at, if the
        type is "cls_index": the last one by default."""
        kind = self.config.summary_type
        if kind == "mean":
            state = tf.reduce_mean(states, -2)
        elif kind == "cls_index" and places is not None:
            state = tf.gather(states, places, axis=-2, batch_dims=len(places.shape))
        else:
            state = states[..., 0 if kind == "first" else -1, :]
        state = dropout(state, self.config.summary_first_dropout, rng)
        state = self.act(state if self.summary is None else self.summary(state))
        return dropout(state, self.config.summary_last_dropout, rng, place=1)


class TFGPT2DoubleHeadsModule(LMHead):
    """GPT-2 with next-token logits and a logit for each of several continuations."""

    inputs_like, base_name = TFGPT2Module, "transformer"
    generates = has_choices = True

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        self.multiple_choice_head = TFGPT2SequenceSummary(config)

    def call(
        self,
        input_ids: Tensor | None = None,
        *,
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFGPT2DoubleHeadsModelOutput:
        """Logits `(batch, choices, seq, vocab)` and `(batch, choices)` of inputs `(batch, choices, seq)`.

        `mc_token_ids` `(batch, choices)` are the places that the choice is made at; the last ones by default. With
        `labels` `(batch, choices, seq)`, which are not shifted, `loss` too, and with `mc_labels` `(batch,)` `mc_loss`.
        """
        given = {"input_ids": input_ids, **inputs}
        tasks.require_one(input_ids, inputs.get("inputs_embeds"))
        shape = shape_of(inputs["inputs_embeds"])[:-1] if input_ids is None else shape_of(input_ids)
        if len(shape) == 3:
            names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
            given = tasks.flat_choices(given, *names)[1]
        outputs = self.base(rng=rng, **given)
        states = tf.reshape(outputs.last_hidden_state, (*shape, self.config.n_embd))
        choices = self.multiple_choice_head(states, mc_token_ids, folded(rng, 2))
        choices = choices[..., 0] if choices.shape[-1] == 1 else choices
        logits = self.logits(states)
        return TFGPT2DoubleHeadsModelOutput(
            loss=None if labels is None else losses.causal_lm(logits, labels),
            mc_loss=None if mc_labels is None else losses.cross_entropy(choices, mc_labels),
            logits=logits,
            mc_logits=choices,
            past_key_values=outputs.past_key_values,
            **asked(outputs),
        )


class TFGPT2ForSequenceClassificationModule(LastTokenClassification):
    """GPT-2 with logits for the whole input, from its last token."""

    inputs_like, base_name = TFGPT2Module, "transformer"


class TFGPT2ForTokenClassificationModule(TokenClassification):
    """GPT-2 with logits for each token."""

    inputs_like, base_name = TFGPT2Module, "transformer"

    @property
    def rate(self) -> float:
        """The first of the two rates that the config may have, or 0.1."""
        rates = (self.config.classifier_dropout, self.config.hidden_dropout, 0.1)
        return next(rate for rate in rates if rate is not None)


class TFGPT2ForQuestionAnsweringModule(QuestionAnswering):
    """GPT-2 with logits of where in the text an answer starts and ends."""

    inputs_like, base_name = TFGPT2Module, "transformer"


class _WithTokenHead(TFGPT2PreTrainedModel):
    """The models that have next-token logits."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    _output_embeddings = "lm_head.weight"


class TFGPT2LMHeadModel(_WithTokenHead):
    """GPT-2 with next-token logits."""

    module_class = TFGPT2LMHeadModule


class TFGPT2DoubleHeadsModel(_WithTokenHead):
    """GPT-2 with next-token logits and a logit for each of several continuations."""

    module_class = TFGPT2DoubleHeadsModule


class TFGPT2ForSequenceClassification(TFGPT2PreTrainedModel):
    """GPT-2 with logits for the whole input, taken at its last token."""

    module_class = TFGPT2ForSequenceClassificationModule


class TFGPT2ForTokenClassification(TFGPT2PreTrainedModel):
    """GPT-2 with logits for each token."""

    module_class = TFGPT2ForTokenClassificationModule


class TFGPT2ForQuestionAnswering(TFGPT2PreTrainedModel):
    """GPT-2 with logits of where in the text an answer starts and ends."""

    module_class = TFGPT2ForQuestionAnsweringModule
