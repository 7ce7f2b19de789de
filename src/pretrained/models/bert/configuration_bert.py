"""The fields of a BERT config."""

from __future__ import annotations

from typing import ClassVar

from ...configuration import PretrainedConfig

__all__ = ["BertConfig"]


class BertConfig(PretrainedConfig):
    """What a BERT model is; the defaults are those of bert-base-uncased.

    Attributes:
        classifier_dropout: dropout before a classification head; `None` means `hidden_dropout_prob`.
        position_embedding_type: "absolute", or "relative_key" or "relative_key_query" (arXiv 1803.02155, 2009.13658).
    """

    model_type = "bert"
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    )

    vocab_size: int = 30522
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
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None
