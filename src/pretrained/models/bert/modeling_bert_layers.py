"""The blocks of BERT: attention and feed-forward. Shapes are written with the axes batch, seq, hidden."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import masks
from ...pt.attention import attend, distance_bias, merge_heads, split_heads
from ...pt.blocks import AddNorm, Widening
from ...pt.heads import prune_linears
from ...pt.kv_cache import extended, of_encoder
from ...pt.layers import chunked, unknown_name
from .configuration_bert import BertConfig

__all__ = ["BertAttention", "BertLayer", "BertSelfAttention"]

POSITIONS = ("absolute", "relative_key", "relative_key_query")


class BertSelfAttention(nn.Module):
    """Attention to the sequence itself, or to an encoder's output."""

    def __init__(self, config: BertConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        if position_embedding_type not in POSITIONS:
            raise unknown_name("position_embedding_type", position_embedding_type, POSITIONS)
        self.config = config
        self.layer_idx = layer_idx
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.all_head_size = config.hidden_size
        self.pruned_heads: set[int] = set()
        self.query = nn.Linear(config.hidden_size, self.all_head_size)
        self.key = nn.Linear(config.hidden_size, self.all_head_size)
        self.value = nn.Linear(config.hidden_size, self.all_head_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.position_embedding_type = position_embedding_type
        if position_embedding_type != "absolute":
            # One vector for each distance from -(positions - 1) to positions - 1.
            self.distance_embedding = nn.Embedding(2 * config.max_position_embeddings - 1, self.attention_head_size)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        query = split_heads(self.query(hidden_states), self.attention_head_size)
        past, index = past_key_values, self.layer_idx
        if encoder_hidden_states is None:
            key, value = extended(past, index, *self._keys_and_values(hidden_states), cache_position)
        else:
            key, value = of_encoder(past, index, lambda: self._keys_and_values(encoder_hidden_states))
        scale = self.attention_head_size**-0.5
        if self.position_embedding_type != "absolute":
            both = self.position_embedding_type == "relative_key_query"
            bias = distance_bias(query, key, self.distance_embedding, by_key=both, positions=cache_position)
            mask = masks.add_bias(mask, bias * scale)
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            mask,
            scale=scale,
            dropout=self.dropout.p if self.training else 0.0,
            causal=causal,
            need_weights=need_weights,
            head_mask=head_mask,
        )
        return merge_heads(out), weights

    def _keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        size = self.attention_head_size
        return split_heads(self.key(states), size), split_heads(self.value(states), size)


class BertAttention(nn.Module):
    """Attention and what follows it."""

    def __init__(self, config: BertConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.self = BertSelfAttention(config, layer_idx, position_embedding_type)
        self.output = AddNorm(hidden_size, hidden_size, config.layer_norm_eps, config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `BertSelfAttention.forward` has them."""
        attended, weights = self.self(hidden_states, **inputs)
        return self.output(attended, hidden_states), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        own = self.self
        inputs, names = (own.query, own.key, own.value), ("num_attention_heads", "attention_head_size")
        prune_linears(own, heads, inputs, self.output.dense, num_heads=names[0], head_dim=names[1])
        own.all_head_size = own.num_attention_heads * own.attention_head_size


class BertLayer(nn.Module):
    """One block: attention, attention to an encoder if there is one, feed-forward."""

    def __init__(self, config: BertConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.attention = BertAttention(config, layer_idx, config.position_embedding_type)
        self.crossattention: BertAttention | None = None
        if config.add_cross_attention:
            if not config.is_decoder:
                raise ConfigError("add_cross_attention=True needs is_decoder=True", key="add_cross_attention")
            # Distances between two different sequences mean nothing.
            self.crossattention = BertAttention(config, layer_idx, "absolute")
        hidden_size, wide = config.hidden_size, config.intermediate_size
        self.intermediate = Widening(hidden_size, wide, config.hidden_act)
        self.output = AddNorm(wide, hidden_size, config.layer_norm_eps, config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, the weights of self-attention and those of cross-attention, or `None`."""
        hidden_states, weights = self.attention(
            hidden_states,
            mask=mask,
            causal=causal,
            head_mask=head_mask,
            past_key_values=past_key_values,
            cache_position=cache_position,
            need_weights=need_weights,
        )
        cross_weights = None
        if self.config.is_decoder and encoder_hidden_states is not None:
            if self.crossattention is None:
                raise ValueError("encoder_hidden_states need a model with add_cross_attention=True")
            hidden_states, cross_weights = self.crossattention(
                hidden_states,
                mask=encoder_mask,
                head_mask=head_mask,
                encoder_hidden_states=encoder_hidden_states,
                past_key_values=past_key_values,
                need_weights=need_weights,
            )
        return chunked(self.feed_forward, self.config.chunk_size_feed_forward, hidden_states), weights, cross_weights

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`; each token by itself, so that it can be done in pieces."""
        return self.output(self.intermediate(hidden_states), hidden_states)
