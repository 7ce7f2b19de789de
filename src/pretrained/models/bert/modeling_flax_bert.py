"""BERT (arXiv 1810.04805) in JAX: the encoder, which is a decoder when the config says so, as `flax.encoder` has it."""

from __future__ import annotations

from ...flax.encoder import SHARDING_RULES, Encoder, EncoderEmbeddings
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from .configuration_bert import BertConfig

__all__ = ["FlaxBertModel", "FlaxBertModule", "FlaxBertPreTrainedModel"]


class FlaxBertModule(Encoder):
    """BERT's blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, EncoderEmbeddings(config), add_pooling_layer)


class FlaxBertPreTrainedModel(FlaxPreTrainedModel):
    """Base of all BERT models in JAX."""

    config: BertConfig
    config_class = BertConfig
    base_model_prefix = "bert"
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "bert.embeddings.word_embeddings.weight"
    _sharding_rules = SHARDING_RULES


class FlaxBertModel(FlaxBertPreTrainedModel):
    """BERT without a head."""

    module_class = FlaxBertModule
    _input_embeddings = "embeddings.word_embeddings.weight"
