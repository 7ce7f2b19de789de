"""The public names, and where each comes from. `__init__.py` finds them on first use; a test compares the two."""

from .auto.classes import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
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
from .pt.any_module import load_into, save
from .pt.heads import find_pruneable_heads_and_indices, prune_conv1d_layer, prune_linear_layer
from .pt.modeling import PreTrainedModel
from .pt.module_utils import ModuleUtilsMixin
from .pt.outputs import ModelOutput
from .report import LoadReport, SaveReport

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
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
    "UntrustedCodeError",
    "UntrustedPathError",
    "WeightsFormatError",
    "__version__",
    "find_pruneable_heads_and_indices",
    "load_into",
    "prune_conv1d_layer",
    "prune_linear_layer",
    "save",
]

__version__: str
