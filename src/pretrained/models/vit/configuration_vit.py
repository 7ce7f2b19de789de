"""The fields of a ViT config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig

__all__ = ["ViTConfig"]


class ViTConfig(PretrainedConfig):
    """What a ViT model is; the defaults are those of vit-base-patch16-224.

    Attributes:
        image_size: height and width in pixels, as one number or as a pair.
        patch_size: the same of a patch.
        encoder_stride: pixels a side that the head for masked images makes of a patch.
        pooler_output_size: width of the pooler; `None` means `hidden_size`.
    """

    model_type = "vit"
    positive: ClassVar[tuple[str, ...]] = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "image_size",
        "patch_size",
        "num_channels",
        "encoder_stride",
        "pooler_output_size",
    )

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    image_size: int | list[int] = 224
    patch_size: int | list[int] = 16
    num_channels: int = 3
    qkv_bias: bool = True
    encoder_stride: int = 16
    pooler_output_size: int | None = None
    pooler_act: str = "tanh"

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        if self.pooler_output_size is None:
            self.pooler_output_size = self.hidden_size
