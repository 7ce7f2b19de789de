"""GPT-2 with the heads it is trained with. Inputs that are not described here are those of `GPT2Model`."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from ...pt import losses, tasks
from ...pt.generation.mixin import GenerationMixin
from ...pt.layers import activation, keep_places, unknown_name
from ...pt.outputs import CausalLMOutputWithCrossAttentions, GPT2DoubleHeadsModelOutput, ModelOutput
from .configuration_gpt2 import GPT2Config
from .modeling_gpt2 import GPT2Model, GPT2PreTrainedModel

__all__ = ["GPT2DoubleHeadsModel", "GPT2LMHeadModel"]

Output = ModelOutput | tuple[Any, ...]
SUMMARIES = ("cls_index", "first", "last", "mean")


class _GPT2WithTokenHead(GPT2PreTrainedModel, GenerationMixin):
    """The models that have next-token logits. What is common to them is where these are made."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    transformer: GPT2Model
    lm_head: nn.Linear

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection onto the vocabulary."""
        self.lm_head = cast(nn.Linear, new_embeddings)


class GPT2LMHeadModel(_GPT2WithTokenHead):
    """GPT-2 with next-token logits."""

    loss_type = "ForCausalLM"

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Output:
        """Logits `(batch, seq, vocab)`.

        Args:
            labels: `(batch, seq)`, the tokens themselves: each is predicted at the place before it; -100 is skipped.
            logits_to_keep: how many of the last places get logits (0: all), or which ones, as a 1-D tensor.
            num_items_in_batch: the loss is divided by this rather than by the number of labels in the call.
        """
        outputs = self.transformer(
            input_ids,
            past_key_values,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            cache_position=cache_position,
        )
        logits = self.lm_head(keep_places(outputs.last_hidden_state, logits_to_keep))
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else losses.causal_lm(logits, labels, num_items_in_batch),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class GPT2SequenceSummary(nn.Module):
    """One vector, or one number a label, for a whole sequence."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        if config.summary_type not in SUMMARIES:
            raise unknown_name("summary_type", config.summary_type, SUMMARIES)
        self.summary_type = config.summary_type
        self.summary: nn.Module = nn.Identity()
        if config.summary_use_proj:
            to_labels = config.summary_proj_to_labels and config.num_labels > 0
            self.summary = nn.Linear(config.n_embd, config.num_labels if to_labels else config.n_embd)
        self.activation = activation(config.summary_activation or "linear")
        self.first_dropout = nn.Dropout(config.summary_first_dropout)
        self.last_dropout = nn.Dropout(config.summary_last_dropout)

    def forward(self, hidden_states: Tensor, cls_index: Tensor | None = None) -> Tensor:
        """`(batch, …, labels)` of `(batch, …, seq, hidden)`; `cls_index` `(batch, …)` says which place, if the type is
        "cls_index": the last one by default."""
        if self.summary_type == "mean":
            state = hidden_states.mean(-2)
        elif self.summary_type == "cls_index" and cls_index is not None:
            place = cls_index[..., None, None].expand(*cls_index.shape, 1, hidden_states.shape[-1])
            state = hidden_states.gather(-2, place).squeeze(-2)
        else:
            state = hidden_states[..., 0 if self.summary_type == "first" else -1, :]
        return self.last_dropout(self.activation(self.summary(self.first_dropout(state))))


class GPT2DoubleHeadsModel(_GPT2WithTokenHead):
    """GPT-2 with next-token logits and a logit for each of several continuations."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        config.num_labels = 1
        self.transformer = GPT2Model(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.multiple_choice_head = GPT2SequenceSummary(config)
        self.post_init()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: `input_ids` of shape `(3, 2, 5)`."""
        return tasks.with_choices(super().dummy_inputs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Output:
        """Logits `(batch, choices, seq, vocab)` and `(batch, choices)` of inputs `(batch, choices, seq)`.

        Args:
            mc_token_ids: `(batch, choices)` places of the tokens that the choice is made at; the last ones by default.
            labels: `(batch, choices, seq)`, the tokens themselves; -100 is skipped.
            mc_labels: `(batch,)`, the right choices.
        """
        shape = input_ids.shape if input_ids is not None else () if inputs_embeds is None else inputs_embeds.shape[:-1]
        axes = max(len(shape) - 1, 1)
        outputs = self.transformer(
            _rows(input_ids, axes),
            past_key_values,
            _rows(attention_mask, axes),
            _rows(token_type_ids, axes),
            _rows(position_ids, axes),
            head_mask,
            _rows(inputs_embeds, axes),
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        states = outputs.last_hidden_state.unflatten(0, shape[:-1])
        logits = self.lm_head(states)
        choice_logits = self.multiple_choice_head(states, mc_token_ids).squeeze(-1)
        output = GPT2DoubleHeadsModelOutput(
            loss=None if labels is None else losses.causal_lm(logits, labels),
            mc_loss=None if mc_labels is None else losses.multiple_choice(choice_logits, mc_labels),
            logits=logits,
            mc_logits=choice_logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def _rows(x: Tensor | None, axes: int) -> Tensor | None:
    """`(batch, choices, …)` as `(batch * choices, …)`: the first `axes` as one."""
    return None if x is None else x.flatten(0, axes - 1)
