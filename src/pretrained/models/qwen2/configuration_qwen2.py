"""The fields of a Qwen2 config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["Qwen2Config"]


class Qwen2Config(PretrainedConfig):
    """What a Qwen2 or Qwen2.5 model is; the defaults are those of the reference.

    Attributes:
        num_key_value_heads: heads of the keys and values; `None` means as many as queries have.
        head_dim: size of a head; `None` means `hidden_size // num_attention_heads`.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        use_sliding_window: whether any layer sees the nearest tokens only.
        sliding_window: how many these are, its own included.
        max_window_layers: the first layer that has the window.
        layer_types: "full_attention" or "sliding_attention" for each layer; `None` means as the three above say.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "qwen2"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "sliding_window",
    )

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list | None = None
    attention_dropout: float = 0.0
    classifier_dropout: float | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        adopt_rope_parameters(self)
