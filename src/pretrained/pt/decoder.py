"""The loop over the blocks of a decoder: what its base model does between its inputs and its output.

A family's base model has `embed_tokens`, `layers` with a `window` each, `norm` and `rotary_emb`. Its blocks return the
hidden states, the weights of attention or `None` and, where they have experts, the logits of the router or `None`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import masks, tasks
from .kv_cache import as_cache, like_given, next_positions
from .outputs import BaseModelOutputWithPast
from .outputs_moe import MoeModelOutputWithPast
from .training import checkpointed, may_cache

__all__ = ["decode"]


def decode(
    stack: Any,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    past_key_values: Any,
    inputs_embeds: Tensor | None,
    use_cache: bool | None,
    output_attentions: bool | None,
    output_hidden_states: bool | None,
    return_dict: bool | None,
    cache_position: Tensor | None,
    *,
    output_router_logits: bool | None = None,
    both_ways: bool = False,
) -> tasks.Output:
    """What the base model `stack` returns for inputs as its `forward` describes them.

    Args:
        output_router_logits: `None` for a family without experts; else whether to return the logits of all routers.
        both_ways: whether tokens see later ones as well.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds")
    config = stack.config
    use_cache = may_cache(stack, stack, config.use_cache if use_cache is None else use_cache)
    need_weights = config.output_attentions if output_attentions is None else output_attentions
    need_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    hidden_states = stack.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
    cache = as_cache(past_key_values) if use_cache or past_key_values is not None else None
    if cache_position is None:
        cache_position = next_positions(cache, hidden_states.shape[1], hidden_states.device)

    given = (cache, attention_mask, hidden_states, cache_position)
    windows = {layer.window for layer in stack.layers}  # one mask for all layers of a window
    seen = {window: masks.causal_over(*given, window=window, both_ways=both_ways) for window in windows}
    position_ids = cache_position[None] if position_ids is None else position_ids
    inputs = {
        "position_embeddings": stack.rotary_emb(position_ids, hidden_states.dtype),
        "past_key_values": cache,
        "cache_position": cache_position,
        "need_weights": need_weights,
    }
    states, attentions, routers = [], [], []
    for layer in stack.layers:
        if need_states:  # kept only where somebody asked: they are most of a forward pass's memory
            states.append(hidden_states)
        inputs["mask"], inputs["causal"] = seen[layer.window]
        hidden_states, weights, *logits = checkpointed(stack, layer, hidden_states, **inputs)
        attentions.append(weights)
        routers += [part for part in logits if part is not None]
    hidden_states = stack.norm(hidden_states)
    fields: dict[str, Any] = {
        "last_hidden_state": hidden_states,
        "past_key_values": like_given(cache, past_key_values) if use_cache else None,
        "hidden_states": (*states, hidden_states) if need_states else None,
        "attentions": tuple(attentions) if need_weights else None,
    }
    if output_router_logits is not None:
        fields["router_logits"] = tuple(routers) if output_router_logits else None
    kind = BaseModelOutputWithPast if output_router_logits is None else MoeModelOutputWithPast
    return tasks.as_asked(kind(**fields), config, return_dict)
