"""TFPreTrainedModel: the facade that gives a TensorFlow model its way from and to a checkpoint.

A subclass declares; nothing is probed for. The hooks:

    config_class               the config it is built from
    module_class               the module: `module_class(config, …)`, and its `call` is the model's
    base_model_prefix          attribute of the module that holds the base model in a class with a head
    main_input_name            name of the first input
    _tied_weights_keys         {name that is not there when tied: name that is}
    _always_tied_keys          the same whatever config.tie_word_embeddings says
    _keys_to_ignore_on_load_missing / _unexpected, _keys_to_ignore_on_save    regular expressions
    _rules                     renames and layout changes between file and model
    _input_embeddings / _output_embeddings / _output_bias    names of these parameters, for resizing
    _head_rows                 {pattern of a name: in how many blocks its rows are heads, or "groups"}, for pruning
    _keras_names               {pattern of a name: what stands for it in names of Keras 2's files}
    _keras_main_layer          what these files call the layer of the base model; None: base_model_prefix, "": nothing
    _keras_shared              {name: further layers of these files that have it, too}
    _keras_list_mark           what stands there between a list's name and the number of an element
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras

from .._types import PathLike
from ..building import is_loading
from ..checkpoint.rules import Rule
from ..configuration import PretrainedConfig
from ..errors import OptionError
from ..generation.config import GenerationConfig
from ..hub.card import CardFacts, new_card
from ..hub.push import PushToHubMixin
from ..hub.upload import Upload
from ..own_code import check_auto_class
from ..saving_texts import split_push
from . import calls, live, loading, saving
from .embeddings import TFEmbeddingsMixin
from .generation.mixin import TFGenerationMixin
from .layers import Module
from .serving import TFServingMixin
from .structure import Structure
from .training import TFTrainingMixin

__all__ = ["TFPreTrainedModel"]

Model = TypeVar("Model", bound="TFPreTrainedModel")


class TFPreTrainedModel(TFGenerationMixin, TFServingMixin, TFTrainingMixin, TFEmbeddingsMixin, PushToHubMixin):
    """Base of all TensorFlow models: a Keras model that comes from a checkpoint and goes to one.

    The parts of its module, such as `bert` and `classifier`, are attributes of the model too.

    Args:
        config: what the model is. It is kept, not copied.
        inputs: kept for callers of older releases; nothing is called on them.
        seed: of the initial parameters and of dropout.
        gradient_checkpointing: whether layers are computed again in the backward pass, to save memory.
        name: what Keras calls the model.
        kwargs: arguments of the module, such as add_pooling_layer.

    Raises:
        OptionError: `config` is no PretrainedConfig, or the module takes no such argument.
        MissingFrameworkError: this is not Keras 3 on TensorFlow.
    """

    config_class: ClassVar[type[PretrainedConfig] | None] = None
    module_class: ClassVar[type[Module] | None] = None
    base_model_prefix: ClassVar[str] = ""
    main_input_name: ClassVar[str] = "input_ids"
    model_tags: ClassVar[list[str] | None] = None
    _auto_class: ClassVar[str | None] = None
    _tied_weights_keys: ClassVar[Mapping[str, str]] = {}
    _always_tied_keys: ClassVar[Mapping[str, str]] = {}
    _keys_to_ignore_on_load_missing: ClassVar[Sequence[str] | None] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[Sequence[str] | None] = None
    _keys_to_ignore_on_save: ClassVar[Sequence[str] | None] = None
    _rules: ClassVar[tuple[Rule, ...]] = ()
    _input_embeddings: ClassVar[str | None] = None
    _output_embeddings: ClassVar[str | None] = None
    _output_bias: ClassVar[str | None] = None
    _head_rows: ClassVar[Mapping[str, Any]] = {}
    _keras_names: ClassVar[Mapping[str, str]] = {}
    _keras_main_layer: ClassVar[str | None] = None
    _keras_shared: ClassVar[Mapping[str, Sequence[str]]] = {}
    _keras_list_mark: ClassVar[str] = "_._"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Keras's files name the class of a model; this is how it is found again.
        keras.saving.register_keras_serializable(package=cls.__module__.partition(".")[0])(cls)

    def __init__(
        self,
        config: PretrainedConfig,
        *inputs: Any,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(config, PretrainedConfig):
            raise OptionError(
                f"{type(self).__name__} is built from a PretrainedConfig, found {type(config).__name__}. To load a "
                f"checkpoint call {type(self).__name__}.from_pretrained(…)",
                key="config",
            )
        live.require_keras(type(self).__name__)
        live.check_arguments(type(self), kwargs)
        super().__init__(name=name, autocast=False)
        self.config = config
        self.name_or_path = config.name_or_path
        self.generation_config: Any = GenerationConfig.from_model_config(config) if self.can_generate() else None
        self.seed = seed
        self._arguments, self._gradient_checkpointing = kwargs, gradient_checkpointing
        self._dropout_seeds = keras.random.SeedGenerator(seed)
        self._loaded_names: dict[str, str] = {}
        self._structure: Any = None
        live.take(self, live.describe(self))
        if not is_loading():
            live.initialise(self)
        self.built = True

    def __getattr__(self, name: str) -> Any:
        module = vars(self).get("module")
        if module is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(module, name)

    # Structure

    @property
    def structure(self) -> Structure:
        """Which parameters there are, and their variables."""
        found: Structure = self._structure
        return found

    @property
    def framework(self) -> str:
        """ "tf"."""
        return "tf"

    @property
    def dtype(self) -> str:
        """That of the parameters."""
        return live.dtype_of(self)

    @property
    def base_model(self) -> Any:
        """The module of the base model; of a class without a head the module itself."""
        return getattr(self.module, self.base_model_prefix, self.module)

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters are."""
        return live.count(self, only_trainable)

    # Calls

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """What the module gives for these inputs.

        Args:
            args: inputs in the order of the module's `call`; or the first is a dict of them.
            training: whether anything is dropped.
            kwargs: further inputs, and `return_dict=False` for a plain tuple.

        Raises:
            OptionError: an input that the module does not take; names the nearest.
        """
        tensors, beside = calls.bind(self, args, kwargs)
        return super().__call__(tensors, training=training, beside=beside)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None, beside: Any = None) -> Any:
        """What `__call__` gives; Keras calls this with tensors by name."""
        return live.call(self, inputs, training, beside)

    # Keras's own files

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes such a model of, for Keras's own files."""
        return {"config": self.config.to_dict(), "arguments": dict(self._arguments), "name": self.name}

    def save_own_variables(self, store: Any) -> None:
        """Puts the variables into one of Keras's own files, under torch's names."""
        live.store_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Takes the variables from one of Keras's own files."""
        live.restore_variables(self, store)

    # Load and save

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        config: PretrainedConfig | PathLike | None = None,
        **kwargs: Any,
    ) -> Any:
        """A model with the parameters of a checkpoint, from any format and without torch.

        Args:
            pretrained_model_name_or_path: a folder, a weight file, a hub name; None with `config` and `state_dict`.
            model_args: passed to the constructor after the config.
            config: in place of the checkpoint's own; an instance is copied, never changed.
            kwargs: `dtype` of the parameters (the checkpoint's by default; under a mixed policy of Keras that of its
                variables), `seed`; the options of docs/loading.md; other keywords override config fields, then
                arguments of the constructor.

        Returns:
            The model; with output_loading_info=True (model, LoadReport).

        Raises:
            SourceError, ConfigError, WeightsFormatError, MismatchError, OptionError: as `PreTrainedModel`'s.
        """
        ref = pretrained_model_name_or_path
        return loading.from_pretrained(lambda options: cls._choose, ref, config, kwargs, model_args)

    @classmethod
    def _choose(cls, config: Any, snapshot: Any = None) -> tuple[type[PretrainedConfig], Any]:
        return cls.config_class or PretrainedConfig, cls

    @classmethod
    def from_config(cls: type[Model], config: Any, **kwargs: Any) -> Model:
        """A model with freshly initialised parameters; the config, which is copied, or what `get_config` gave."""
        if isinstance(config, Mapping):
            found = cls._choose(None)[0].from_dict(config["config"])
            return cls(found, name=config.get("name"), **config.get("arguments", {}), **kwargs)
        return cls(copy.deepcopy(config), **kwargs)

    _from_config = from_config

    def save_pretrained(
        self,
        save_directory: PathLike,
        saved_model: bool = False,
        signatures: Any = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        token: Any = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes config, weights and index. At every instant the folder holds the old checkpoint or the new one.

        Args:
            save_directory: made if it is not there.
            saved_model: writes a SavedModel to `saved_model/1`, too.
            signatures: of that, in place of `{"serving_default": model.serving}`; a `tf.function` or a dict of them.
            push_to_hub: pushes what was written, too; `repo_id` is the folder's name by default.
            max_shard_size: bytes, "500MB" or "2GiB" of arrays in one file.
            token: of a push.
            safe_serialization: True writes safetensors under torch's names, which every framework reads; False
                tf_model.h5, as transformers' TensorFlow classes read it.
            variant: "fp16" writes model.fp16.safetensors.
            kwargs: `is_main_process=False` writes nothing. `durable=False` leaves out the fsync. With
                push_to_hub=True those of `push_to_hub` as well.

        Raises:
            SaveError: nothing was written; what was there is as it was.
            InvalidOptionError, OptionError: an argument that makes no sense.
        """
        extra, push = split_push(push_to_hub, save_directory, {**kwargs, "token": token})
        options = saving.options_for(max_shard_size, safe_serialization, variant, extra)
        saving.save_model(self, save_directory, options, push, signatures, saved_model=saved_model)

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        if type(self).save_pretrained is not TFPreTrainedModel.save_pretrained:
            return super()._push_files(upload, saved)
        saving.push_model(self, upload, saved)

    def _card_facts(self) -> CardFacts:
        return saving.card_facts(self)

    def create_model_card(
        self,
        output_dir: PathLike,
        model_name: str,
        license: str | None = None,
        tags: Sequence[str] = (),
        finetuned_from: str | None = None,
        **metadata: Any,
    ) -> None:
        """Writes README.md: what the model is and how to load it.

        Args:
            output_dir: made if it is not there.
            model_name: of the model, or of its repository.
            license: of the model, such as "apache-2.0".
            tags: words that describe it.
            finetuned_from: the repository that it comes from; known by itself for one that was loaded from there.
            metadata: further fields of a card's metadata, such as `language` and `datasets`.
        """
        facts = saving.card_facts(self)
        saving.write_card(output_dir, new_card(model_name, facts, tags, finetuned_from, license, metadata))

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "TFAutoModel") -> None:
        """Makes saves write the source of this class and of its config beside the weights, named in auto_map.

        Raises:
            InvalidOptionError: `auto_class` is no auto model class nor its name.
        """
        cls._auto_class = check_auto_class(auto_class, config=False)
