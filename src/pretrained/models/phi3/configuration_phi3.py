"""The fields of a Phi-3 config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["Phi3Config"]


class Phi3Config(PretrainedConfig):
    """What a Phi-3 model is; the defaults are those of Phi3 7B.

    Attributes:
        num_key_value_heads: heads of the keys and values; `None` means as many as queries have.
        head_dim: size of a head; `None` means `hidden_size // num_attention_heads`.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it; of this family "yarn" and "su" are old names of
            "longrope".
        rope_parameters: both of these, as releases 5.x write it.
        partial_rotary_factor: the share of a head's channels that turn; `None` means all.
        original_max_position_embeddings: the length that the model was trained with before it was stretched; from
            there on longrope has other frequencies.
        resid_pdrop: dropout of what a half of a block adds.
        sliding_window: how many tokens one sees, itself included; `None`: all before it.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "phi3"
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
        "original_max_position_embeddings",
        "sliding_window",
    )

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    attention_dropout: float = 0.0
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    partial_rotary_factor: float | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list | None = 32000
    pad_token_id: int | None = 32000
    sliding_window: int | None = None
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        adopt_rope_parameters(self)
