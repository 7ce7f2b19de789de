"""BERT (arXiv 1810.04805) in TensorFlow: the encoder, a decoder when the config says so, as `tf.encoder` has it."""

from __future__ import annotations

from ...module_config import ModuleConfig
from ...tf.encoder import Encoder, EncoderEmbeddings
from ...tf.modeling import TFPreTrainedModel
from .configuration_bert import BertConfig

__all__ = ["TFBertModel", "TFBertModule", "TFBertPreTrainedModel"]


class TFBertModule(Encoder):
    """BERT's blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, EncoderEmbeddings(config), add_pooling_layer)


class TFBertPreTrainedModel(TFPreTrainedModel):
    """Base of all BERT models in TensorFlow."""

    config: BertConfig
    config_class = BertConfig
    base_model_prefix = "bert"
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "bert.embeddings.word_embeddings.weight"


class TFBertModel(TFBertPreTrainedModel):
    """BERT without a head."""

    module_class = TFBertModule
    _input_embeddings = "embeddings.word_embeddings.weight"
