"""AutoConfig, AutoModel and its heads."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from .._types import PathLike, Snapshot
from ..checkpoint.find import settle
from ..configuration import PretrainedConfig
from ..errors import ConfigError, InvalidOptionError, MissingFrameworkError, OptionError
from ..hub.ref import resolve
from ..options import LoadOptions, SourceOptions, split_load_options
from . import registry

__all__ = ["AutoConfig", *registry.AUTO_NAMES]

_NO_OPTIONS = LoadOptions()
_OURS = f"{__package__.partition('.')[0]}."


class AutoConfig:
    """The config class that a checkpoint's model_type names. Not to be instantiated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OptionError("AutoConfig is not instantiated; call AutoConfig.from_pretrained or AutoConfig.for_model")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: PathLike, **kwargs: Any) -> Any:
        """A config from a folder, hub name or config.json; other keywords override fields.

        Raises:
            SourceError: no config.json there. ConfigError: damaged, impossible, or of unknown model_type.
        """
        values, rest = PretrainedConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
        places = SourceOptions.__dataclass_fields__
        options, _ = split_load_options({k: v for k, v in kwargs.items() if k in _CODE or k in places})
        remote = _remote_class("AutoConfig", values, options, None, pretrained_model_name_or_path)
        found = remote or registry.config_class_for(values, str(values["_name_or_path"]))
        return found.from_dict(values, **rest)

    @staticmethod
    def for_model(model_type: str, **kwargs: Any) -> Any:
        """A config of that type with its defaults; keywords set fields."""
        return registry.config_class_for({"model_type": model_type})(**kwargs)

    @staticmethod
    def register(model_type: str, config: type[PretrainedConfig], exist_ok: bool = False) -> None:
        """Makes `config` the class for `model_type`.

        Raises:
            InvalidOptionError: the class says another model_type, or the type is taken.
        """
        if config.model_type and config.model_type != model_type:
            raise InvalidOptionError(
                f"{config.__name__}.model_type is {config.model_type!r}, not {model_type!r}", key="model_type"
            )
        registry.register(model_type, config, exist_ok=exist_ok)


class AnyAutoModel:
    """A head, whatever the family. Not to be instantiated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise OptionError(f"{name} is not instantiated; call {name}.from_pretrained or {name}.from_config")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: PathLike | None, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """A model of the class that the checkpoint's model_type and this head name, with its weights, in eval mode.

        Takes what `PreTrainedModel.from_pretrained` takes and raises what it raises; besides, ConfigError for a
        model_type nobody knows and InvalidOptionError for a family that has no such head.
        """
        return cls._load(pretrained_model_name_or_path, config, kwargs, model_args)

    @classmethod
    def _load(cls, ref: PathLike | None, config: Any, keywords: Mapping[str, Any], model_args: tuple[Any, ...]) -> Any:
        """The load itself, in torch."""
        from ..loading import load

        backend = framework_part(cls.__name__, "torch", "pt.backend").TorchBackend
        options, rest = split_load_options({"config": config, **keywords})
        model, report = load(partial(cls._choose, options=options), ref, options, rest, backend, model_args)
        return (model, report) if options.output_loading_info else model

    @classmethod
    def _choose(
        cls,
        config: PretrainedConfig | Mapping[str, Any],
        snapshot: Snapshot | None = None,
        options: LoadOptions = _NO_OPTIONS,
    ) -> tuple[type[PretrainedConfig], Any]:
        """The config class of a config.json, and of a config the model class as well."""
        if isinstance(config, PretrainedConfig):
            remote = _remote_class(cls.__name__, config.to_dict(), options, snapshot)
            return type(config), remote or registry.model_class_for(cls.__name__, config)
        remote = _remote_class("AutoConfig", config, options, snapshot)
        return remote or registry.config_class_for(config, str(config.get("_name_or_path", ""))), None

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Any:
        """A model with freshly initialised weights. `trust_remote_code=True` runs the code the config came with."""
        if not isinstance(config, PretrainedConfig):
            raise ConfigError(f"{cls.__name__}.from_config takes a config, found {type(config).__name__}", key="config")
        options, _ = split_load_options({name: kwargs[name] for name in _CODE & kwargs.keys()})
        found: Any = _remote_class(cls.__name__, config.to_dict(), options, None, config.name_or_path)
        found = found or registry.model_class_for(cls.__name__, config)
        return found.from_config(config, **{name: value for name, value in kwargs.items() if name not in _CODE})

    @classmethod
    def register(cls, config_class: type[PretrainedConfig], model_class: type, exist_ok: bool = False) -> None:
        """Makes `model_class` what this head means for `config_class`.

        Raises:
            InvalidOptionError: the model class is built from another config, or the place is taken.
        """
        wanted = getattr(model_class, "config_class", None)
        if wanted is not None and not issubclass(config_class, wanted):
            raise InvalidOptionError(
                f"{model_class.__name__} is built from {wanted.__name__}, not {config_class.__name__}",
                key="config_class",
            )
        registry.register((cls.__name__, config_class), model_class, exist_ok=exist_ok)


_CODE = {"trust_remote_code", "code_revision"}


def _remote_class(
    auto_name: str, values: Mapping[str, Any], options: LoadOptions, snapshot: Snapshot | None, ref: PathLike = ""
) -> Any:
    """The class that a checkpoint brings for `auto_name`, if it brings one and the caller trusts it; else None."""
    if not options.trust_remote_code or not isinstance(values.get("auto_map"), Mapping):
        return None
    from . import remote_code

    place = remote_code.class_place(values["auto_map"], auto_name, values.get("_config_file"))
    if place is None:
        return None
    snapshot = snapshot or settle(resolve(ref, options.source))
    found: Any = remote_code.load_class(place, values["auto_map"], snapshot, options.source, options.code_revision)
    prefix = auto_name.partition("Auto")[0]
    wanted = "PretrainedConfig" if auto_name == "AutoConfig" else f"{prefix}PreTrainedModel"
    if all(base.__name__ != wanted or not base.__module__.startswith(_OURS) for base in found.__mro__):
        raise InvalidOptionError(f"{place} is no {wanted} of this library", key="auto_map", path=snapshot.name)
    found.register_for_auto_class(auto_name)  # so that a save takes the code along
    return found


def framework_part(name: str, framework: str, module: str) -> Any:
    """A module of this package that needs `framework`, the name of an extra.

    Raises:
        MissingFrameworkError: what it needs is not installed; `name` is what asked.
    """
    packages = {"torch": ("torch",), "flax": ("jax", "flax"), "tf": ("tensorflow", "keras")}[framework]
    try:
        return importlib.import_module(f"{_OURS}{module}")
    except ModuleNotFoundError as error:
        if error.name not in packages:
            raise
        raise MissingFrameworkError(
            f"{name} needs {error.name}, which is not installed: pip install 'pretrained[{framework}]'", key=name
        ) from error


class AutoModel(AnyAutoModel):
    """The base model of a checkpoint, without a head."""


class AutoModelForPreTraining(AnyAutoModel):
    """The model with the heads it was pretrained with."""


class AutoModelForCausalLM(AnyAutoModel):
    """The model with a head that predicts the next token."""


class AutoModelForSeq2SeqLM(AnyAutoModel):
    """The model with an encoder, and a decoder with a head that predicts the next token."""


class AutoModelForMaskedLM(AnyAutoModel):
    """The model with a head that predicts masked tokens."""


class AutoModelForNextSentencePrediction(AnyAutoModel):
    """The model with a head that tells whether one sentence follows another."""


class AutoModelForSequenceClassification(AnyAutoModel):
    """The model with a head that classifies whole sequences."""


class AutoModelForTokenClassification(AnyAutoModel):
    """The model with a head that classifies each token."""


class AutoModelForQuestionAnswering(AnyAutoModel):
    """The model with a head that finds where an answer starts and ends."""


class AutoModelForMultipleChoice(AnyAutoModel):
    """The model with a head that scores each of several choices."""


class AutoModelForImageClassification(AnyAutoModel):
    """The model with a head that classifies whole images."""


class AutoModelForMaskedImageModeling(AnyAutoModel):
    """The model with a head that fills in masked parts of an image."""


class AutoModelForCTC(AnyAutoModel):
    """The model with a head that reads speech as text, frame by frame."""


class AutoModelForAudioClassification(AnyAutoModel):
    """The model with a head that classifies whole recordings."""


class AutoModelForAudioFrameClassification(AnyAutoModel):
    """The model with a head that classifies each frame of a recording."""


class AutoModelForAudioXVector(AnyAutoModel):
    """The model with a head that tells speakers apart."""
