"""Wav2Vec2 (arXiv 2006.11477): features of a waveform through an encoder. Heads are in modeling_wav2vec2_heads.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, frames, hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...errors import ConfigError
from ...pt import masks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.heads import prune_linears
from ...pt.layers import activation, init_normal
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutput, Wav2Vec2BaseModelOutput
from ...pt.training import checkpointed, require_output_gradients
from .configuration_wav2vec2 import Wav2Vec2Config
from .frames import dummy_samples, num_frames
from .modeling_wav2vec2_adapters import Wav2Vec2Adapter, Wav2Vec2AttnAdapterLayer
from .modeling_wav2vec2_features import (
    Wav2Vec2FeatureEncoder,
    Wav2Vec2FeatureProjection,
    Wav2Vec2PositionalConvEmbedding,
    is_dropped,
    span_mask,
)

__all__ = ["Wav2Vec2EncoderLayer", "Wav2Vec2Model", "Wav2Vec2PreTrainedModel"]


class Wav2Vec2Attention(nn.Module):
    """Attention of every frame to every frame."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.pruned_heads: set[int] = set()
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, frames, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.q_proj(hidden_states), self.head_dim),
            split_heads(self.k_proj(hidden_states), self.head_dim),
            split_heads(self.v_proj(hidden_states), self.head_dim),
            mask,
            scale=self.head_dim**-0.5,
            dropout=self.config.attention_dropout if self.training else 0.0,
            need_weights=need_weights,
        )
        return self.out_proj(merge_heads(out)), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        prune_linears(self, heads, (self.q_proj, self.k_proj, self.v_proj), self.out_proj)


class Wav2Vec2FeedForward(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config.hidden_act)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        hidden_states = self.intermediate_dropout(self.intermediate_act_fn(self.intermediate_dense(hidden_states)))
        return self.output_dropout(self.output_dense(hidden_states))


class Wav2Vec2EncoderLayer(nn.Module):
    """One block. With `do_stable_layer_norm` each half is normalised first, otherwise last."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.norm_first = config.do_stable_layer_norm
        self.attention = Wav2Vec2Attention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = Wav2Vec2FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        has_adapter = config.adapter_attn_dim is not None and config.do_stable_layer_norm
        self.adapter_layer = Wav2Vec2AttnAdapterLayer(config) if has_adapter else None

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, frames, hidden)` and the weights or `None`; keywords as `Wav2Vec2Attention.forward` has them."""
        if self.norm_first:
            attended, weights = self.attention(self.layer_norm(hidden_states), **inputs)
            hidden_states = hidden_states + self.dropout(attended)
            hidden_states = hidden_states + self.feed_forward(self.final_layer_norm(hidden_states))
        else:
            attended, weights = self.attention(hidden_states, **inputs)
            hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
            hidden_states = self.final_layer_norm(hidden_states + self.feed_forward(hidden_states))
        if self.adapter_layer is not None:
            hidden_states = hidden_states + self.adapter_layer(hidden_states)
        return hidden_states, weights


class Wav2Vec2Encoder(nn.Module):
    """Positions and the stack of blocks."""

    gradient_checkpointing = False

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = Wav2Vec2PositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(Wav2Vec2EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Result of the last block, normalised, and what was asked for of the others.

        `attention_mask` `(batch, frames)` is true where there is sound. In training each block is left out with the
        probability `layerdrop`; its weights are then `None`.
        """
        if attention_mask is not None:  # the convolution looks at padding too
            hidden_states = hidden_states.masked_fill(~attention_mask[..., None], 0)
        mask = masks.bidirectional(attention_mask, hidden_states.dtype)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        norm_first = self.config.do_stable_layer_norm
        hidden_states = self.dropout(hidden_states if norm_first else self.layer_norm(hidden_states))
        states, attentions = [hidden_states], []
        for layer in self.layers:
            weights = None
            if not is_dropped(self.config.layerdrop, self.training):
                hidden_states, weights = checkpointed(
                    self, layer, hidden_states, mask=mask, need_weights=output_attentions
                )
            if output_hidden_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            attentions.append(weights)
        if norm_first:
            hidden_states = self.layer_norm(hidden_states)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=(*states[:-1], hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,  # type: ignore[arg-type]
        )


class Wav2Vec2PreTrainedModel(PreTrainedModel):
    """Base of all Wav2Vec2 models."""

    config: Wav2Vec2Config
    config_class = Wav2Vec2Config
    base_model_prefix = "wav2vec2"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Wav2Vec2FeatureEncoder", "Wav2Vec2PositionalConvEmbedding", "Wav2Vec2EncoderLayer"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)
        if isinstance(module, Wav2Vec2PositionalConvEmbedding):
            module.reset_parameters()
        elif isinstance(module, Wav2Vec2FeatureProjection):
            bound = module.projection.in_features**-0.5
            nn.init.uniform_(module.projection.weight, -bound, bound)
            nn.init.uniform_(module.projection.bias, -bound, bound)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d) and not parametrize.is_parametrized(module):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                bound = math.sqrt(module.groups / (module.in_channels * module.kernel_size[0]))
                nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, Wav2Vec2Model) and module.masked_spec_embed is not None:
            nn.init.uniform_(module.masked_spec_embed)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: two recordings of silence, long enough for every mask and head."""
        return {"input_values": torch.zeros(2, dummy_samples(self.config))}

    def get_input_embeddings(self) -> nn.Module:
        """Refuses: sounds are no tokens."""
        raise NotImplementedError(
            f"{type(self).__name__} reads sound: it has no token embeddings. For a head with other tokens set "
            "config.vocab_size and load with ignore_mismatched_sizes=True"
        )

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Refuses, as `get_input_embeddings` does."""
        self.get_input_embeddings()

    def enable_input_require_grads(self) -> None:
        """Makes what the first block is given require a gradient, for adapters that train on frozen weights."""
        self.disable_input_require_grads()
        projection = cast(Wav2Vec2Model, self.base_model).feature_projection.projection
        self._require_grads_hook = require_output_gradients(projection)

    def freeze_feature_encoder(self) -> None:
        """Takes the convolutions over the waveform out of training."""
        cast(Wav2Vec2Model, self.base_model).feature_extractor.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Takes all but the head out of training."""
        self.base_model.requires_grad_(False)

    def _get_feat_extract_output_lengths(
        self, input_lengths: Tensor | int, add_adapter: bool | None = None
    ) -> Tensor | int:
        """Number of frames of recordings with that many samples; after the adapter, if there is one."""
        frames: Tensor | int = num_frames(self.config, input_lengths, add_adapter)
        return frames

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor, add_adapter: bool | None = None
    ) -> Tensor:
        """`(batch, frames)`, true for frames of sound, from `(batch, samples)` that is 1 for sound, then 0."""
        lengths = self._get_feat_extract_output_lengths(attention_mask.sum(-1), add_adapter)
        places = torch.arange(feature_vector_length, device=attention_mask.device)
        return places < cast(Tensor, lengths)[:, None]


class Wav2Vec2Model(Wav2Vec2PreTrainedModel):
    """The convolutions, the blocks and, if the config says so, the adapter."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.feature_extractor = Wav2Vec2FeatureEncoder(config)
        self.feature_projection = Wav2Vec2FeatureProjection(config)
        # Checkpoints of models that mask nothing do not have it.
        has_mask = config.mask_time_prob > 0 or config.mask_feature_prob > 0
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size)) if has_mask else None
        self.encoder = Wav2Vec2Encoder(config)
        self.adapter = Wav2Vec2Adapter(config) if config.add_adapter else None
        self.post_init()

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            cast(Wav2Vec2EncoderLayer, self.encoder.layers[layer]).attention.prune_heads(heads)

    def _mask_hidden_states(
        self, hidden_states: Tensor, mask_time_indices: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """`(batch, frames, hidden)` with the given frames hidden, and in training random ones and random channels."""
        config = self.config
        if not config.apply_spec_augment:
            return hidden_states
        batch, frames, size = hidden_states.shape
        if mask_time_indices is None and self.training and config.mask_time_prob > 0:
            lengths = [frames] * batch if attention_mask is None else attention_mask.sum(-1).tolist()
            time = (config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks)
            mask_time_indices = span_mask(lengths, frames, *time)
        if mask_time_indices is not None:
            if self.masked_spec_embed is None:
                raise ValueError("mask_time_indices need mask_time_prob or mask_feature_prob above 0 in the config")
            hidden = mask_time_indices.to(hidden_states.device).bool()[..., None]
            hidden_states = torch.where(hidden, self.masked_spec_embed.to(hidden_states.dtype), hidden_states)
        if self.training and config.mask_feature_prob > 0:
            channels = (config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks)
            hidden = span_mask([size] * batch, size, *channels).to(hidden_states.device)
            hidden_states = hidden_states.masked_fill(hidden[:, None], 0)
        return hidden_states

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Wav2Vec2BaseModelOutput | tuple[Any, ...]:
        """Hidden states `(batch, frames, hidden)` and the features `(batch, frames, channels)` they are made of.

        Args:
            input_values: `(batch, samples)`, normalised as the model was trained.
            attention_mask: `(batch, samples)`, 1 for sound and then 0 for padding.
            mask_time_indices: `(batch, frames)`, true for frames to hide; in training random ones by default.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return what enters the first layer and the results of all, the last
                normalised.
            return_dict: `False` for a plain tuple.
        """
        if input_values is None:
            raise ValueError("give input_values")
        config = self.config
        features = self.feature_extractor(input_values).transpose(1, 2)
        if attention_mask is not None:
            attention_mask = self._get_feature_vector_attention_mask(features.shape[1], attention_mask, False)
        hidden_states, features = self.feature_projection(features)
        outputs = self.encoder(
            self._mask_hidden_states(hidden_states, mask_time_indices, attention_mask),
            attention_mask,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        states = outputs.last_hidden_state
        output = Wav2Vec2BaseModelOutput(
            last_hidden_state=states if self.adapter is None else self.adapter(states),
            extract_features=features,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()
