"""The fields of a Qwen3-MoE config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from .._rope import adopt_rope_parameters

__all__ = ["Qwen3MoeConfig"]


class Qwen3MoeConfig(PretrainedConfig):
    """What a Qwen3-MoE model is; the defaults are those of Qwen3Moe 7B.

    Attributes:
        num_key_value_heads: heads of the keys and values; `None` means as many as queries have.
        head_dim: size of a head; `None` means `hidden_size // num_attention_heads`.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are stretched, as releases 4.x write it.
        rope_parameters: both of these, as releases 5.x write it.
        use_sliding_window: whether tokens see the nearest ones only.
        sliding_window: how many these are, itself included.
        intermediate_size: width of the feed-forward half of layers without experts.
        moe_intermediate_size: width of an expert.
        num_experts: experts of a layer; `num_local_experts` is the same.
        num_experts_per_tok: how many of them a token is given to.
        norm_topk_prob: whether the weights of those sum to 1.
        decoder_sparse_step: every so many layers one has experts.
        mlp_only_layers: layers that have none all the same.
        output_router_logits: whether to return the logits of routers and the loss that keeps their choices even.
        router_aux_loss_coef: the share of that loss in the loss.
        classifier_dropout: dropout before token logits; `None` means 0.1.
    """

    model_type = "qwen3_moe"
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
        "decoder_sparse_step",
        "moe_intermediate_size",
        "num_experts",
        "num_experts_per_tok",
    )
    attribute_map: ClassVar[dict[str, str]] = {"num_local_experts": "num_experts"}

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 4
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
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    attention_dropout: float = 0.0
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 768
    num_experts_per_tok: int = 8
    num_experts: int = 128
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    mlp_only_layers: list | None = None
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
