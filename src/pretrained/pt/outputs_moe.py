"""What forward passes of decoders with experts return; router logits are `(batch * seq, experts)` a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .outputs import ModelOutput, TensorTuple

__all__ = ["MoeCausalLMOutputWithPast", "MoeModelOutputWithPast"]


@dataclass(eq=False)
class MoeModelOutputWithPast(ModelOutput):
    """Of a decoder with experts; router logits `(batch * seq, experts)`, one for each layer that has them."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    router_logits: TensorTuple | None = None


@dataclass(eq=False)
class MoeCausalLMOutputWithPast(ModelOutput):
    """Next-token logits of a decoder with experts; `aux_loss` `()` is how unevenly they are used."""

    loss: Tensor | None = None
    aux_loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: TensorTuple | None = None
    attentions: TensorTuple | None = None
    router_logits: TensorTuple | None = None
