"""The fields of a Mixtral config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["MixtralConfig"]


class MixtralConfig(PretrainedConfig):
    """What a Mixtral model is; the defaults are those of Mixtral 8x7B.

    Attributes:
        num_key_value_heads: heads of the keys and values; `None` means as many as queries have.
        head_dim: size of a head; `None` means `hidden_size // num_attention_heads`.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        sliding_window: how many tokens one sees, itself included; `None`: all before it.
        num_local_experts: experts of each layer; `num_experts` is the same.
        num_experts_per_tok: how many of them a token is given to.
        output_router_logits: whether to return the logits of routers and the loss that keeps their choices even.
        router_aux_loss_coef: the share of that loss in the loss.
        router_jitter_noise: in training a token is multiplied by numbers so far from 1 at most.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "mixtral"
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
        "num_local_experts",
        "num_experts_per_tok",
    )
    attribute_map: ClassVar[dict[str, str]] = {"num_experts": "num_local_experts"}

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
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list | None = 2
    tie_word_embeddings: bool = False
    rope_theta: float = 1000000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    sliding_window: int | None = None
    attention_dropout: float = 0.0
    num_experts_per_tok: int = 2
    num_local_experts: int = 8
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    router_jitter_noise: float = 0.0
    classifier_dropout: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        super().__post_init__(**kwargs)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        adopt_rope_parameters(self)
