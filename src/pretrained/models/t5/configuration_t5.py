"""The fields of a T5 config."""

from __future__ import annotations

from typing import Any, ClassVar

from ...configuration import PretrainedConfig
from ...errors import ConfigError

__all__ = ["T5Config", "check_buckets"]


class T5Config(PretrainedConfig):
    """What a T5 model is; the defaults are those of t5-small.

    Attributes:
        d_kv: size of a head; `num_heads * d_kv` need not be `d_model`.
        num_decoder_layers: `None` means as many as the encoder has.
        relative_attention_num_buckets: how many distances are told apart.
        relative_attention_max_distance: from there on all are one.
        feed_forward_proj: an activation, "relu" in the first release, or "gated-" and one, "gated-gelu" since 1.1.
        dense_act_fn: the activation; `None` means that of `feed_forward_proj`. is_gated_act: likewise.
        tie_word_embeddings: whether the logits are made with the word embeddings, as in the first release. Then the
            states are scaled before.
    """

    model_type = "t5"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }
    positive: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "d_model",
        "d_kv",
        "d_ff",
        "num_layers",
        "num_decoder_layers",
        "num_heads",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
    )

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None
    is_encoder_decoder: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list | None = 1
    classifier_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Fills what follows from other fields."""
        # Releases 5.x write tie_word_embeddings=true whatever the model is, and what it means under this name.
        if kwargs.get("scale_decoder_outputs") is False:
            self.tie_word_embeddings = False
        super().__post_init__(**{k: v for k, v in kwargs.items() if k != "scale_decoder_outputs"})
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers
        gate, _, name = self.feed_forward_proj.rpartition("-")
        if gate not in ("", "gated") or not name:
            raise ConfigError(
                f"feed_forward_proj={self.feed_forward_proj!r:.80} must be an activation, or 'gated-' and one",
                key="feed_forward_proj",
            )
        if self.is_gated_act is None:
            self.is_gated_act = gate == "gated"
        if self.dense_act_fn is None:
            self.dense_act_fn = "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


def check_buckets(config: Any, is_decoder: bool) -> None:
    """Raises ConfigError where there is no bucket for a single distance, or no distance for the others."""
    exact = config.relative_attention_num_buckets // (2 if is_decoder else 4)
    if not 0 < exact < config.relative_attention_max_distance:
        sizes = (
            f"relative_attention_num_buckets={config.relative_attention_num_buckets}, "
            f"relative_attention_max_distance={config.relative_attention_max_distance}"
        )
        raise ConfigError(
            f"there must be 4 buckets or more, and a maximal distance of more than half as many: {sizes}",
            key="relative_attention_num_buckets",
        )
