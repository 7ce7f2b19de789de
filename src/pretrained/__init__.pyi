"""The public names, and where each comes from. `__init__.py` finds them on first use; a test compares the two."""

from .any_module import (
    load_into,
    save,
)
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
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from .auto.flax_classes import (
    FlaxAutoModel,
    FlaxAutoModelForAudioClassification,
    FlaxAutoModelForAudioFrameClassification,
    FlaxAutoModelForAudioXVector,
    FlaxAutoModelForCausalLM,
    FlaxAutoModelForCTC,
    FlaxAutoModelForImageClassification,
    FlaxAutoModelForMaskedImageModeling,
    FlaxAutoModelForMaskedLM,
    FlaxAutoModelForMultipleChoice,
    FlaxAutoModelForNextSentencePrediction,
    FlaxAutoModelForPreTraining,
    FlaxAutoModelForQuestionAnswering,
    FlaxAutoModelForSeq2SeqLM,
    FlaxAutoModelForSequenceClassification,
    FlaxAutoModelForTokenClassification,
)
from .auto.tf_classes import (
    TFAutoModel,
    TFAutoModelForAudioClassification,
    TFAutoModelForAudioFrameClassification,
    TFAutoModelForAudioXVector,
    TFAutoModelForCausalLM,
    TFAutoModelForCTC,
    TFAutoModelForImageClassification,
    TFAutoModelForMaskedImageModeling,
    TFAutoModelForMaskedLM,
    TFAutoModelForMultipleChoice,
    TFAutoModelForNextSentencePrediction,
    TFAutoModelForPreTraining,
    TFAutoModelForQuestionAnswering,
    TFAutoModelForSeq2SeqLM,
    TFAutoModelForSequenceClassification,
    TFAutoModelForTokenClassification,
)
from .configuration import (
    PreTrainedConfig,
    PretrainedConfig,
)
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
from .flax.generation.logits import (
    FlaxForcedBOSTokenLogitsProcessor,
    FlaxForcedEOSTokenLogitsProcessor,
    FlaxForceTokensLogitsProcessor,
    FlaxLogitsProcessor,
    FlaxLogitsProcessorList,
    FlaxLogitsWarper,
    FlaxMinLengthLogitsProcessor,
    FlaxSuppressTokensAtBeginLogitsProcessor,
    FlaxSuppressTokensLogitsProcessor,
    FlaxTemperatureLogitsWarper,
    FlaxTopKLogitsWarper,
    FlaxTopPLogitsWarper,
)
from .flax.generation.logits_repeats import (
    FlaxNoRepeatNGramLogitsProcessor,
)
from .flax.generation.mixin import (
    FlaxGenerationMixin,
)
from .flax.generation.outputs import (
    FlaxBeamSearchOutput,
    FlaxGreedySearchOutput,
    FlaxSampleOutput,
)
from .flax.modeling import (
    FlaxPreTrainedModel,
)
from .flax.outputs import (
    FlaxModelOutput,
)
from .generation.config import (
    GenerationConfig,
    GenerationMode,
)
from .generation.watermarking import (
    SynthIDTextWatermarkingConfig,
    WatermarkingConfig,
)
from .models.bert.configuration_bert import (
    BertConfig,
)
from .models.bert.modeling_bert import (
    BertLayer,
    BertModel,
    BertPreTrainedModel,
)
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
from .models.bert.modeling_flax_bert import (
    FlaxBertModel,
    FlaxBertPreTrainedModel,
)
from .models.bert.modeling_flax_bert_heads import (
    FlaxBertForCausalLM,
    FlaxBertForMaskedLM,
    FlaxBertForMultipleChoice,
    FlaxBertForNextSentencePrediction,
    FlaxBertForPreTraining,
    FlaxBertForQuestionAnswering,
    FlaxBertForSequenceClassification,
    FlaxBertForTokenClassification,
)
from .models.bert.modeling_tf_bert import (
    TFBertModel,
    TFBertPreTrainedModel,
)
from .models.bert.modeling_tf_bert_heads import (
    TFBertForMaskedLM,
    TFBertForMultipleChoice,
    TFBertForNextSentencePrediction,
    TFBertForPreTraining,
    TFBertForQuestionAnswering,
    TFBertForSequenceClassification,
    TFBertForTokenClassification,
    TFBertLMHeadModel,
)
from .models.distilbert.configuration_distilbert import (
    DistilBertConfig,
)
from .models.distilbert.modeling_distilbert import (
    DistilBertModel,
    DistilBertPreTrainedModel,
)
from .models.distilbert.modeling_distilbert_heads import (
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
)
from .models.distilbert.modeling_flax_distilbert import (
    FlaxDistilBertModel,
    FlaxDistilBertPreTrainedModel,
)
from .models.distilbert.modeling_flax_distilbert_heads import (
    FlaxDistilBertForMaskedLM,
    FlaxDistilBertForMultipleChoice,
    FlaxDistilBertForQuestionAnswering,
    FlaxDistilBertForSequenceClassification,
    FlaxDistilBertForTokenClassification,
)
from .models.distilbert.modeling_tf_distilbert import (
    TFDistilBertModel,
    TFDistilBertPreTrainedModel,
)
from .models.distilbert.modeling_tf_distilbert_heads import (
    TFDistilBertForMaskedLM,
    TFDistilBertForMultipleChoice,
    TFDistilBertForQuestionAnswering,
    TFDistilBertForSequenceClassification,
    TFDistilBertForTokenClassification,
)
from .models.gemma.configuration_gemma import (
    GemmaConfig,
)
from .models.gemma.modeling_gemma import (
    GemmaForCausalLM,
    GemmaModel,
    GemmaPreTrainedModel,
)
from .models.gemma.modeling_gemma_tasks import (
    GemmaForSequenceClassification,
    GemmaForTokenClassification,
)
from .models.gemma2.configuration_gemma2 import (
    Gemma2Config,
)
from .models.gemma2.modeling_gemma2 import (
    Gemma2ForCausalLM,
    Gemma2Model,
    Gemma2PreTrainedModel,
)
from .models.gemma2.modeling_gemma2_tasks import (
    Gemma2ForSequenceClassification,
    Gemma2ForTokenClassification,
)
from .models.gemma3.configuration_gemma3 import (
    Gemma3TextConfig,
)
from .models.gemma3.modeling_gemma3 import (
    Gemma3ForCausalLM,
    Gemma3PreTrainedModel,
    Gemma3TextModel,
)
from .models.gemma3.modeling_gemma3_tasks import (
    Gemma3TextForSequenceClassification,
)
from .models.gpt2.configuration_gpt2 import (
    GPT2Config,
)
from .models.gpt2.modeling_flax_gpt2 import (
    FlaxGPT2Model,
    FlaxGPT2PreTrainedModel,
)
from .models.gpt2.modeling_flax_gpt2_heads import (
    FlaxGPT2DoubleHeadsModel,
    FlaxGPT2ForQuestionAnswering,
    FlaxGPT2ForSequenceClassification,
    FlaxGPT2ForTokenClassification,
    FlaxGPT2LMHeadModel,
)
from .models.gpt2.modeling_gpt2 import (
    GPT2Model,
    GPT2PreTrainedModel,
)
from .models.gpt2.modeling_gpt2_heads import (
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
)
from .models.gpt2.modeling_gpt2_tasks import (
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
)
from .models.gpt2.modeling_tf_gpt2 import (
    TFGPT2Model,
    TFGPT2PreTrainedModel,
)
from .models.gpt2.modeling_tf_gpt2_heads import (
    TFGPT2DoubleHeadsModel,
    TFGPT2ForQuestionAnswering,
    TFGPT2ForSequenceClassification,
    TFGPT2ForTokenClassification,
    TFGPT2LMHeadModel,
)
from .models.llama.configuration_llama import (
    LlamaConfig,
)
from .models.llama.modeling_flax_llama import (
    FlaxLlamaForCausalLM,
    FlaxLlamaForSequenceClassification,
    FlaxLlamaModel,
    FlaxLlamaPreTrainedModel,
)
from .models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    LlamaPreTrainedModel,
)
from .models.llama.modeling_tf_llama import (
    TFLlamaForCausalLM,
    TFLlamaForSequenceClassification,
    TFLlamaModel,
    TFLlamaPreTrainedModel,
)
from .models.mistral.configuration_mistral import (
    MistralConfig,
)
from .models.mistral.modeling_flax_mistral import (
    FlaxMistralForCausalLM,
    FlaxMistralForQuestionAnswering,
    FlaxMistralForSequenceClassification,
    FlaxMistralForTokenClassification,
    FlaxMistralModel,
    FlaxMistralPreTrainedModel,
)
from .models.mistral.modeling_mistral import (
    MistralForCausalLM,
    MistralModel,
    MistralPreTrainedModel,
)
from .models.mistral.modeling_mistral_tasks import (
    MistralForQuestionAnswering,
    MistralForSequenceClassification,
    MistralForTokenClassification,
)
from .models.mistral.modeling_tf_mistral import (
    TFMistralForCausalLM,
    TFMistralForQuestionAnswering,
    TFMistralForSequenceClassification,
    TFMistralForTokenClassification,
    TFMistralModel,
    TFMistralPreTrainedModel,
)
from .models.mixtral.configuration_mixtral import (
    MixtralConfig,
)
from .models.mixtral.modeling_mixtral import (
    MixtralForCausalLM,
    MixtralModel,
    MixtralPreTrainedModel,
)
from .models.mixtral.modeling_mixtral_tasks import (
    MixtralForQuestionAnswering,
    MixtralForSequenceClassification,
    MixtralForTokenClassification,
)
from .models.phi3.configuration_phi3 import (
    Phi3Config,
)
from .models.phi3.modeling_phi3 import (
    Phi3ForCausalLM,
    Phi3Model,
    Phi3PreTrainedModel,
)
from .models.phi3.modeling_phi3_tasks import (
    Phi3ForSequenceClassification,
    Phi3ForTokenClassification,
)
from .models.qwen2.configuration_qwen2 import (
    Qwen2Config,
)
from .models.qwen2.modeling_flax_qwen2 import (
    FlaxQwen2ForCausalLM,
    FlaxQwen2ForQuestionAnswering,
    FlaxQwen2ForSequenceClassification,
    FlaxQwen2ForTokenClassification,
    FlaxQwen2Model,
    FlaxQwen2PreTrainedModel,
)
from .models.qwen2.modeling_qwen2 import (
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen2PreTrainedModel,
)
from .models.qwen2.modeling_qwen2_tasks import (
    Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)
from .models.qwen2.modeling_tf_qwen2 import (
    TFQwen2ForCausalLM,
    TFQwen2ForQuestionAnswering,
    TFQwen2ForSequenceClassification,
    TFQwen2ForTokenClassification,
    TFQwen2Model,
    TFQwen2PreTrainedModel,
)
from .models.qwen3.configuration_qwen3 import (
    Qwen3Config,
)
from .models.qwen3.modeling_flax_qwen3 import (
    FlaxQwen3ForCausalLM,
    FlaxQwen3ForQuestionAnswering,
    FlaxQwen3ForSequenceClassification,
    FlaxQwen3ForTokenClassification,
    FlaxQwen3Model,
    FlaxQwen3PreTrainedModel,
)
from .models.qwen3.modeling_qwen3 import (
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3PreTrainedModel,
)
from .models.qwen3.modeling_qwen3_tasks import (
    Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)
from .models.qwen3.modeling_tf_qwen3 import (
    TFQwen3ForCausalLM,
    TFQwen3ForQuestionAnswering,
    TFQwen3ForSequenceClassification,
    TFQwen3ForTokenClassification,
    TFQwen3Model,
    TFQwen3PreTrainedModel,
)
from .models.qwen3_moe.configuration_qwen3_moe import (
    Qwen3MoeConfig,
)
from .models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeForCausalLM,
    Qwen3MoeModel,
    Qwen3MoePreTrainedModel,
)
from .models.qwen3_moe.modeling_qwen3_moe_tasks import (
    Qwen3MoeForQuestionAnswering,
    Qwen3MoeForSequenceClassification,
    Qwen3MoeForTokenClassification,
)
from .models.roberta.configuration_roberta import (
    RobertaConfig,
    XLMRobertaConfig,
)
from .models.roberta.modeling_flax_roberta import (
    FlaxRobertaModel,
    FlaxRobertaPreTrainedModel,
)
from .models.roberta.modeling_flax_roberta_heads import (
    FlaxRobertaForCausalLM,
    FlaxRobertaForMaskedLM,
    FlaxRobertaForMultipleChoice,
    FlaxRobertaForQuestionAnswering,
    FlaxRobertaForSequenceClassification,
    FlaxRobertaForTokenClassification,
)
from .models.roberta.modeling_flax_xlm_roberta import (
    FlaxXLMRobertaForCausalLM,
    FlaxXLMRobertaForMaskedLM,
    FlaxXLMRobertaForMultipleChoice,
    FlaxXLMRobertaForQuestionAnswering,
    FlaxXLMRobertaForSequenceClassification,
    FlaxXLMRobertaForTokenClassification,
    FlaxXLMRobertaModel,
)
from .models.roberta.modeling_roberta import (
    RobertaModel,
    RobertaPreTrainedModel,
)
from .models.roberta.modeling_roberta_heads import (
    RobertaForCausalLM,
    RobertaForMaskedLM,
)
from .models.roberta.modeling_roberta_tasks import (
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)
from .models.roberta.modeling_tf_roberta import (
    TFRobertaModel,
)
from .models.roberta.modeling_tf_roberta_heads import (
    TFRobertaForCausalLM,
    TFRobertaForMaskedLM,
    TFRobertaForMultipleChoice,
    TFRobertaForQuestionAnswering,
    TFRobertaForSequenceClassification,
    TFRobertaForTokenClassification,
)
from .models.roberta.modeling_tf_xlm_roberta import (
    TFXLMRobertaForCausalLM,
    TFXLMRobertaForMaskedLM,
    TFXLMRobertaForMultipleChoice,
    TFXLMRobertaForQuestionAnswering,
    TFXLMRobertaForSequenceClassification,
    TFXLMRobertaForTokenClassification,
    TFXLMRobertaModel,
)
from .models.roberta.modeling_xlm_roberta import (
    XLMRobertaForCausalLM,
    XLMRobertaForMaskedLM,
    XLMRobertaForMultipleChoice,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)
from .models.t5.configuration_t5 import (
    T5Config,
)
from .models.t5.modeling_flax_t5 import (
    FlaxT5EncoderModel,
    FlaxT5ForConditionalGeneration,
    FlaxT5Model,
    FlaxT5PreTrainedModel,
)
from .models.t5.modeling_flax_t5_tasks import (
    FlaxT5ForQuestionAnswering,
    FlaxT5ForSequenceClassification,
    FlaxT5ForTokenClassification,
)
from .models.t5.modeling_t5 import (
    T5EncoderModel,
    T5Model,
    T5PreTrainedModel,
)
from .models.t5.modeling_t5_heads import (
    T5ForConditionalGeneration,
)
from .models.t5.modeling_t5_tasks import (
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
)
from .models.t5.modeling_tf_t5 import (
    TFT5EncoderModel,
    TFT5ForConditionalGeneration,
    TFT5Model,
    TFT5PreTrainedModel,
)
from .models.t5.modeling_tf_t5_tasks import (
    TFT5ForQuestionAnswering,
    TFT5ForSequenceClassification,
    TFT5ForTokenClassification,
)
from .models.vit.configuration_vit import (
    ViTConfig,
)
from .models.vit.modeling_flax_vit import (
    FlaxViTForImageClassification,
    FlaxViTForMaskedImageModeling,
    FlaxViTModel,
    FlaxViTPreTrainedModel,
)
from .models.vit.modeling_tf_vit import (
    TFViTModel,
    TFViTPreTrainedModel,
)
from .models.vit.modeling_tf_vit_heads import (
    TFViTForImageClassification,
    TFViTForMaskedImageModeling,
)
from .models.vit.modeling_vit import (
    ViTModel,
    ViTPreTrainedModel,
)
from .models.vit.modeling_vit_heads import (
    ViTForImageClassification,
    ViTForMaskedImageModeling,
)
from .models.wav2vec2.configuration_wav2vec2 import (
    Wav2Vec2Config,
)
from .models.wav2vec2.modeling_flax_wav2vec2 import (
    FlaxWav2Vec2Model,
    FlaxWav2Vec2PreTrainedModel,
)
from .models.wav2vec2.modeling_flax_wav2vec2_heads import (
    FlaxWav2Vec2ForAudioFrameClassification,
    FlaxWav2Vec2ForCTC,
    FlaxWav2Vec2ForSequenceClassification,
    FlaxWav2Vec2ForXVector,
)
from .models.wav2vec2.modeling_flax_wav2vec2_pretraining import (
    FlaxWav2Vec2ForPreTraining,
)
from .models.wav2vec2.modeling_tf_wav2vec2 import (
    TFWav2Vec2Model,
    TFWav2Vec2PreTrainedModel,
)
from .models.wav2vec2.modeling_tf_wav2vec2_heads import (
    TFWav2Vec2ForAudioFrameClassification,
    TFWav2Vec2ForCTC,
    TFWav2Vec2ForSequenceClassification,
    TFWav2Vec2ForXVector,
)
from .models.wav2vec2.modeling_tf_wav2vec2_pretraining import (
    TFWav2Vec2ForPreTraining,
)
from .models.wav2vec2.modeling_wav2vec2 import (
    Wav2Vec2Model,
    Wav2Vec2PreTrainedModel,
)
from .models.wav2vec2.modeling_wav2vec2_heads import (
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
)
from .models.wav2vec2.modeling_wav2vec2_pretraining import (
    Wav2Vec2ForPreTraining,
)
from .pt.generation.logits import (
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    LogitsWarper,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from .pt.generation.logits_filters import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from .pt.generation.logits_models import (
    ClassifierFreeGuidanceLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
    WatermarkLogitsProcessor,
)
from .pt.generation.logits_repeats import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    HammingDiversityLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)
from .pt.generation.logits_synthid import (
    SynthIDTextWatermarkLogitsProcessor,
)
from .pt.generation.mixin import (
    GenerationMixin,
)
from .pt.generation.outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)
from .pt.generation.stopping import (
    ConfidenceCriteria,
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from .pt.generation.streamers import (
    AsyncTextIteratorStreamer,
    BaseStreamer,
    TextIteratorStreamer,
    TextStreamer,
)
from .pt.heads import (
    find_pruneable_heads_and_indices,
    prune_conv1d_layer,
    prune_linear_layer,
)
from .pt.kv_cache import (
    Cache,
    EncoderDecoderKVCache,
    KVCache,
    StaticKVCache,
)
from .pt.kv_cache_kinds import (
    OffloadedKVCache,
    QuantizedKVCache,
    SlidingKVCache,
)
from .pt.kv_cache_names import (
    DynamicCache,
    EncoderDecoderCache,
    OffloadedCache,
    QuantizedCache,
    SlidingWindowCache,
    StaticCache,
)
from .pt.modeling import (
    PreTrainedModel,
)
from .pt.module_utils import (
    ModuleUtilsMixin,
)
from .pt.outputs import (
    ModelOutput,
)
from .pt.trainer import (
    TrainerMixin,
)
from .quantization.configs import (
    BitsAndBytesConfig,
    TorchAoConfig,
)
from .report import (
    LoadReport,
    SaveReport,
)
from .tf.callbacks import (
    PushToHubCallback,
)
from .tf.generation.logits import (
    TFForcedBOSTokenLogitsProcessor,
    TFForcedEOSTokenLogitsProcessor,
    TFForceTokensLogitsProcessor,
    TFLogitsProcessor,
    TFLogitsProcessorList,
    TFLogitsWarper,
    TFMinLengthLogitsProcessor,
    TFSuppressTokensAtBeginLogitsProcessor,
    TFSuppressTokensLogitsProcessor,
    TFTemperatureLogitsWarper,
    TFTopKLogitsWarper,
    TFTopPLogitsWarper,
)
from .tf.generation.logits_repeats import (
    TFNoRepeatNGramLogitsProcessor,
    TFRepetitionPenaltyLogitsProcessor,
)
from .tf.generation.mixin import (
    TFGenerationMixin,
)
from .tf.generation.outputs import (
    TFBeamSampleOutput,
    TFBeamSearchOutput,
    TFContrastiveSearchOutput,
    TFGreedySearchOutput,
    TFSampleOutput,
)
from .tf.modeling import (
    TFPreTrainedModel,
)
from .tf.outputs import (
    TFModelOutput,
)

__all__ = [
    "AsyncTextIteratorStreamer",
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
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "BaseStreamer",
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
    "BitsAndBytesConfig",
    "Cache",
    "CheckpointBusyError",
    "CheckpointChangedError",
    "ClassifierFreeGuidanceLogitsProcessor",
    "ConfidenceCriteria",
    "ConfigError",
    "DistilBertConfig",
    "DistilBertForMaskedLM",
    "DistilBertForMultipleChoice",
    "DistilBertForQuestionAnswering",
    "DistilBertForSequenceClassification",
    "DistilBertForTokenClassification",
    "DistilBertModel",
    "DistilBertPreTrainedModel",
    "DynamicCache",
    "EncoderDecoderCache",
    "EncoderDecoderKVCache",
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EosTokenCriteria",
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "FlaxAutoModel",
    "FlaxAutoModelForAudioClassification",
    "FlaxAutoModelForAudioFrameClassification",
    "FlaxAutoModelForAudioXVector",
    "FlaxAutoModelForCTC",
    "FlaxAutoModelForCausalLM",
    "FlaxAutoModelForImageClassification",
    "FlaxAutoModelForMaskedImageModeling",
    "FlaxAutoModelForMaskedLM",
    "FlaxAutoModelForMultipleChoice",
    "FlaxAutoModelForNextSentencePrediction",
    "FlaxAutoModelForPreTraining",
    "FlaxAutoModelForQuestionAnswering",
    "FlaxAutoModelForSeq2SeqLM",
    "FlaxAutoModelForSequenceClassification",
    "FlaxAutoModelForTokenClassification",
    "FlaxBeamSearchOutput",
    "FlaxBertForCausalLM",
    "FlaxBertForMaskedLM",
    "FlaxBertForMultipleChoice",
    "FlaxBertForNextSentencePrediction",
    "FlaxBertForPreTraining",
    "FlaxBertForQuestionAnswering",
    "FlaxBertForSequenceClassification",
    "FlaxBertForTokenClassification",
    "FlaxBertModel",
    "FlaxBertPreTrainedModel",
    "FlaxDistilBertForMaskedLM",
    "FlaxDistilBertForMultipleChoice",
    "FlaxDistilBertForQuestionAnswering",
    "FlaxDistilBertForSequenceClassification",
    "FlaxDistilBertForTokenClassification",
    "FlaxDistilBertModel",
    "FlaxDistilBertPreTrainedModel",
    "FlaxForceTokensLogitsProcessor",
    "FlaxForcedBOSTokenLogitsProcessor",
    "FlaxForcedEOSTokenLogitsProcessor",
    "FlaxGPT2DoubleHeadsModel",
    "FlaxGPT2ForQuestionAnswering",
    "FlaxGPT2ForSequenceClassification",
    "FlaxGPT2ForTokenClassification",
    "FlaxGPT2LMHeadModel",
    "FlaxGPT2Model",
    "FlaxGPT2PreTrainedModel",
    "FlaxGenerationMixin",
    "FlaxGreedySearchOutput",
    "FlaxLlamaForCausalLM",
    "FlaxLlamaForSequenceClassification",
    "FlaxLlamaModel",
    "FlaxLlamaPreTrainedModel",
    "FlaxLogitsProcessor",
    "FlaxLogitsProcessorList",
    "FlaxLogitsWarper",
    "FlaxMinLengthLogitsProcessor",
    "FlaxMistralForCausalLM",
    "FlaxMistralForQuestionAnswering",
    "FlaxMistralForSequenceClassification",
    "FlaxMistralForTokenClassification",
    "FlaxMistralModel",
    "FlaxMistralPreTrainedModel",
    "FlaxModelOutput",
    "FlaxNoRepeatNGramLogitsProcessor",
    "FlaxPreTrainedModel",
    "FlaxQwen2ForCausalLM",
    "FlaxQwen2ForQuestionAnswering",
    "FlaxQwen2ForSequenceClassification",
    "FlaxQwen2ForTokenClassification",
    "FlaxQwen2Model",
    "FlaxQwen2PreTrainedModel",
    "FlaxQwen3ForCausalLM",
    "FlaxQwen3ForQuestionAnswering",
    "FlaxQwen3ForSequenceClassification",
    "FlaxQwen3ForTokenClassification",
    "FlaxQwen3Model",
    "FlaxQwen3PreTrainedModel",
    "FlaxRobertaForCausalLM",
    "FlaxRobertaForMaskedLM",
    "FlaxRobertaForMultipleChoice",
    "FlaxRobertaForQuestionAnswering",
    "FlaxRobertaForSequenceClassification",
    "FlaxRobertaForTokenClassification",
    "FlaxRobertaModel",
    "FlaxRobertaPreTrainedModel",
    "FlaxSampleOutput",
    "FlaxSuppressTokensAtBeginLogitsProcessor",
    "FlaxSuppressTokensLogitsProcessor",
    "FlaxT5EncoderModel",
    "FlaxT5ForConditionalGeneration",
    "FlaxT5ForQuestionAnswering",
    "FlaxT5ForSequenceClassification",
    "FlaxT5ForTokenClassification",
    "FlaxT5Model",
    "FlaxT5PreTrainedModel",
    "FlaxTemperatureLogitsWarper",
    "FlaxTopKLogitsWarper",
    "FlaxTopPLogitsWarper",
    "FlaxViTForImageClassification",
    "FlaxViTForMaskedImageModeling",
    "FlaxViTModel",
    "FlaxViTPreTrainedModel",
    "FlaxWav2Vec2ForAudioFrameClassification",
    "FlaxWav2Vec2ForCTC",
    "FlaxWav2Vec2ForPreTraining",
    "FlaxWav2Vec2ForSequenceClassification",
    "FlaxWav2Vec2ForXVector",
    "FlaxWav2Vec2Model",
    "FlaxWav2Vec2PreTrainedModel",
    "FlaxXLMRobertaForCausalLM",
    "FlaxXLMRobertaForMaskedLM",
    "FlaxXLMRobertaForMultipleChoice",
    "FlaxXLMRobertaForQuestionAnswering",
    "FlaxXLMRobertaForSequenceClassification",
    "FlaxXLMRobertaForTokenClassification",
    "FlaxXLMRobertaModel",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "GPT2Config",
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "GPT2PreTrainedModel",
    "Gemma2Config",
    "Gemma2ForCausalLM",
    "Gemma2ForSequenceClassification",
    "Gemma2ForTokenClassification",
    "Gemma2Model",
    "Gemma2PreTrainedModel",
    "Gemma3ForCausalLM",
    "Gemma3PreTrainedModel",
    "Gemma3TextConfig",
    "Gemma3TextForSequenceClassification",
    "Gemma3TextModel",
    "GemmaConfig",
    "GemmaForCausalLM",
    "GemmaForSequenceClassification",
    "GemmaForTokenClassification",
    "GemmaModel",
    "GemmaPreTrainedModel",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerationConfig",
    "GenerationMixin",
    "GenerationMode",
    "HammingDiversityLogitsProcessor",
    "HubError",
    "InfNanRemoveLogitsProcessor",
    "IntegrityError",
    "InvalidOptionError",
    "KVCache",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
    "LlamaModel",
    "LlamaPreTrainedModel",
    "LoadReport",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "LogitsWarper",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "MismatchError",
    "MissingFrameworkError",
    "MistralConfig",
    "MistralForCausalLM",
    "MistralForQuestionAnswering",
    "MistralForSequenceClassification",
    "MistralForTokenClassification",
    "MistralModel",
    "MistralPreTrainedModel",
    "MixtralConfig",
    "MixtralForCausalLM",
    "MixtralForQuestionAnswering",
    "MixtralForSequenceClassification",
    "MixtralForTokenClassification",
    "MixtralModel",
    "MixtralPreTrainedModel",
    "ModelOutput",
    "ModuleUtilsMixin",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "OffloadedCache",
    "OffloadedKVCache",
    "OptionError",
    "Phi3Config",
    "Phi3ForCausalLM",
    "Phi3ForSequenceClassification",
    "Phi3ForTokenClassification",
    "Phi3Model",
    "Phi3PreTrainedModel",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PrefixConstrainedLogitsProcessor",
    "PretrainedConfig",
    "PretrainedError",
    "PushToHubCallback",
    "QuantizedCache",
    "QuantizedKVCache",
    "Qwen2Config",
    "Qwen2ForCausalLM",
    "Qwen2ForQuestionAnswering",
    "Qwen2ForSequenceClassification",
    "Qwen2ForTokenClassification",
    "Qwen2Model",
    "Qwen2PreTrainedModel",
    "Qwen3Config",
    "Qwen3ForCausalLM",
    "Qwen3ForQuestionAnswering",
    "Qwen3ForSequenceClassification",
    "Qwen3ForTokenClassification",
    "Qwen3Model",
    "Qwen3MoeConfig",
    "Qwen3MoeForCausalLM",
    "Qwen3MoeForQuestionAnswering",
    "Qwen3MoeForSequenceClassification",
    "Qwen3MoeForTokenClassification",
    "Qwen3MoeModel",
    "Qwen3MoePreTrainedModel",
    "Qwen3PreTrainedModel",
    "RepetitionPenaltyLogitsProcessor",
    "ResourceLimitError",
    "RobertaConfig",
    "RobertaForCausalLM",
    "RobertaForMaskedLM",
    "RobertaForMultipleChoice",
    "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "RobertaModel",
    "RobertaPreTrainedModel",
    "SaveError",
    "SaveReport",
    "SequenceBiasLogitsProcessor",
    "ShardIndexError",
    "SlidingKVCache",
    "SlidingWindowCache",
    "SourceError",
    "StaticCache",
    "StaticKVCache",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "SynthIDTextWatermarkLogitsProcessor",
    "SynthIDTextWatermarkingConfig",
    "T5Config",
    "T5EncoderModel",
    "T5ForConditionalGeneration",
    "T5ForQuestionAnswering",
    "T5ForSequenceClassification",
    "T5ForTokenClassification",
    "T5Model",
    "T5PreTrainedModel",
    "TFAutoModel",
    "TFAutoModelForAudioClassification",
    "TFAutoModelForAudioFrameClassification",
    "TFAutoModelForAudioXVector",
    "TFAutoModelForCTC",
    "TFAutoModelForCausalLM",
    "TFAutoModelForImageClassification",
    "TFAutoModelForMaskedImageModeling",
    "TFAutoModelForMaskedLM",
    "TFAutoModelForMultipleChoice",
    "TFAutoModelForNextSentencePrediction",
    "TFAutoModelForPreTraining",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForSeq2SeqLM",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForTokenClassification",
    "TFBeamSampleOutput",
    "TFBeamSearchOutput",
    "TFBertForMaskedLM",
    "TFBertForMultipleChoice",
    "TFBertForNextSentencePrediction",
    "TFBertForPreTraining",
    "TFBertForQuestionAnswering",
    "TFBertForSequenceClassification",
    "TFBertForTokenClassification",
    "TFBertLMHeadModel",
    "TFBertModel",
    "TFBertPreTrainedModel",
    "TFContrastiveSearchOutput",
    "TFDistilBertForMaskedLM",
    "TFDistilBertForMultipleChoice",
    "TFDistilBertForQuestionAnswering",
    "TFDistilBertForSequenceClassification",
    "TFDistilBertForTokenClassification",
    "TFDistilBertModel",
    "TFDistilBertPreTrainedModel",
    "TFForceTokensLogitsProcessor",
    "TFForcedBOSTokenLogitsProcessor",
    "TFForcedEOSTokenLogitsProcessor",
    "TFGPT2DoubleHeadsModel",
    "TFGPT2ForQuestionAnswering",
    "TFGPT2ForSequenceClassification",
    "TFGPT2ForTokenClassification",
    "TFGPT2LMHeadModel",
    "TFGPT2Model",
    "TFGPT2PreTrainedModel",
    "TFGenerationMixin",
    "TFGreedySearchOutput",
    "TFLlamaForCausalLM",
    "TFLlamaForSequenceClassification",
    "TFLlamaModel",
    "TFLlamaPreTrainedModel",
    "TFLogitsProcessor",
    "TFLogitsProcessorList",
    "TFLogitsWarper",
    "TFMinLengthLogitsProcessor",
    "TFMistralForCausalLM",
    "TFMistralForQuestionAnswering",
    "TFMistralForSequenceClassification",
    "TFMistralForTokenClassification",
    "TFMistralModel",
    "TFMistralPreTrainedModel",
    "TFModelOutput",
    "TFNoRepeatNGramLogitsProcessor",
    "TFPreTrainedModel",
    "TFQwen2ForCausalLM",
    "TFQwen2ForQuestionAnswering",
    "TFQwen2ForSequenceClassification",
    "TFQwen2ForTokenClassification",
    "TFQwen2Model",
    "TFQwen2PreTrainedModel",
    "TFQwen3ForCausalLM",
    "TFQwen3ForQuestionAnswering",
    "TFQwen3ForSequenceClassification",
    "TFQwen3ForTokenClassification",
    "TFQwen3Model",
    "TFQwen3PreTrainedModel",
    "TFRepetitionPenaltyLogitsProcessor",
    "TFRobertaForCausalLM",
    "TFRobertaForMaskedLM",
    "TFRobertaForMultipleChoice",
    "TFRobertaForQuestionAnswering",
    "TFRobertaForSequenceClassification",
    "TFRobertaForTokenClassification",
    "TFRobertaModel",
    "TFSampleOutput",
    "TFSuppressTokensAtBeginLogitsProcessor",
    "TFSuppressTokensLogitsProcessor",
    "TFT5EncoderModel",
    "TFT5ForConditionalGeneration",
    "TFT5ForQuestionAnswering",
    "TFT5ForSequenceClassification",
    "TFT5ForTokenClassification",
    "TFT5Model",
    "TFT5PreTrainedModel",
    "TFTemperatureLogitsWarper",
    "TFTopKLogitsWarper",
    "TFTopPLogitsWarper",
    "TFViTForImageClassification",
    "TFViTForMaskedImageModeling",
    "TFViTModel",
    "TFViTPreTrainedModel",
    "TFWav2Vec2ForAudioFrameClassification",
    "TFWav2Vec2ForCTC",
    "TFWav2Vec2ForPreTraining",
    "TFWav2Vec2ForSequenceClassification",
    "TFWav2Vec2ForXVector",
    "TFWav2Vec2Model",
    "TFWav2Vec2PreTrainedModel",
    "TFXLMRobertaForCausalLM",
    "TFXLMRobertaForMaskedLM",
    "TFXLMRobertaForMultipleChoice",
    "TFXLMRobertaForQuestionAnswering",
    "TFXLMRobertaForSequenceClassification",
    "TFXLMRobertaForTokenClassification",
    "TFXLMRobertaModel",
    "TemperatureLogitsWarper",
    "TensorError",
    "TextIteratorStreamer",
    "TextStreamer",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TorchAoConfig",
    "TrainerMixin",
    "TypicalLogitsWarper",
    "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    "UntrustedCodeError",
    "UntrustedPathError",
    "ViTConfig",
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTModel",
    "ViTPreTrainedModel",
    "WatermarkLogitsProcessor",
    "WatermarkingConfig",
    "Wav2Vec2Config",
    "Wav2Vec2ForAudioFrameClassification",
    "Wav2Vec2ForCTC",
    "Wav2Vec2ForPreTraining",
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2ForXVector",
    "Wav2Vec2Model",
    "Wav2Vec2PreTrainedModel",
    "WeightsFormatError",
    "XLMRobertaConfig",
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaModel",
    "__version__",
    "find_pruneable_heads_and_indices",
    "load_into",
    "prune_conv1d_layer",
    "prune_linear_layer",
    "save",
]

__version__: str
