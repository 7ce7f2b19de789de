"""The fields of a Gemma config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["GemmaConfig"]


class GemmaConfig(PretrainedConfig):
    """What a Gemma model is; the defaults are those of Gemma 7B.

    Attributes:
        num_key_value_heads: heads of the keys and values.
        head_dim: size of a head, whatever the hidden size is.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        hidden_act: the activation; "gelu" means its tanh form.
        use_bidirectional_attention: whether tokens see later ones too; not supported.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "gemma"
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
    )

    vocab_size: int = 256000
    hidden_size: int = 3072
    intermediate_size: int = 24576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list | None = 1
    bos_token_id: int | None = 2
    tie_word_embeddings: bool = True
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    use_bidirectional_attention: bool | None = None
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        adopt_rope_parameters(self)
