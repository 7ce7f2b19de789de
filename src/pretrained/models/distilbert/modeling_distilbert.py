"""DistilBERT (arXiv 1910.01108): BERT with half the layers, no segments and no pooler. Heads are in another file.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import masks, tasks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.heads import prune_linears
from ...pt.layers import activation, chunked, init_normal
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutput
from ...pt.training import checkpointed
from .configuration_distilbert import DistilBertConfig
from .sinusoids import sinusoid_table

__all__ = ["DistilBertModel", "DistilBertPreTrainedModel", "sinusoids"]

EPSILON = 1e-12  # of all norms; no config says otherwise


def sinusoids(num_positions: int, dim: int) -> Tensor:
    """A table `(positions, dim)` of sines in the even channels and cosines in the odd ones (arXiv 1706.03762)."""
    return torch.from_numpy(sinusoid_table(num_positions, dim))


class DistilBertEmbeddings(nn.Module):
    """Sum of word and position embeddings, normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.position_embeddings.weight.requires_grad_(not config.sinusoidal_pos_embds)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor | None, position_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq)` ids and `(batch or 1, seq)` positions, 0, 1, … by default."""
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length, limit = embeddings.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(f"{length} tokens are more than max_position_embeddings={limit}")
        if position_ids is None:
            position_ids = torch.arange(length, device=embeddings.device)[None]
        embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))


class DistilBertAttention(nn.Module):
    """Attention of every token to every token."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        if config.dim % config.n_heads:
            raise ConfigError(
                f"heads must divide the hidden size: dim={config.dim}, n_heads={config.n_heads}", key="n_heads"
            )
        self.config = config
        self.num_heads = config.n_heads
        self.head_dim = config.dim // config.n_heads
        self.pruned_heads: set[int] = set()
        self.q_lin = nn.Linear(config.dim, config.dim)
        self.k_lin = nn.Linear(config.dim, config.dim)
        self.v_lin = nn.Linear(config.dim, config.dim)
        self.out_lin = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.q_lin(hidden_states), self.head_dim),
            split_heads(self.k_lin(hidden_states), self.head_dim),
            split_heads(self.v_lin(hidden_states), self.head_dim),
            mask,
            scale=self.head_dim**-0.5,
            dropout=self.dropout.p if self.training else 0.0,
            need_weights=need_weights,
            head_mask=head_mask,
        )
        return self.out_lin(merge_heads(out)), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        prune_linears(self, heads, (self.q_lin, self.k_lin, self.v_lin), self.out_lin)


class FFN(nn.Module):
    """The feed-forward part."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.config = config
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`; each token by itself, so that it can be done in pieces."""
        return chunked(self._piece, self.config.chunk_size_feed_forward, hidden_states)

    def _piece(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.lin2(self.activation(self.lin1(hidden_states))))


class TransformerBlock(nn.Module):
    """One block: attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.attention = DistilBertAttention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, eps=EPSILON)
        self.ffn = FFN(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, eps=EPSILON)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`."""
        attended, weights = self.attention(hidden_states, mask, head_mask, need_weights)
        hidden_states = self.sa_layer_norm(attended + hidden_states)
        return self.output_layer_norm(self.ffn(hidden_states) + hidden_states), weights


class Transformer(nn.Module):
    """The stack of blocks."""

    gradient_checkpointing = False

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Result of the last block, and what was asked for of the others."""
        states, attentions = [hidden_states], []
        head_masks = masks.split_head_mask(head_mask, len(self.layer))
        for layer, layer_head_mask in zip(self.layer, head_masks, strict=True):
            hidden_states, weights = checkpointed(self, layer, hidden_states, mask, layer_head_mask, output_attentions)
            if output_hidden_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            attentions.append(weights)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class DistilBertPreTrainedModel(PreTrainedModel):
    """Base of all DistilBERT models."""

    config: DistilBertConfig
    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["TransformerBlock"]
    _position_embeddings = "embeddings.position_embeddings"
    # Releases before 4.31 saved this buffer.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)
        if isinstance(module, DistilBertEmbeddings) and self.config.sinusoidal_pos_embds:
            weight = module.position_embeddings.weight
            weight.data.copy_(sinusoids(*weight.shape))

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Gives the table of positions another length; sines and cosines go on as they began."""
        super().resize_position_embeddings(new_num_position_embeddings)
        if self.config.sinusoidal_pos_embds:
            weight = cast("DistilBertModel", self.base_model).embeddings.position_embeddings.weight
            weight.data.copy_(sinusoids(*weight.shape))


class DistilBertModel(DistilBertPreTrainedModel):
    """The blocks with their embeddings."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self.embeddings = DistilBertEmbeddings(config)
        self.transformer = Transformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            cast(TransformerBlock, self.transformer.layer[layer]).attention.prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        position_ids: Tensor | None = None,
    ) -> tasks.Output:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, seq)`, 1 for tokens and 0 for padding; masks of 3 and 4 axes as
                `masks.bidirectional` has them.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` instead of looking `input_ids` up.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers.
            return_dict: `False` for a plain tuple.
            position_ids: `(batch or 1, seq)`, 0, 1, … by default.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        config = self.config
        self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        states = self.embeddings(input_ids, position_ids, inputs_embeds)
        output = self.transformer(
            states,
            masks.bidirectional(attention_mask, states.dtype),
            head_mask,
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        return tasks.as_asked(output, config, return_dict)
