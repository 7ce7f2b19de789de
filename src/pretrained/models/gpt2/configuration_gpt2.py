"""The fields of a GPT-2 config."""

from __future__ import annotations

from typing import ClassVar

from ...configuration import PretrainedConfig

__all__ = ["GPT2Config"]


class GPT2Config(PretrainedConfig):
    """What a GPT-2 model is; the defaults are those of the smallest one published.

    Attributes:
        n_inner: width of the feed-forward part; `None` means `4 * n_embd`.
        scale_attn_weights: whether scores are divided by the square root of a head's size.
        scale_attn_by_inverse_layer_idx: whether those of layer i are divided by i + 1 as well.
        reorder_and_upcast_attn: whether attention is computed in float32 whatever the model's dtype.
        summary_type: which state the choice head of GPT2DoubleHeadsModel looks at: "cls_index" (the caller says),
            "last", "first" or "mean".
        summary_use_proj: whether that head projects it; `summary_proj_to_labels`: onto the labels, not `n_embd`.
        summary_activation: name of the activation after that.
        summary_first_dropout, summary_last_dropout: dropout before and after.
        classifier_dropout, hidden_dropout: dropout before the token classifier; the first that is set, or 0.1.
    """

    model_type = "gpt2"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    positive: ClassVar[tuple[str, ...]] = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner")

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    summary_last_dropout: float = 0.0
    classifier_dropout: float | None = None
    hidden_dropout: float | None = None
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 50256
    eos_token_id: int | list | None = 50256
