"""RoBERTa (arXiv 1907.11692) in JAX: BERT's blocks, which count positions from the padding index on.

Heads are in modeling_flax_roberta_heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...errors import ConfigError
from ...flax.encoder import SHARDING_RULES, Encoder, EncoderEmbeddings
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .configuration_roberta import RobertaConfig

__all__ = ["FlaxRobertaModel", "FlaxRobertaModule", "FlaxRobertaPreTrainedModel"]

Array = jax.Array


class FlaxRobertaEmbeddings(EncoderEmbeddings):
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

    def positions(self, input_ids: Array | None, num_new: int, start: Array | int) -> Array:
        """`(batch or 1, seq)`: `padding_idx` for padding; tokens are counted from `padding_idx + 1` on.

        Args:
            input_ids: `(batch, seq)`; in embeddings, without ids, padding cannot be seen and is counted.
            num_new: how many tokens each row has.
            start: how many came before.

        Raises:
            ValueError: there are more tokens than positions.
        """
        first = self.padding_idx + 1
        if num_new + first > (rows := self.config.max_position_embeddings):
            found = f"{num_new} tokens are more than {rows - first}"
            raise ValueError(f"{found}, which max_position_embeddings={rows} leaves after pad_token_id={first - 1}")
        if input_ids is None:
            return super().positions(input_ids, num_new, start) + first
        real = (input_ids != self.padding_idx).astype(jnp.int32)
        return (real.cumsum(1) + start) * real + self.padding_idx


class FlaxRobertaModule(Encoder):
    """RoBERTa's blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, FlaxRobertaEmbeddings(config), add_pooling_layer)


class FlaxRobertaPreTrainedModel(FlaxPreTrainedModel):
    """Base of all RoBERTa models in JAX."""

    config: RobertaConfig
    config_class = RobertaConfig
    base_model_prefix = "roberta"
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "roberta.embeddings.word_embeddings.weight"
    _sharding_rules = SHARDING_RULES


class FlaxRobertaModel(FlaxRobertaPreTrainedModel):
    """RoBERTa without a head."""

    module_class = FlaxRobertaModule
    _input_embeddings = "embeddings.word_embeddings.weight"
