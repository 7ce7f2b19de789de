"""The fields of a DistilBERT config."""

from __future__ import annotations

from typing import ClassVar

from ...configuration import PretrainedConfig

__all__ = ["DistilBertConfig"]


class DistilBertConfig(PretrainedConfig):
    """What a DistilBERT model is; the defaults are those of distilbert-base-uncased.

    Attributes:
        dim: hidden size, which is also called `hidden_size`; so are `n_layers` and `n_heads` by their longer names.
        hidden_dim: size inside the feed-forward part.
        sinusoidal_pos_embds: whether positions are sines and cosines, which are not trained.
        qa_dropout: dropout before the logits of an answer.
        seq_classif_dropout: dropout before the logits for a whole input.
    """

    model_type = "distilbert"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "max_position_embeddings",
        "n_layers",
        "n_heads",
        "dim",
        "hidden_dim",
    )

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
