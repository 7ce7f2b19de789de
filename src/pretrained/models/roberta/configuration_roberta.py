"""The fields of a RoBERTa config."""

from __future__ import annotations

from typing import ClassVar

from ...configuration import PretrainedConfig

__all__ = ["RobertaConfig", "XLMRobertaConfig"]


class RobertaConfig(PretrainedConfig):
    """What a RoBERTa model is; the defaults are those of the reference.

    Attributes:
        max_position_embeddings: rows of the position table; the first `pad_token_id + 1` are for no token.
        classifier_dropout: dropout before a classification head; `None` means `hidden_dropout_prob`.
        position_embedding_type: "absolute", or "relative_key" or "relative_key_query" (arXiv 1803.02155, 2009.13658).
    """

    model_type = "roberta"
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    )

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list | None = 2
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None


class XLMRobertaConfig(RobertaConfig):
    """What an XLM-RoBERTa model is: the same fields under another `model_type`."""

    model_type = "xlm-roberta"

    vocab_size: int = 30522
