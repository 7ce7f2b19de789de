"""FlaxPreTrainedModel: the facade that gives a JAX model its way from and to a checkpoint.

A subclass declares; nothing is probed for. The hooks:

    config_class               the config it is built from
    module_class               the NNX module: `module_class(config, …)`, and its `__call__` is the model's
    base_model_prefix          attribute of the module that holds the base model in a class with a head
    main_input_name            name of the first input
    _tied_weights_keys         {name that is not there when tied: name that is}
    _always_tied_keys          the same whatever config.tie_word_embeddings says
    _keys_to_ignore_on_load_missing / _unexpected, _keys_to_ignore_on_save    regular expressions
    _rules                     renames and layout changes between file and model
    _input_embeddings / _output_embeddings / _output_bias    names of these parameters, for resizing
    _head_rows                 {pattern of a name: in how many blocks its rows are heads, or "groups"}, for pruning
    _sharding_rules            {pattern of a name: the mesh axis of each dimension in torch}, for a mesh without rules
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
from flax import nnx

from .._types import PathLike
from ..building import is_loading
from ..checkpoint.rules import Rule
from ..configuration import PretrainedConfig
from ..errors import OptionError
from ..generation.config import GenerationConfig
from ..hub.card import CardFacts
from ..hub.push import PushToHubMixin
from ..hub.upload import Upload
from ..own_code import check_auto_class
from ..saving_texts import split_push
from . import calls, casting, heads, live, loading, resizing, saving
from .generation.mixin import FlaxGenerationMixin
from .sharding import Placing
from .structure import Structure

__all__ = ["FlaxPreTrainedModel"]

Model = TypeVar("Model", bound="FlaxPreTrainedModel")
Params = Mapping[str, Any]


class FlaxPreTrainedModel(FlaxGenerationMixin, PushToHubMixin):
    """Base of all JAX models: parameters as a plain nested dict, calls that are functions of them, loading, saving.

    Args:
        config: what the model is. It is kept, not copied.
        module: an NNX module class's instance is made from `module_class` unless one is given here.
        input_shape: kept for callers of older releases; shapes follow from the config.
        seed: of the initial parameters.
        dtype: that calls compute in; None for that of the parameters.
        _do_init: False leaves the model without parameters: every call is given some.
        gradient_checkpointing: whether layers are computed again in the backward pass, to save memory.
        kwargs: arguments of the module, such as add_pooling_layer.

    Raises:
        OptionError: `config` is no PretrainedConfig, or the module takes no such argument.
    """

    config_class: ClassVar[type[PretrainedConfig] | None] = None
    module_class: ClassVar[type[nnx.Module] | None] = None
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
    _sharding_rules: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        config: PretrainedConfig,
        module: nnx.Module | None = None,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = None,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(config, PretrainedConfig):
            raise OptionError(
                f"{type(self).__name__} is built from a PretrainedConfig, found {type(config).__name__}. To load a "
                f"checkpoint call {type(self).__name__}.from_pretrained(…)",
                key="config",
            )
        live.check_arguments(type(self), kwargs)
        self.config = config
        self.name_or_path = config.name_or_path
        self.generation_config: Any = GenerationConfig.from_model_config(config) if self.can_generate() else None
        self.input_shape, self.seed, self.key = input_shape, seed, jax.random.key(seed)
        self._dtype, self._gradient_checkpointing, self._arguments = dtype, gradient_checkpointing, kwargs
        self._given = module
        self._is_initialized = _do_init
        self._values: Any = None  # nested dict of arrays
        self._live: nnx.Module | None = None  # the module, once somebody has it: then it holds the arrays
        self._made: calls.Program | None = None
        self._loaded_names: dict[str, str] = {}
        self._missing_keys: set[str] = set()
        self._placing: Placing | None = None  # the mesh it was loaded onto
        if _do_init and not is_loading():
            self._values = self.init_weights(self.key, input_shape)

    # Structure

    @property
    def _program(self) -> calls.Program:
        """The structure of this model and its compiled calls."""
        if self._made is None:
            self._made = live.program_of(self)
        return self._made

    @property
    def structure(self) -> Structure:
        """Which parameters there are."""
        return self._program.structure

    @property
    def framework(self) -> str:
        """ "flax"."""
        return "flax"

    @property
    def dtype(self) -> Any:
        """What calls compute in: as asked, or that of the parameters."""
        return live.dtype_of(self)

    @property
    def params_shape_tree(self) -> dict[str, Any]:
        """A nested dict like `params`, of shapes and dtypes."""
        return self.structure.shapes()

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The path of every parameter there has to be."""
        return {place.path for place in self.structure.places}

    # Parameters

    def param_shardings(
        self, mesh: jax.sharding.Mesh, sharding_rules: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A nested dict like `params`, of the NamedSharding that each has on a mesh; see `from_pretrained`.

        For `jax.device_put`, and for in_shardings and out_shardings of `jax.jit`.

        Raises:
            InvalidOptionError: a mesh or a rule that makes no sense.
        """
        return live.shardings_on(self, mesh, sharding_rules)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters, a nested dict of arrays as torch lays them out.

        Raises:
            ValueError: the model was made with `_do_init=False` and has none.
        """
        return live.params_of(self)

    @params.setter
    def params(self, params: Params) -> None:
        live.set_params(self, params)

    @property
    def module(self) -> Any:
        """The NNX module with the parameters, for `nnx.jit`, `nnx.grad` and optimizers; `params` follows what they do.

        Raises:
            ValueError: the model was made with `_do_init=False`; see `to_nnx`.
        """
        return live.module_of(self)

    def to_nnx(self, params: Params | None = None) -> Any:
        """A new NNX module with `params`, or with the model's own arrays."""
        return self.structure.module(self.params if params is None else params)

    @classmethod
    def from_nnx(cls: type[Model], module: nnx.Module, config: PretrainedConfig, **kwargs: Any) -> Model:
        """A model with the parameters that an NNX module of this class's structure holds.

        Raises:
            InvalidOptionError: the module has other parameters.
        """
        model = cls(config, _do_init=False, **kwargs)
        model._is_initialized = True
        model.params = model.structure.params(module)
        return model

    def init_weights(
        self, rng: jax.Array, input_shape: tuple[int, ...] | None = None, params: Params | None = None
    ) -> dict[str, Any]:
        """Initial parameters, or `params` with what they lack; a function of `rng`, and traceable."""
        return live.initial_params(self, rng, params)

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters are; all of them are trainable."""
        return live.count(self)

    def to_bf16(self, params: Params, mask: Any = None) -> Any:
        """`params` with floating arrays as bfloat16, where a mask of the same structure is true."""
        return casting.cast(params, "bfloat16", mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Any:
        """The same as float16."""
        return casting.cast(params, "float16", mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Any:
        """The same as float32."""
        return casting.cast(params, "float32", mask)

    # Calls

    def __call__(
        self,
        *args: Any,
        params: Params | None = None,
        dropout_rng: jax.Array | None = None,
        train: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the module gives for these inputs, compiled; a pure function of `params`.

        Args:
            args: inputs in the order of the module's `__call__`.
            params: in place of the model's own.
            dropout_rng: the key of what is dropped in training.
            train: whether anything is.
            return_dict: False for a plain tuple.
            kwargs: further inputs.

        Raises:
            OptionError: an input that the module does not take; names the nearest.
            ValueError: there are no parameters, or `train=True` came without `dropout_rng`.
        """
        inputs = calls.bind(self._module_class, args, kwargs)
        return live.call(self, inputs, params, dropout_rng, train, return_dict)

    @property
    def _module_class(self) -> Any:
        return type(self._given) if self._given is not None else self.module_class

    def enable_gradient_checkpointing(self) -> None:
        """In the backward pass layers are computed again instead of kept."""
        self._set_gradient_checkpointing(True)

    def disable_gradient_checkpointing(self) -> None:
        """Takes `enable_gradient_checkpointing` back."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, enable: bool) -> None:
        live.rebuild(self, gradient_checkpointing=enable)

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
            kwargs: `dtype` to compute in, `param_dtype` of the parameters (the checkpoint's by default), `seed`,
                `_do_init`, `mesh` and `sharding_rules` (docs/sharding.md); the options of docs/loading.md; other
                keywords override config fields, then arguments of the module.

        Returns:
            The model; with `_do_init=False`, (model, params). With output_loading_info=True a LoadReport comes last.

        Raises:
            SourceError, ConfigError, WeightsFormatError, MismatchError, OptionError: as `PreTrainedModel`'s.
        """
        ref = pretrained_model_name_or_path
        return loading.from_pretrained(lambda options: cls._choose, ref, config, kwargs, model_args)

    @classmethod
    def _choose(cls, config: Any, snapshot: Any = None) -> tuple[type[PretrainedConfig], Any]:
        return cls.config_class or PretrainedConfig, cls

    @classmethod
    def load_flax_sharded_weights(cls, shard_files: Iterable[PathLike]) -> dict[str, Any]:
        """The parameters in a checkpoint's files, msgpack or safetensors, as one nested dict."""
        return loading.params_in(cls, shard_files)

    @classmethod
    def from_config(cls: type[Model], config: PretrainedConfig, **kwargs: Any) -> Model:
        """A model with freshly initialised parameters; the config is copied."""
        return cls(copy.deepcopy(config), **kwargs)

    _from_config = from_config

    def save_pretrained(
        self,
        save_directory: PathLike,
        params: Params | None = None,
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
            params: written in place of the model's own.
            push_to_hub: pushes what was written, too; `repo_id` is the folder's name by default.
            max_shard_size: bytes, "500MB" or "2GiB" of arrays in one file.
            token: of a push.
            safe_serialization: True writes safetensors under torch's names, which every framework reads; False
                flax_model.msgpack, as transformers' Flax classes read it.
            variant: "fp16" writes model.fp16.safetensors.
            kwargs: `is_main_process=False` writes nothing, unless arrays are spread over several processes: then each
                has to call this, and writes what it holds. `durable=False` leaves out the fsync. With push_to_hub=True
                those of `push_to_hub` as well.

        Raises:
            SaveError: nothing was written; what was there is as it was.
            InvalidOptionError, OptionError: an argument that makes no sense.
        """
        extra, push = split_push(push_to_hub, save_directory, {**kwargs, "token": token})
        options = saving.options_for(max_shard_size, safe_serialization, variant, extra)
        saving.save_model(self, save_directory, params, options, push)

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        if type(self).save_pretrained is not FlaxPreTrainedModel.save_pretrained:
            return super()._push_files(upload, saved)
        saving.push_model(self, upload, saved)

    def _card_facts(self) -> CardFacts:
        return saving.card_facts(self)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "FlaxAutoModel") -> None:
        """Makes saves write the source of this class and of its config beside the weights, named in auto_map.

        Raises:
            InvalidOptionError: `auto_class` is no auto model class nor its name.
        """
        cls._auto_class = check_auto_class(auto_class, config=False)

    # Parts

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        params: Params | None = None,
    ) -> dict[str, Any]:
        """Another number of tokens, at the end; the head and the config follow. Returns the parameters that result.

        Args:
            new_num_tokens: how many there are to be; None leaves the number, or only rounds it.
            pad_to_multiple_of: the number is rounded up to a multiple of this.
            mean_resizing: whether a new row is drawn near the mean of the old ones rather than as at first.
            params: what to resize, of a model that has none of its own.

        Raises:
            InvalidOptionError: a size that is no positive integer. NotImplementedError: the model has no tokens.
        """
        return resizing.resize_tokens(self, new_num_tokens, pad_to_multiple_of, mean_resizing, params)

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]], params: Params | None = None) -> dict[str, Any]:
        """Takes attention heads out for good: {layer: [heads]}, numbered as they were at first; returns parameters.

        Raises:
            InvalidOptionError: there is no such head. NotImplementedError: the class cannot be pruned.
        """
        return heads.prune(self, heads_to_prune, params)
