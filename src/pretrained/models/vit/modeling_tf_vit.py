"""ViT (arXiv 2010.11929) in TensorFlow: an image as a sequence of patches through an encoder.

Heads are in modeling_tf_vit_heads. Modules and parameters have the names and layouts of torch's checkpoints. Shapes
have the axes batch, seq, hidden, where seq is one class token and then the patches, row by row.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf.attention import attend, merge_heads, split_heads
from ...tf.blocks import Widening, run_blocks
from ...tf.kinds import ZEROS, Init, TruncatedNormal
from ...tf.layers import (
    Conv,
    LayerNorm,
    Linear,
    Module,
    activation,
    chunked,
    dropout,
    folded,
    parameter,
    shape_of,
    value,
)
from ...tf.modeling import TFPreTrainedModel
from ...tf.outputs import TFBaseModelOutputWithPooling
from ...tf.resampling import bicubic
from .configuration_vit import ViTConfig
from .images import check_images, patch_grid

__all__ = [
    "TFViTModel",
    "TFViTModule",
    "TFViTPreTrainedModel",
    "initial",
]

Tensor: TypeAlias = tf.Tensor


def initial(config: ModuleConfig) -> Init:
    """How weights are drawn."""
    return TruncatedNormal(config.initializer_range) if config.initializer_range else ZEROS


class TFViTPatchEmbeddings(Module):
    """Each patch of pixels, projected: a convolution whose windows lie side by side."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size, self.patch_size, self.num_patches = patch_grid(config)
        channels = (config.num_channels, config.hidden_size)
        self.projection = Conv(channels, self.patch_size, self.patch_size, init=initial(config))

    def grid_of(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Rows and columns of whole patches in an image of that many pixels."""
        return height // self.patch_size[0], width // self.patch_size[1]

    def checked(self, pixel_values: Tensor, any_size: bool) -> Tensor:
        """The images, of a shape that is known as far as the model tells it.

        Raises:
            ValueError: these are no images that the model can take.
        """
        if len(pixel_values.shape) == 4:
            sizes = (None, None) if any_size else self.image_size
            wanted = (None, self.config.num_channels, *sizes)
            shape = [own if size is None else size for size, own in zip(pixel_values.shape, wanted, strict=True)]
            if None not in shape[2:]:
                check_images(tuple(shape), self.config.num_channels, self.image_size, self.patch_size, any_size)
            return tf.ensure_shape(pixel_values, shape)
        check_images(tuple(pixel_values.shape), self.config.num_channels, self.image_size, self.patch_size, any_size)
        return pixel_values

    def call(self, pixel_values: Tensor) -> Tensor:
        """`(batch, patches, hidden)` of `(batch, channels, height, width)`."""
        dtype = self.config.compute_dtype or self.projection.weight.dtype
        patches = self.projection(tf.transpose(tf.cast(pixel_values, dtype), (0, 2, 3, 1)))
        batch, rows, columns, size = shape_of(patches)
        return tf.reshape(patches, (batch, rows * columns, size))


class TFViTEmbeddings(Module):
    """Patches after a class token, with their positions. Patches may be masked: replaced by one learned vector."""

    def __init__(self, config: ModuleConfig, use_mask_token: bool = False) -> None:
        super().__init__()
        self.config, size = config, config.hidden_size
        self.cls_token = parameter((1, 1, size), initial(config))
        self.mask_token = parameter((1, 1, size), ZEROS) if use_mask_token else None
        self.patch_embeddings = TFViTPatchEmbeddings(config)
        self.position_embeddings = parameter((1, 1 + self.patch_embeddings.num_patches, size), initial(config))

    def call(self, pixel_values: Tensor, bool_masked_pos: Tensor | None, rng: Tensor | None = None) -> Tensor:
        """`(batch, 1 + patches, hidden)` of images, with the patches masked where `(batch, patches)` is true."""
        states = self.patch_embeddings(pixel_values)
        dtype = states.dtype
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError("bool_masked_pos needs a model with a mask token: TFViTModel(…, use_mask_token=True)")
            states = tf.where(tf.cast(bool_masked_pos, tf.bool)[..., None], value(self.mask_token, dtype), states)
        batch, _, size = shape_of(states)
        first = tf.broadcast_to(value(self.cls_token, dtype), (batch, 1, size))
        positions = tf.cast(self.positions_of(*shape_of(pixel_values)[2:]), dtype)
        return dropout(tf.concat((first, states), 1) + positions, self.config.hidden_dropout_prob, rng)

    def positions_of(self, height: Any, width: Any) -> Tensor:
        """Position embeddings `(1, 1 + patches, hidden)` of images of another size: those of the patches, resampled."""
        table = value(self.position_embeddings)
        own = self.patch_embeddings.grid_of(*self.patch_embeddings.image_size)
        grid = self.patch_embeddings.grid_of(height, width)
        if all(isinstance(size, int) for size in grid) and grid == own:
            return table
        size = table.shape[-1]
        patches = tf.cast(bicubic(tf.reshape(table[0, 1:], (*own, size)), grid), table.dtype)
        return tf.concat((table[:, :1], tf.reshape(patches, (1, grid[0] * grid[1], size))), 1)


class TFViTSelfAttention(Module):
    """Attention of every patch to every patch."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        size, bias, init = self.head_dim * config.num_heads(layer_idx), config.qkv_bias, initial(config)
        self.query = Linear(config.hidden_size, size, bias, init=init)
        self.key = Linear(config.hidden_size, size, bias, init=init)
        self.value = Linear(config.hidden_size, size, bias, init=init)

    def call(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
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


class TFViTOutput(Module):
    """Projection of what a part of the block computed."""

    def __init__(self, config: ModuleConfig, size: int) -> None:
        super().__init__()
        self.dense = Linear(size, config.hidden_size, init=initial(config))
        self.rate = config.hidden_dropout_prob

    def call(self, hidden_states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq, size)`."""
        return dropout(self.dense(hidden_states), self.rate, rng)


class TFViTAttention(Module):
    """Attention and its projection."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention = TFViTSelfAttention(config, layer_idx)
        self.output = TFViTOutput(config, self.attention.head_dim * config.num_heads(layer_idx))

    def call(self, hidden_states: Tensor, rng: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `TFViTSelfAttention` has them."""
        attended, weights = self.attention(hidden_states, rng=folded(rng, 0), **inputs)
        return self.output(attended, folded(rng, 1)), weights


class TFViTLayer(Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        size, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.attention = TFViTAttention(config, layer_idx)
        self.intermediate = Widening(size, wide, config.hidden_act, initial(config))
        self.output = TFViTOutput(config, wide)
        self.layernorm_before = LayerNorm(size, eps)
        self.layernorm_after = LayerNorm(size, eps)

    def call(self, hidden_states: Tensor, rng: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `TFViTSelfAttention` has them."""
        attended, weights = self.attention(self.layernorm_before(hidden_states), folded(rng, 0), **inputs)
        hidden_states = hidden_states + attended
        size = self.config.chunk_size_feed_forward if rng is None else 0
        made = chunked(lambda x: self._feed_forward(x, folded(rng, 1)), size, hidden_states)
        return hidden_states + made, weights

    def _feed_forward(self, hidden_states: Tensor, rng: Tensor | None) -> Tensor:
        return self.output(self.intermediate(self.layernorm_after(hidden_states)), rng)


class TFViTEncoder(Module):
    """The stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.layer = [TFViTLayer(config, index) for index in range(config.num_hidden_layers)]


class TFViTPooler(Module):
    """A summary of the image: its class token, projected."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.pooler_output_size, init=initial(config))
        self.act = activation(config.pooler_act, "pooler_act")

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, pooler_output_size)`."""
        return self.act(self.dense(hidden_states[:, 0]))


class TFViTModule(Module):
    """The blocks with their embeddings, a last norm and, unless it is left out, the pooler.

    `use_mask_token` adds the vector that `bool_masked_pos` puts in the place of patches.
    """

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True, use_mask_token: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TFViTEmbeddings(config, use_mask_token)
        self.encoder = TFViTEncoder(config)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler = TFViTPooler(config) if add_pooling_layer else None

    def call(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutputWithPooling:
        """Hidden states `(batch, 1 + patches, hidden)` and their summary `(batch, pooler_output_size)`.

        Args:
            pixel_values: `(batch, channels, height, width)`, normalised as the model was trained.
            bool_masked_pos: `(batch, patches)`, true for patches to hide.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the embeddings and the results of all layers, before the last norm.
            interpolate_pos_encoding: whether images of any size are taken, with positions resampled for them.
            rng: a seed for dropout.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        pixel_values = self.embeddings.patch_embeddings.checked(pixel_values, interpolate_pos_encoding)
        passed = run_blocks(
            self.config,
            self.encoder.layer,
            self.embeddings(pixel_values, bool_masked_pos, folded(rng, 0)),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            head_mask=head_mask,
            rng=folded(rng, 1),
        )
        states = self.layernorm(passed.last)
        return TFBaseModelOutputWithPooling(
            last_hidden_state=states,
            pooler_output=None if self.pooler is None else self.pooler(states),
            hidden_states=passed.states,
            attentions=passed.attentions,
        )


class TFViTPreTrainedModel(TFPreTrainedModel):
    """Base of all ViT models in TensorFlow."""

    config: ViTConfig
    config_class = ViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"


class TFViTModel(TFViTPreTrainedModel):
    """ViT without a head."""

    module_class = TFViTModule
