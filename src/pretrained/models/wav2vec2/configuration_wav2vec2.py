"""The fields of a Wav2Vec2 config."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from ...errors import ConfigError

__all__ = ["Wav2Vec2Config"]


class Wav2Vec2Config(PretrainedConfig):
    """What a Wav2Vec2 model is; the defaults are those of wav2vec2-base-960h.

    Attributes:
        conv_dim: channels of each convolution over the waveform; `conv_kernel` and `conv_stride` are as long.
        feat_extract_norm: "group" normalises after the first convolution, "layer" after each.
        do_stable_layer_norm: whether the blocks normalise first rather than last.
        mask_time_prob: share of the frames that SpecAugment (arXiv 1904.08779) hides in training, at most;
            `mask_feature_prob` is the same for channels.
        add_adapter: whether convolutions after the encoder make the sequence shorter, `output_hidden_size` wide.
        adapter_attn_dim: width of the small layers in each block that one language trains; `None` for none. Only
            blocks with `do_stable_layer_norm` have them.
        num_feat_extract_layers: the length of `conv_dim`.
        output_hidden_size: `None` means `hidden_size`.
    """

    model_type = "wav2vec2"
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "num_conv_pos_embeddings",
        "num_conv_pos_embedding_groups",
        "num_codevectors_per_group",
        "num_codevector_groups",
        "codevector_dim",
        "proj_codevector_dim",
        "classifier_proj_size",
        "xvector_output_dim",
        "adapter_kernel_size",
        "adapter_stride",
        "output_hidden_size",
        "adapter_attn_dim",
    )

    vocab_size: int | None = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    feat_quantizer_dropout: float = 0.0
    final_dropout: float = 0.1
    layerdrop: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: list[int] = [512, 512, 512, 512, 512, 512, 512]
    conv_stride: list[int] = [5, 2, 2, 2, 2, 2, 2]
    conv_kernel: list[int] = [10, 3, 3, 3, 3, 2, 2]
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    num_codevectors_per_group: int = 320
    num_codevector_groups: int = 2
    contrastive_logits_temperature: float = 0.1
    num_negatives: int = 100
    codevector_dim: int = 256
    proj_codevector_dim: int = 256
    diversity_loss_weight: float = 0.1
    ctc_loss_reduction: str = "sum"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 256
    tdnn_dim: list[int] = [512, 512, 512, 512, 1500]
    tdnn_kernel: list[int] = [5, 3, 3, 1, 1]
    tdnn_dilation: list[int] = [1, 2, 3, 1, 1]
    xvector_output_dim: int = 512
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    add_adapter: bool = False
    adapter_kernel_size: int = 3
    adapter_stride: int = 2
    num_adapter_layers: int = 3
    output_hidden_size: int | None = None
    adapter_attn_dim: int | None = None
    num_feat_extract_layers: int = 7

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields, and checks that the lists fit together.

        Raises:
            ConfigError: lists that describe the same layers differ in length, or hold something else than counts.
        """
        super().__post_init__(**kwargs)
        self._check_lists("conv_dim", "conv_kernel", "conv_stride")
        self._check_lists("tdnn_dim", "tdnn_kernel", "tdnn_dilation")
        self.num_feat_extract_layers = len(self.conv_dim)
        if self.output_hidden_size is None:
            self.output_hidden_size = self.hidden_size

    def _check_lists(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if not value or not all(type(item) is int and item > 0 for item in value):
                raise ConfigError(f"{key}={value!r:.80} must be a list of positive numbers", key=key, value=value)
        lengths = [len(getattr(self, key)) for key in keys]
        if len(set(lengths)) > 1:
            found = ", ".join(f"{key} has {length}" for key, length in zip(keys, lengths, strict=True))
            raise ConfigError(f"these have one entry a layer and must be equally long: {found}", key=keys[0])

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples of the waveform for each frame."""
        return math.prod(self.conv_stride)
