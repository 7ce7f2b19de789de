"""ViT (arXiv 2010.11929) in JAX: an image as a sequence of patches through an encoder, and its heads.

Modules and parameters have the names and layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden, where
seq is one class token and then the patches, row by row.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...errors import ConfigError
from ...flax.attention import attend, merge_heads, split_heads
from ...flax.blocks import Widening, run_blocks
from ...flax.kinds import ZEROS, Init, TruncatedNormal
from ...flax.layers import Conv, LayerNorm, Linear, Module, Modules, activation, chunked, dropout, folded, parameter
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from ...flax.outputs import (
    FlaxBaseModelOutputWithPooling,
    FlaxImageClassifierOutput,
    FlaxMaskedImageModelingOutput,
)
from ...flax.resampling import bicubic
from .configuration_vit import ViTConfig
from .images import check_images, patch_grid

__all__ = [
    "FlaxViTForImageClassification",
    "FlaxViTForMaskedImageModeling",
    "FlaxViTModel",
    "FlaxViTModule",
    "FlaxViTPreTrainedModel",
]

Array = jax.Array


def _init(config: ModuleConfig) -> Init:
    return TruncatedNormal(config.initializer_range) if config.initializer_range else ZEROS


class FlaxViTPatchEmbeddings(Module):
    """Each patch of pixels, projected: a convolution whose windows lie side by side."""

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.image_size, self.patch_size, self.num_patches = patch_grid(config)
        channels = (config.num_channels, config.hidden_size)
        self.projection = Conv(channels, self.patch_size, self.patch_size, init=_init(config))

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole patches in an image of that many pixels."""
        return height // self.patch_size[0], width // self.patch_size[1]

    def check(self, shape: tuple[int, ...], any_size: bool) -> None:
        """Raises ValueError unless these are images the model can take."""
        check_images(shape, self.config.num_channels, self.image_size, self.patch_size, any_size)

    def __call__(self, pixel_values: Array) -> Array:
        """`(batch, patches, hidden)` of `(batch, channels, height, width)`."""
        dtype = self.config.compute_dtype or self.projection.weight[...].dtype
        patches = self.projection(pixel_values.astype(dtype).transpose(0, 2, 3, 1))
        return patches.reshape(patches.shape[0], -1, patches.shape[-1])


class FlaxViTEmbeddings(Module):
    """Patches after a class token, with their positions. Patches may be masked: replaced by one learned vector."""

    def __init__(self, config: ModuleConfig, use_mask_token: bool = False) -> None:
        self.config, size = config, config.hidden_size
        self.cls_token = parameter((1, 1, size), _init(config))
        self.mask_token = parameter((1, 1, size), ZEROS) if use_mask_token else None
        self.patch_embeddings = FlaxViTPatchEmbeddings(config)
        self.position_embeddings = parameter((1, 1 + self.patch_embeddings.num_patches, size), _init(config))

    def __call__(
        self, pixel_values: Array, bool_masked_pos: Array | None, any_size: bool, rng: Array | None = None
    ) -> Array:
        """`(batch, 1 + patches, hidden)` of images, with the patches masked where `(batch, patches)` is true."""
        self.patch_embeddings.check(pixel_values.shape, any_size)
        states = self.patch_embeddings(pixel_values)
        dtype = states.dtype
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError(
                    "bool_masked_pos needs a model with a mask token: FlaxViTModel(…, use_mask_token=True)"
                )
            states = jnp.where((bool_masked_pos != 0)[..., None], self.mask_token[...].astype(dtype), states)
        first = jnp.broadcast_to(self.cls_token[...].astype(dtype), (states.shape[0], 1, states.shape[2]))
        positions = self.positions_of(*pixel_values.shape[2:]).astype(dtype)
        states = jnp.concatenate((first, states), 1) + positions
        return dropout(states, self.config.hidden_dropout_prob, rng)

    def positions_of(self, height: int, width: int) -> Array:
        """Position embeddings `(1, 1 + patches, hidden)` of images of another size: those of the patches, resampled."""
        table: Array = self.position_embeddings[...]
        own = self.patch_embeddings.grid_of(*self.patch_embeddings.image_size)
        grid = self.patch_embeddings.grid_of(height, width)
        if grid == own:
            return table
        patches = bicubic(table[0, 1:].reshape(*own, -1), grid).astype(table.dtype)
        return jnp.concatenate((table[:, :1], patches.reshape(1, grid[0] * grid[1], -1)), 1)


class FlaxViTSelfAttention(Module):
    """Attention of every patch to every patch."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        size, bias, init = self.head_dim * config.num_heads(layer_idx), config.qkv_bias, _init(config)
        self.query = Linear(config.hidden_size, size, bias, init=init)
        self.key = Linear(config.hidden_size, size, bias, init=init)
        self.value = Linear(config.hidden_size, size, bias, init=init)

    def __call__(
        self,
        hidden_states: Array,
        head_mask: Array | None = None,
        need_weights: bool = False,
        rng: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """`(batch, seq, heads * head_dim)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.query(hidden_states), self.head_dim),
            split_heads(self.key(hidden_states), self.head_dim),
            split_heads(self.value(hidden_states), self.head_dim),
            scale=self.head_dim**-0.5,
            rate=self.config.attention_probs_dropout_prob,
            rng=rng,
            head_mask=head_mask,
            need_weights=need_weights,
        )
        return merge_heads(out), weights


class FlaxViTOutput(Module):
    """Projection of what a part of the block computed."""

    def __init__(self, config: ModuleConfig, size: int) -> None:
        self.dense = Linear(size, config.hidden_size, init=_init(config))
        self.rate = config.hidden_dropout_prob

    def __call__(self, hidden_states: Array, rng: Array | None = None) -> Array:
        """`(batch, seq, hidden)` of `(batch, seq, size)`."""
        return dropout(self.dense(hidden_states), self.rate, rng)


class FlaxViTAttention(Module):
    """Attention and its projection."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        self.attention = FlaxViTSelfAttention(config, layer_idx)
        self.output = FlaxViTOutput(config, self.attention.head_dim * config.num_heads(layer_idx))

    def __call__(self, hidden_states: Array, rng: Array | None = None, **inputs: Any) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `FlaxViTSelfAttention` has them."""
        attended, weights = self.attention(hidden_states, rng=folded(rng, 0), **inputs)
        return self.output(attended, folded(rng, 1)), weights


class FlaxViTLayer(Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        self.config = config
        size, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.attention = FlaxViTAttention(config, layer_idx)
        self.intermediate = Widening(size, wide, config.hidden_act, _init(config))
        self.output = FlaxViTOutput(config, wide)
        self.layernorm_before = LayerNorm(size, eps)
        self.layernorm_after = LayerNorm(size, eps)

    def __call__(self, hidden_states: Array, rng: Array | None = None, **inputs: Any) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `FlaxViTSelfAttention` has them."""
        attended, weights = self.attention(self.layernorm_before(hidden_states), folded(rng, 0), **inputs)
        hidden_states = hidden_states + attended
        size = self.config.chunk_size_feed_forward if rng is None else 0
        made = chunked(lambda x: self._feed_forward(x, folded(rng, 1)), size, hidden_states)
        return hidden_states + made, weights

    def _feed_forward(self, hidden_states: Array, rng: Array | None) -> Array:
        return self.output(self.intermediate(self.layernorm_after(hidden_states)), rng)


class FlaxViTEncoder(Module):
    """The stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        self.layer = Modules([FlaxViTLayer(config, index) for index in range(config.num_hidden_layers)])


class FlaxViTPooler(Module):
    """A summary of the image: its class token, projected."""

    def __init__(self, config: ModuleConfig) -> None:
        self.dense = Linear(config.hidden_size, config.pooler_output_size, init=_init(config))
        self.act = activation(config.pooler_act, "pooler_act")

    def __call__(self, hidden_states: Array) -> Array:
        """`(batch, pooler_output_size)`."""
        return self.act(self.dense(hidden_states[:, 0]))


class FlaxViTModule(Module):
    """The blocks with their embeddings, a last norm and, unless it is left out, the pooler.

    `use_mask_token` adds the vector that `bool_masked_pos` puts in the place of patches.
    """

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True, use_mask_token: bool = False) -> None:
        self.config = config
        self.embeddings = FlaxViTEmbeddings(config, use_mask_token)
        self.encoder = FlaxViTEncoder(config)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = FlaxViTPooler(config) if add_pooling_layer else None

    def __call__(
        self,
        pixel_values: Array | None = None,
        bool_masked_pos: Array | None = None,
        head_mask: Array | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        rng: Array | None = None,
    ) -> FlaxBaseModelOutputWithPooling:
        """Hidden states `(batch, 1 + patches, hidden)` and their summary `(batch, pooler_output_size)`.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalised as the model was trained.
            bool_masked_pos: `(batch, patches)`, true for patches to hide.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the embeddings and the results of all layers, before the last norm.
            interpolate_pos_encoding: whether images of any size are taken, with positions resampled for them.
            rng: a key for dropout.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        passed = run_blocks(
            self.config,
            self.encoder.layer,
            self.embeddings(pixel_values, bool_masked_pos, interpolate_pos_encoding, folded(rng, 0)),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            head_mask=head_mask,
            rng=folded(rng, 1),
        )
        states = self.layernorm(passed.last)
        return FlaxBaseModelOutputWithPooling(
            last_hidden_state=states,
            pooler_output=None if self.pooler is None else self.pooler(states),
            hidden_states=passed.states,
            attentions=passed.attentions,
        )


class FlaxViTForImageClassificationModule(Module):
    """ViT with logits, or numbers, for the image, from its class token."""

    inputs_like = FlaxViTModule

    def __init__(self, config: ModuleConfig) -> None:
        self.vit = FlaxViTModule(config, add_pooling_layer=False)
        num_labels = config.num_labels
        self.classifier = Linear(config.hidden_size, num_labels, init=_init(config)) if num_labels else None

    def __call__(self, pixel_values: Array | None = None, **inputs: Any) -> FlaxImageClassifierOutput:
        """Logits `(batch, labels)`."""
        outputs = self.vit(pixel_values, **inputs)
        first = outputs.last_hidden_state[:, 0]
        return FlaxImageClassifierOutput(
            logits=first if self.classifier is None else self.classifier(first),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class FlaxViTForMaskedImageModelingModule(Module):
    """ViT that fills in masked patches (SimMIM, arXiv 2111.09886)."""

    inputs_like = FlaxViTModule

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.vit = FlaxViTModule(config, add_pooling_layer=False, use_mask_token=True)
        channels = (config.hidden_size, config.encoder_stride**2 * config.num_channels)
        self.decoder = Modules([Conv(channels, (1, 1), init=_init(config))])

    def __call__(
        self, pixel_values: Array | None = None, bool_masked_pos: Array | None = None, **inputs: Any
    ) -> FlaxMaskedImageModelingOutput:
        """The image `(batch, channels, rows * stride, columns * stride)`.

        `bool_masked_pos` needs patches of `encoder_stride` pixels a side, so that both images have one size.
        """
        stride, patch = self.config.encoder_stride, self.vit.embeddings.patch_embeddings.patch_size
        if bool_masked_pos is not None and patch != (stride, stride):
            sizes = f"patch_size={self.config.patch_size}, encoder_stride={stride}"
            raise ValueError(f"bool_masked_pos needs patches as large as what is made of them: {sizes}")
        outputs = self.vit(pixel_values, bool_masked_pos, **inputs)
        assert pixel_values is not None
        rows, columns = self.vit.embeddings.patch_embeddings.grid_of(*pixel_values.shape[2:])
        states = outputs.last_hidden_state[:, 1:]
        made = self.decoder[0](states.reshape(len(states), rows, columns, -1))
        made = made.reshape(len(states), rows, columns, -1, stride, stride).transpose(0, 3, 1, 4, 2, 5)
        return FlaxMaskedImageModelingOutput(
            reconstruction=made.reshape(len(states), -1, rows * stride, columns * stride),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class FlaxViTPreTrainedModel(FlaxPreTrainedModel):
    """Base of all ViT models in JAX."""

    config: ViTConfig
    config_class = ViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    _sharding_rules = {
        r"(query|key|value|intermediate\.dense)\.weight": ("model", None),
        r"(query|key|value|intermediate\.dense)\.bias": ("model",),
        r"(attention\.output|layer\.\d+\.output)\.dense\.weight": (None, "model"),
    }


class FlaxViTModel(FlaxViTPreTrainedModel):
    """ViT without a head."""

    module_class = FlaxViTModule


class FlaxViTForImageClassification(FlaxViTPreTrainedModel):
    """ViT with logits, or numbers, for the image, from its class token."""

    module_class = FlaxViTForImageClassificationModule


class FlaxViTForMaskedImageModeling(FlaxViTPreTrainedModel):
    """ViT that fills in masked patches."""

    module_class = FlaxViTForMaskedImageModelingModule
