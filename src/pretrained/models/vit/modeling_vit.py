"""ViT (arXiv 2010.11929): an image as a sequence of patches through an encoder. Heads are in modeling_vit_heads.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden, where
seq is one class token and then the patches, row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...pt import masks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.heads import prune_linears
from ...pt.layers import activation, chunked
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutput, BaseModelOutputWithPooling
from ...pt.training import checkpointed
from .configuration_vit import ViTConfig
from .images import check_images, pair_of, patch_grid

__all__ = ["ViTLayer", "ViTModel", "ViTPreTrainedModel"]


class ViTPatchEmbeddings(nn.Module):
    """Each patch of pixels, projected: a convolution whose windows lie side by side."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.image_size, self.patch_size, self.num_patches = patch_grid(config)
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, self.patch_size, self.patch_size)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole patches in an image of that many pixels."""
        return height // self.patch_size[0], width // self.patch_size[1]

    def check(self, pixel_values: Tensor, any_size: bool) -> None:
        """Raises ValueError unless these are images the model can take."""
        check_images(tuple(pixel_values.shape), self.num_channels, self.image_size, self.patch_size, any_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """`(batch, patches, hidden)` of `(batch, channels, height, width)`."""
        return self.projection(pixel_values).flatten(2).transpose(1, 2)


class ViTEmbeddings(nn.Module):
    """Patches after a class token, with their positions. Patches may be masked: replaced by one learned vector."""

    def __init__(self, config: ViTConfig, use_mask_token: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.hidden_size)) if use_mask_token else None
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(
            torch.empty(1, 1 + self.patch_embeddings.num_patches, config.hidden_size)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None, interpolate_pos_encoding: bool = False
    ) -> Tensor:
        """`(batch, 1 + patches, hidden)` of images, with the patches masked where `(batch, patches)` is true."""
        self.patch_embeddings.check(pixel_values, interpolate_pos_encoding)
        states = self.patch_embeddings(pixel_values.to(self.patch_embeddings.projection.weight.dtype))
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError("bool_masked_pos needs a model with a mask token: ViTModel(…, use_mask_token=True)")
            states = torch.where(bool_masked_pos.bool()[..., None], self.mask_token, states)
        states = torch.cat((self.cls_token.expand(states.shape[0], -1, -1), states), 1)
        height, width = pixel_values.shape[2:]
        return self.dropout(states + self.positions_of(height, width))

    def positions_of(self, height: int, width: int) -> Tensor:
        """Position embeddings `(1, 1 + patches, hidden)` of images of another size: those of the patches, resampled."""
        own = self.patch_embeddings.grid_of(*self.patch_embeddings.image_size)
        grid = self.patch_embeddings.grid_of(height, width)
        if grid == own:
            return self.position_embeddings
        first, patches = self.position_embeddings.split((1, own[0] * own[1]), 1)
        table = patches.transpose(1, 2).unflatten(2, own)
        # Bicubic weights need more digits than half precision has.
        wide = table.to(torch.promote_types(table.dtype, torch.float32))
        resampled = F.interpolate(wide, size=grid, mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat((first, resampled.flatten(2).transpose(1, 2)), 1)


class ViTSelfAttention(nn.Module):
    """Attention of every patch to every patch."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.pruned_heads: set[int] = set()
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(
        self, hidden_states: Tensor, head_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, heads * head_dim)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.query(hidden_states), self.head_dim),
            split_heads(self.key(hidden_states), self.head_dim),
            split_heads(self.value(hidden_states), self.head_dim),
            scale=self.head_dim**-0.5,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            need_weights=need_weights,
            head_mask=head_mask,
        )
        return merge_heads(out), weights


class ViTOutput(nn.Module):
    """Projection of what a part of the block computed."""

    def __init__(self, config: ViTConfig, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq, size)`."""
        return self.dropout(self.dense(hidden_states))


class ViTAttention(nn.Module):
    """Attention and its projection."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attention = ViTSelfAttention(config)
        self.output = ViTOutput(config, config.hidden_size)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `ViTSelfAttention.forward` has them."""
        attended, weights = self.attention(hidden_states, **inputs)
        return self.output(attended), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        own = self.attention
        prune_linears(own, heads, (own.query, own.key, own.value), self.output.dense)


class ViTIntermediate(nn.Module):
    """First half of the feed-forward part."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, intermediate)`."""
        return self.intermediate_act_fn(self.dense(hidden_states))


class ViTLayer(nn.Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = ViTAttention(config)
        self.intermediate = ViTIntermediate(config)
        self.output = ViTOutput(config, config.intermediate_size)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `ViTSelfAttention.forward` has them."""
        attended, weights = self.attention(self.layernorm_before(hidden_states), **inputs)
        hidden_states = hidden_states + attended
        return hidden_states + chunked(self.feed_forward, self.config.chunk_size_feed_forward, hidden_states), weights

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`; each patch by itself, so that it can be done in pieces."""
        return self.output(self.intermediate(self.layernorm_after(hidden_states)))


class ViTEncoder(nn.Module):
    """The stack of blocks."""

    gradient_checkpointing = False

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(ViTLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Result of the last block, and what was asked for of the others."""
        states, attentions = [hidden_states], []
        head_masks = masks.split_head_mask(head_mask, len(self.layer))
        for layer, layer_head_mask in zip(self.layer, head_masks, strict=True):
            hidden_states, weights = checkpointed(
                self, layer, hidden_states, head_mask=layer_head_mask, need_weights=output_attentions
            )
            if output_hidden_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            attentions.append(weights)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class ViTPooler(nn.Module):
    """A summary of the image: its class token, projected."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, cast(int, config.pooler_output_size))
        self.activation = activation(config.pooler_act, "pooler_act")

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, pooler_output_size)`."""
        return self.activation(self.dense(hidden_states[:, 0]))


class ViTPreTrainedModel(PreTrainedModel):
    """Base of all ViT models."""

    config: ViTConfig
    config_class = ViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ViTEmbeddings", "ViTLayer"]

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        draw = partial(nn.init.trunc_normal_, std=std) if std else nn.init.zeros_  # torch divides by the former's std
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ViTEmbeddings):
            draw(module.cls_token)
            draw(module.position_embeddings)
            if module.mask_token is not None:
                nn.init.zeros_(module.mask_token)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: two black images of the model's size."""
        return {"pixel_values": torch.zeros(2, self.config.num_channels, *pair_of(self.config, "image_size"))}

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Refuses: an image has no tokens."""
        raise NotImplementedError(f"{type(self).__name__} reads images: it has no token embeddings to resize")

    def get_position_embeddings(self) -> Any:
        """Refuses: places in an image are a grid, which is resampled when an image of another size comes."""
        raise NotImplementedError(
            f"{type(self).__name__} has one position for each patch of image_size, no table that could be cut: pass "
            "interpolate_pos_encoding=True with images of another size"
        )


class ViTModel(ViTPreTrainedModel):
    """The blocks with their embeddings, a last norm and, unless it is left out, the pooler.

    `use_mask_token` adds the vector that `bool_masked_pos` puts in the place of patches.
    """

    def __init__(self, config: ViTConfig, add_pooling_layer: bool = True, use_mask_token: bool = False) -> None:
        super().__init__(config)
        self.embeddings = ViTEmbeddings(config, use_mask_token)
        self.encoder = ViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = ViTPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The projection of patches."""
        return self.embeddings.patch_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the projection of patches."""
        self.embeddings.patch_embeddings = cast(ViTPatchEmbeddings, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            cast(ViTLayer, self.encoder.layer[layer]).attention.prune_heads(heads)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Hidden states `(batch, seq, hidden)`, normalised, and their summary `(batch, pooler_output_size)`.

        Args:
            pixel_values: `(batch, channels, height, width)`.
            bool_masked_pos: `(batch, patches)`, true for patches the model is not to see.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, before the last norm.
            interpolate_pos_encoding: whether images of any size are taken, with positions resampled for them.
            return_dict: `False` for a plain tuple.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        config = self.config
        outputs = self.encoder(
            self.embeddings(pixel_values, bool_masked_pos, bool(interpolate_pos_encoding)),
            head_mask,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        states = self.layernorm(outputs.last_hidden_state)
        output = BaseModelOutputWithPooling(
            last_hidden_state=states,
            pooler_output=None if self.pooler is None else self.pooler(states),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()
