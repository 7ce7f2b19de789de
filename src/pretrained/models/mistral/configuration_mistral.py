"""The fields of a Mistral config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["MistralConfig"]


class MistralConfig(PretrainedConfig):
    """What a Mistral model is; the defaults are those of Mistral 7B.

    Attributes:
        num_key_value_heads: heads of the keys and values; `None` means as many as queries have.
        head_dim: size of a head; `None` means `hidden_size // num_attention_heads`.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        sliding_window: how many tokens one sees, itself included; `None`: all before it.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "mistral"
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

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list | None = 2
    tie_word_embeddings: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    sliding_window: int | None = 4096
    attention_dropout: float = 0.0
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        adopt_rope_parameters(self)
