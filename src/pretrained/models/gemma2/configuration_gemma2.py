"""The fields of a Gemma 2 config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["Gemma2Config"]


class Gemma2Config(PretrainedConfig):
    """What a Gemma 2 model is; the defaults are those of Gemma 2 2B.

    Attributes:
        num_key_value_heads: heads of the keys and values.
        head_dim: size of a head, whatever the hidden size is.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        query_pre_attn_scalar: scores are divided by the root of it.
        sliding_window: how many tokens one sees in a sliding layer, itself included.
        layer_types: "full_attention" or "sliding_attention" for each layer; `None`: in turn, sliding first.
        final_logit_softcapping: logits stay within this, either side of 0; `None`: they are not capped.
        attn_logit_softcapping: the same for the scores of attention.
        use_bidirectional_attention: whether tokens see later ones too; not supported.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "gemma2"
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
        "query_pre_attn_scalar",
        "sliding_window",
        "final_logit_softcapping",
        "attn_logit_softcapping",
    )

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    hidden_activation: str = "gelu_pytorch_tanh"
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
    attention_dropout: float | None = 0.0
    query_pre_attn_scalar: float = 256
    sliding_window: int | None = 4096
    layer_types: list | None = None
    final_logit_softcapping: float | None = 30.0
    attn_logit_softcapping: float | None = 50.0
    use_bidirectional_attention: bool | None = None
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        adopt_rope_parameters(self)
