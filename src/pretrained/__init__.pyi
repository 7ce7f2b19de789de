"""The public names, and where each comes from. `__init__.py` finds them on first use; a test compares the two."""

from .auto.classes import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from .configuration import PreTrainedConfig, PretrainedConfig
from .errors import (
    CheckpointBusyError,
    CheckpointChangedError,
    ConfigError,
    HubError,
    IntegrityError,
    InvalidOptionError,
    MismatchError,
    MissingFrameworkError,
    OptionError,
    PretrainedError,
    ResourceLimitError,
    SaveError,
    ShardIndexError,
    SourceError,
    TensorError,
    UntrustedCodeError,
    UntrustedPathError,
    WeightsFormatError,
)
from .generation.config import GenerationConfig
from .models.bert.configuration_bert import BertConfig
from .models.bert.modeling_bert import BertLayer, BertModel, BertPreTrainedModel
from .models.bert.modeling_bert_heads import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertLMHeadModel,
)
from .models.bert.modeling_bert_tasks import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from .models.llama.configuration_llama import LlamaConfig
from .models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)
from .models.vit.configuration_vit import ViTConfig
from .models.vit.modeling_vit import ViTModel, ViTPreTrainedModel
from .models.vit.modeling_vit_heads import ViTForImageClassification, ViTForMaskedImageModeling
from .models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
from .models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model, Wav2Vec2PreTrainedModel
from .models.wav2vec2.modeling_wav2vec2_heads import (
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
)
from .models.wav2vec2.modeling_wav2vec2_pretraining import Wav2Vec2ForPreTraining
from .pt.any_module import load_into, save
from .pt.modeling import PreTrainedModel
from .pt.module_utils import ModuleUtilsMixin
from .pt.outputs import ModelOutput
from .pt.trainer import TrainerMixin
from .report import LoadReport, SaveReport

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForAudioClassification",
    "AutoModelForAudioFrameClassification",
    "AutoModelForAudioXVector",
    "AutoModelForCTC",
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModelForMaskedImageModeling",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForNextSentencePrediction",
    "AutoModelForPreTraining",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMHeadModel",
    "BertLayer",
    "BertModel",
    "BertPreTrainedModel",
    "CheckpointBusyError",
    "CheckpointChangedError",
    "ConfigError",
    "GenerationConfig",
    "HubError",
    "IntegrityError",
    "InvalidOptionError",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
    "LoadReport",
    "MismatchError",
    "MissingFrameworkError",
    "ModelOutput",
    "ModuleUtilsMixin",
    "OptionError",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PretrainedConfig",
    "PretrainedError",
    "ResourceLimitError",
    "SaveError",
    "SaveReport",
    "ShardIndexError",
    "SourceError",
    "TensorError",
    "TrainerMixin",
    "UntrustedCodeError",
    "UntrustedPathError",
    "ViTConfig",
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTModel",
    "ViTPreTrainedModel",
    "Wav2Vec2Config",
    "Wav2Vec2ForAudioFrameClassification",
    "Wav2Vec2ForCTC",
    "Wav2Vec2ForPreTraining",
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2ForXVector",
    "Wav2Vec2Model",
    "Wav2Vec2PreTrainedModel",
    "WeightsFormatError",
    "__version__",
    "load_into",
    "save",
]

__version__: str
