"""Which families there are and which class each auto name leads to; only the wanted family is ever imported."""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Mapping
from typing import Any

from ..configuration import PretrainedConfig
from ..errors import ConfigError, InvalidOptionError, UntrustedCodeError

__all__ = [
    "AUTO_NAMES", "FLAX_AUTO_NAMES", "TF_AUTO_NAMES", "config_class_for", "family_names", "known_types",
    "model_class_for", "register",
]  # fmt: skip

# model_type → folder below models/, whose family.py has the rest.
FOLDERS: Mapping[str, str] = {
    "bert": "bert",
    "distilbert": "distilbert",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "roberta": "roberta",
    "t5": "t5",
    "vit": "vit",
    "wav2vec2": "wav2vec2",
    "xlm-roberta": "roberta",
}

AUTO_NAMES = (
    "AutoModel",
    "AutoModelForPreTraining",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForNextSentencePrediction",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
    "AutoModelForImageClassification",
    "AutoModelForMaskedImageModeling",
    "AutoModelForCTC",
    "AutoModelForAudioClassification",
    "AutoModelForAudioFrameClassification",
    "AutoModelForAudioXVector",
)

FLAX_AUTO_NAMES = (
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

TF_AUTO_NAMES = (
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

_lock = threading.Lock()
_own_configs: dict[str, type[PretrainedConfig]] = {}  # what callers registered
_own_models: dict[tuple[str, type[PretrainedConfig]], type] = {}


def _package(model_type: str) -> str:
    return f"{__package__.rpartition('.')[0]}.models.{FOLDERS[model_type]}"


def _family(model_type: str) -> Any:
    family = importlib.import_module(f"{_package(model_type)}.family").FAMILY
    return family.siblings.get(model_type, family)


def _import(model_type: str, place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{_package(model_type)}.{module}"), name)


def known_types() -> list[str]:
    """Every model_type that can be built, sorted."""
    return sorted({*FOLDERS, *_own_configs})


def family_names() -> dict[str, str]:
    """Public class name → module below this package, of all families."""
    table: dict[str, str] = {}
    for model_type, folder in FOLDERS.items():
        family = _family(model_type)
        for place in (family.config, *family.pt.values(), *family.flax.values(), *family.tf.values(), *family.names):
            module, _, name = place.partition(":")
            table[name] = f"models.{folder}.{module}"
    return table


def config_class_for(values: Mapping[str, Any], source: str = "") -> type[PretrainedConfig]:
    """The config class of a config.json.

    Raises:
        ConfigError: no model_type, or one nobody knows; names the nearest.
        UntrustedCodeError: the type is unknown and the checkpoint brings code for it.
    """
    model_type = values.get("model_type")
    where = f"{source}: " if source else ""
    path = values.get("_config_file", source or None)
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(
            f"{where}config.json has no usable model_type (found {model_type!r:.80}); load with the model's own class, "
            f"or set it to one of: {', '.join(known_types())}",
            key="model_type",
            path=path,
        )
    if model_type in _own_configs:
        return _own_configs[model_type]
    if model_type in FOLDERS:
        found: type[PretrainedConfig] = _import(model_type, _family(model_type).config)
        return found
    if isinstance(values.get("auto_map"), Mapping):
        code = ", ".join(sorted(map(str, values["auto_map"].values())))[:300]
        raise UntrustedCodeError(
            f"{where}model_type {model_type!r:.80} is unknown and the checkpoint brings code for it ({code}), which is "
            "not run. Read it, then pass trust_remote_code=True; or import its classes yourself and call "
            "AutoConfig.register and AutoModel.register",
            key="auto_map",
            path=path,
        )
    near = difflib.get_close_matches(model_type, known_types(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(
        f"{where}unknown model_type {model_type!r:.80}{hint} Known: {', '.join(known_types())}",
        key="model_type",
        path=path,
    )


def model_class_for(auto_name: str, config: PretrainedConfig) -> type:
    """The model class that `auto_name` means for this config.

    Raises:
        InvalidOptionError: the family has no such head; says which it has.
    """
    for cls in type(config).__mro__:
        if (auto_name, cls) in _own_models:
            return _own_models[auto_name, cls]
    model_type = config.model_type
    heads = _heads(_family(model_type), auto_name) if model_type in FOLDERS else {}
    if auto_name in heads:
        found: type = _import(model_type, heads[auto_name])
        return found
    own = (name for name, cls in _own_models if isinstance(config, cls) and _prefix(name) == _prefix(auto_name))
    have = sorted({*heads, *own})
    raise InvalidOptionError(
        f"{auto_name} has no class for {type(config).__name__} (model_type {model_type!r}); there is: "
        f"{', '.join(have) or 'none'}. {auto_name}.register adds one",
        key="model_type",
    )


def _prefix(auto_name: str) -> str:
    """ "", "Flax" or "TF": whose auto class it is."""
    return auto_name.partition("Auto")[0]


def _heads(family: Any, auto_name: str) -> Mapping[str, str]:
    """The classes of a family in the framework of an auto class."""
    found: Mapping[str, str] = {"": family.pt, "Flax": family.flax, "TF": family.tf}[_prefix(auto_name)]
    return found


def register(key: Any, value: type, *, exist_ok: bool = False) -> None:
    """Notes a config class under its model_type, or a model class under (auto name, config class).

    Raises:
        InvalidOptionError: the place is taken and `exist_ok` is False.
    """
    with _lock:
        table: dict[Any, Any] = _own_configs if isinstance(key, str) else _own_models
        taken = key in table or (isinstance(key, str) and key in FOLDERS)
        if taken and not exist_ok:
            raise InvalidOptionError(f"{key!r} is registered already; pass exist_ok=True to replace it", key=str(key))
        table[key] = value
