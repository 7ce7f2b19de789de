"""RoBERTa (arXiv 1907.11692) in TensorFlow: BERT's blocks, which count positions from the padding index on.

Heads are in modeling_tf_roberta_heads.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf.encoder import Encoder, EncoderEmbeddings
from ...tf.modeling import TFPreTrainedModel
from .configuration_roberta import RobertaConfig

__all__ = ["TFRobertaModel", "TFRobertaModule", "TFRobertaPreTrainedModel"]

Tensor: TypeAlias = tf.Tensor


class TFRobertaEmbeddings(EncoderEmbeddings):
    """Sum of word, segment and position embeddings, normalised; padding has a position of its own."""

    def __init__(self, config: ModuleConfig) -> None:
        padding, limit = config.pad_token_id, min(config.vocab_size, config.max_position_embeddings)
        if padding is None or not 0 <= padding < limit:
            raise ConfigError(
                f"positions are counted from pad_token_id on, which must be in [0, {limit}); found {padding}",
                key="pad_token_id",
            )
        super().__init__(config, position_padding=padding)
        self.padding_idx = padding

    def positions(self, input_ids: Tensor | None, num_new: Any, start: Tensor | int) -> Tensor:
        """`(batch or 1, seq)`: `padding_idx` for padding; tokens are counted from `padding_idx + 1` on.

        Args:
            input_ids: `(batch, seq)`; in embeddings, without ids, padding cannot be seen and is counted.
            num_new: how many tokens each row has.
            start: how many came before.

        Raises:
            ValueError: there are more tokens than positions.
        """
        first = self.padding_idx + 1
        if isinstance(num_new, int) and num_new + first > (rows := self.config.max_position_embeddings):
            found = f"{num_new} tokens are more than {rows - first}"
            raise ValueError(f"{found}, which max_position_embeddings={rows} leaves after pad_token_id={first - 1}")
        if input_ids is None:
            return super().positions(input_ids, num_new, start) + first
        real = tf.cast(input_ids != self.padding_idx, tf.int32)
        return (tf.cumsum(real, 1) + start) * real + self.padding_idx


class TFRobertaModule(Encoder):
    """RoBERTa's blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, TFRobertaEmbeddings(config), add_pooling_layer)


class TFRobertaPreTrainedModel(TFPreTrainedModel):
    """Base of all RoBERTa models in TensorFlow."""

    config: RobertaConfig
    config_class = RobertaConfig
    base_model_prefix = "roberta"
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "roberta.embeddings.word_embeddings.weight"


class TFRobertaModel(TFRobertaPreTrainedModel):
    """RoBERTa without a head."""

    module_class = TFRobertaModule
    _input_embeddings = "embeddings.word_embeddings.weight"
