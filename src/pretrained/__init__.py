"""The pretrained-model layer as a library of its own.

Every public name is importable from here; each is found on first use, so that importing the package loads no
framework. `__init__.pyi` is the list.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_CORE = {
    "PretrainedConfig": "configuration",
    "PreTrainedConfig": "configuration",
    "GenerationConfig": "generation.config",
    "GenerationMode": "generation.config",
    "SynthIDTextWatermarkingConfig": "generation.watermarking",
    "WatermarkingConfig": "generation.watermarking",
    "BitsAndBytesConfig": "quantization.configs",
    "TorchAoConfig": "quantization.configs",
    "LoadReport": "report",
    "SaveReport": "report",
    "AutoConfig": "auto.classes",
}
_ERRORS = (
    "CheckpointBusyError", "CheckpointChangedError", "ConfigError", "HubError", "IntegrityError", "InvalidOptionError",
    "MismatchError", "MissingFrameworkError", "OptionError", "PretrainedError", "ResourceLimitError", "SaveError",
    "ShardIndexError", "SourceError", "TensorError", "UntrustedCodeError", "UntrustedPathError", "WeightsFormatError",
)  # fmt: skip
_TORCH = {
    "PreTrainedModel": "pt.modeling",
    "ModuleUtilsMixin": "pt.module_utils",
    "ModelOutput": "pt.outputs",
    "TrainerMixin": "pt.trainer",
    **dict.fromkeys(("find_pruneable_heads_and_indices", "prune_conv1d_layer", "prune_linear_layer"), "pt.heads"),
    "load_into": "any_module",
    "save": "any_module",
}
_GENERATION = {
    **dict.fromkeys(("KVCache", "StaticKVCache", "EncoderDecoderKVCache", "Cache"), "pt.kv_cache"),
    **dict.fromkeys(("OffloadedKVCache", "QuantizedKVCache", "SlidingKVCache"), "pt.kv_cache_kinds"),
    **dict.fromkeys(
        (
            *("DynamicCache", "EncoderDecoderCache", "OffloadedCache", "QuantizedCache"),
            *("SlidingWindowCache", "StaticCache"),
        ),
        "pt.kv_cache_names",
    ),
    **dict.fromkeys(("GenerationMixin",), "pt.generation.mixin"),
    **dict.fromkeys(
        (
            "ExponentialDecayLengthPenalty",
            "ForcedBOSTokenLogitsProcessor",
            "ForcedEOSTokenLogitsProcessor",
            "InfNanRemoveLogitsProcessor",
            "LogitNormalization",
            "LogitsProcessor",
            "LogitsProcessorList",
            "LogitsWarper",
            "MinLengthLogitsProcessor",
            "MinNewTokensLengthLogitsProcessor",
            "PrefixConstrainedLogitsProcessor",
            "SuppressTokensAtBeginLogitsProcessor",
            "SuppressTokensLogitsProcessor",
        ),
        "pt.generation.logits",
    ),
    **dict.fromkeys(
        (
            "EncoderNoRepeatNGramLogitsProcessor",
            "EncoderRepetitionPenaltyLogitsProcessor",
            "HammingDiversityLogitsProcessor",
            "NoBadWordsLogitsProcessor",
            "NoRepeatNGramLogitsProcessor",
            "RepetitionPenaltyLogitsProcessor",
            "SequenceBiasLogitsProcessor",
        ),
        "pt.generation.logits_repeats",
    ),
    **dict.fromkeys(
        (
            "EpsilonLogitsWarper",
            "EtaLogitsWarper",
            "MinPLogitsWarper",
            "TemperatureLogitsWarper",
            "TopHLogitsWarper",
            "TopKLogitsWarper",
            "TopPLogitsWarper",
            "TypicalLogitsWarper",
        ),
        "pt.generation.logits_filters",
    ),
    **dict.fromkeys(
        (
            "ClassifierFreeGuidanceLogitsProcessor",
            "UnbatchedClassifierFreeGuidanceLogitsProcessor",
            "WatermarkLogitsProcessor",
        ),
        "pt.generation.logits_models",
    ),
    **dict.fromkeys(("SynthIDTextWatermarkLogitsProcessor",), "pt.generation.logits_synthid"),
    **dict.fromkeys(
        (
            "ConfidenceCriteria",
            "EosTokenCriteria",
            "MaxLengthCriteria",
            "MaxTimeCriteria",
            "StopStringCriteria",
            "StoppingCriteria",
            "StoppingCriteriaList",
        ),
        "pt.generation.stopping",
    ),
    **dict.fromkeys(
        ("AsyncTextIteratorStreamer", "BaseStreamer", "TextIteratorStreamer", "TextStreamer"), "pt.generation.streamers"
    ),
    **dict.fromkeys(
        (
            "GenerateBeamDecoderOnlyOutput",
            "GenerateBeamEncoderDecoderOutput",
            "GenerateDecoderOnlyOutput",
            "GenerateEncoderDecoderOutput",
        ),
        "pt.generation.outputs",
    ),
}
_AUTO = (
    "AutoModel", "AutoModelForPreTraining", "AutoModelForCausalLM", "AutoModelForMaskedLM",
    "AutoModelForNextSentencePrediction", "AutoModelForSequenceClassification", "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering", "AutoModelForMultipleChoice", "AutoModelForImageClassification",
    "AutoModelForMaskedImageModeling", "AutoModelForCTC", "AutoModelForAudioClassification",
    "AutoModelForAudioFrameClassification", "AutoModelForAudioXVector",
    "AutoModelForSeq2SeqLM",
)  # fmt: skip
_FLAX = {
    "FlaxPreTrainedModel": "flax.modeling",
    "FlaxModelOutput": "flax.outputs",
    "FlaxGenerationMixin": "flax.generation.mixin",
    **dict.fromkeys(("FlaxBeamSearchOutput", "FlaxGreedySearchOutput", "FlaxSampleOutput"), "flax.generation.outputs"),
    **dict.fromkeys(
        (
            "FlaxForceTokensLogitsProcessor",
            "FlaxForcedBOSTokenLogitsProcessor",
            "FlaxForcedEOSTokenLogitsProcessor",
            "FlaxLogitsProcessor",
            "FlaxLogitsProcessorList",
            "FlaxLogitsWarper",
            "FlaxMinLengthLogitsProcessor",
            "FlaxSuppressTokensAtBeginLogitsProcessor",
            "FlaxSuppressTokensLogitsProcessor",
            "FlaxTemperatureLogitsWarper",
            "FlaxTopKLogitsWarper",
            "FlaxTopPLogitsWarper",
        ),
        "flax.generation.logits",
    ),
    "FlaxNoRepeatNGramLogitsProcessor": "flax.generation.logits_repeats",
}
_FLAX_AUTO = (
    "FlaxAutoModel",
    "FlaxAutoModelForPreTraining",
    "FlaxAutoModelForCausalLM",
    "FlaxAutoModelForSeq2SeqLM",
    "FlaxAutoModelForMaskedLM",
    "FlaxAutoModelForNextSentencePrediction",
    "FlaxAutoModelForSequenceClassification",
    "FlaxAutoModelForTokenClassification",
    "FlaxAutoModelForQuestionAnswering",
    "FlaxAutoModelForMultipleChoice",
    "FlaxAutoModelForImageClassification",
    "FlaxAutoModelForMaskedImageModeling",
    "FlaxAutoModelForCTC",
    "FlaxAutoModelForAudioClassification",
    "FlaxAutoModelForAudioFrameClassification",
    "FlaxAutoModelForAudioXVector",
)
_TF = {
    "TFPreTrainedModel": "tf.modeling",
    "TFModelOutput": "tf.outputs",
    "TFGenerationMixin": "tf.generation.mixin",
    "PushToHubCallback": "tf.callbacks",
    **dict.fromkeys(
        (
            *("TFBeamSampleOutput", "TFBeamSearchOutput", "TFContrastiveSearchOutput", "TFGreedySearchOutput"),
            "TFSampleOutput",
        ),
        "tf.generation.outputs",
    ),
    **dict.fromkeys(
        (
            "TFForceTokensLogitsProcessor",
            "TFForcedBOSTokenLogitsProcessor",
            "TFForcedEOSTokenLogitsProcessor",
            "TFLogitsProcessor",
            "TFLogitsProcessorList",
            "TFLogitsWarper",
            "TFMinLengthLogitsProcessor",
            "TFSuppressTokensAtBeginLogitsProcessor",
            "TFSuppressTokensLogitsProcessor",
            "TFTemperatureLogitsWarper",
            "TFTopKLogitsWarper",
            "TFTopPLogitsWarper",
        ),
        "tf.generation.logits",
    ),
    **dict.fromkeys(
        ("TFNoRepeatNGramLogitsProcessor", "TFRepetitionPenaltyLogitsProcessor"), "tf.generation.logits_repeats"
    ),
}
_TF_AUTO = (
    "TFAutoModel",
    "TFAutoModelForPreTraining",
    "TFAutoModelForCausalLM",
    "TFAutoModelForSeq2SeqLM",
    "TFAutoModelForMaskedLM",
    "TFAutoModelForNextSentencePrediction",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForTokenClassification",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForMultipleChoice",
    "TFAutoModelForImageClassification",
    "TFAutoModelForMaskedImageModeling",
    "TFAutoModelForCTC",
    "TFAutoModelForAudioClassification",
    "TFAutoModelForAudioFrameClassification",
    "TFAutoModelForAudioXVector",
)


_FIXED = {
    **_CORE,
    **dict.fromkeys(_ERRORS, "errors"),
    **_TORCH,
    **_GENERATION,
    **dict.fromkeys(_AUTO, "auto.classes"),
    **_FLAX,
    **dict.fromkeys(_FLAX_AUTO, "auto.flax_classes"),
    **_TF,
    **dict.fromkeys(_TF_AUTO, "auto.tf_classes"),
}


def _where() -> dict[str, str]:
    """Public name → module, relative to this package."""
    from .auto.registry import family_names

    return {**_FIXED, **family_names()}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _FIXED.get(name) or _where().get(name)
    if module is None:
        raise AttributeError(_unknown(name))
    try:
        value = getattr(importlib.import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from error
    globals()[name] = value
    return value


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(_where()), n=1)
    return f"module {__name__!r} has no attribute {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _missing(name: str, error: ModuleNotFoundError) -> ImportError:
    from .errors import MissingFrameworkError

    package = (error.name or "").partition(".")[0]
    extra = {"torch": "torch", "jax": "flax", "flax": "flax", "tensorflow": "tf", "keras": "tf"}.get(package)
    if extra is None:
        return error
    return MissingFrameworkError(
        f"{name} needs {package}, which is not installed: pip install 'pretrained[{extra}]'", key=name
    )


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *_where()])
