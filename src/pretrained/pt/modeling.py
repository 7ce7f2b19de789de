"""PreTrainedModel: the facade that gives a torch model its way from and to a checkpoint.

A subclass declares; nothing is probed for. The hooks:

    config_class               the config it is built from
    base_model_prefix          attribute that holds the base model in a class with a head
    main_input_name            name of the first tensor of forward
    _init_weights(module)      initial values for the parameters directly in `module`
    _tied_weights_keys         {target: source}, or a list of secondary names
    _tie_weights()             ties what a table cannot say
    _prune_heads(heads)        takes attention heads out of the layers; see heads.py
    _position_embeddings       where the base model has its table of absolute positions
    supports_gradient_checkpointing    the module that loops over layers has `gradient_checkpointing = False`
    _keys_to_ignore_on_load_missing / _unexpected, _keys_to_ignore_on_save    regular expressions
    _keep_in_fp32_modules      parts of names whose parameters stay float32 in a float16 model
    _no_split_modules          classes that stay on one device
    loss_type                  "ForCausalLM" where the loss leaves out the first label of each row; trainers ask
    _supports_sdpa             forward uses config._attn_implementation and knows "sdpa"
    _rules                     renames and layout changes between file and model
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .._types import PathLike
from ..checkpoint.dtypes import dtype_name
from ..checkpoint.rules import AnyRule
from ..configuration import PretrainedConfig
from ..errors import InvalidOptionError, OptionError
from ..generation.config import GenerationConfig
from ..hub.card import CardFacts
from ..hub.push import PushToHubMixin
from ..hub.upload import Upload
from ..loading import load, split_model_keywords
from ..options import split_load_options
from ..own_code import check_auto_class
from ..saving import save_options
from ..saving_texts import split_push
from . import heads, saving, tf_weights, training, tying
from .adapters import PeftAdapterMixin
from .attention import ATTENTION
from .backend import TorchBackend
from .embeddings import EmbeddingAccessMixin
from .generation.mixin import GenerationMixin, defines_generation
from .init import init_all
from .module_utils import ModuleUtilsMixin
from .quantization.base import nbytes_of
from .skeleton import is_building

__all__ = ["PreTrainedModel"]

Model = TypeVar("Model", bound="PreTrainedModel")


class PreTrainedModel(
    nn.Module, EmbeddingAccessMixin, ModuleUtilsMixin, PeftAdapterMixin, GenerationMixin, PushToHubMixin
):
    """Base of all torch models: loading, saving, initialising, tying, embeddings.

    Args:
        config: what the model is. It is kept, not copied.

    Raises:
        OptionError: `config` is no PretrainedConfig.
        InvalidOptionError: the config asks for an attention implementation that there is not.
    """

    config_class: ClassVar[type[PretrainedConfig] | None] = None
    base_model_prefix: ClassVar[str] = ""
    main_input_name: ClassVar[str] = "input_ids"
    model_tags: ClassVar[list[str] | None] = None
    is_parallelizable: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = False
    loss_type: ClassVar[str | None] = None
    _auto_class: ClassVar[str | None] = None
    _no_split_modules: ClassVar[list[str] | None] = None
    _skip_keys_device_placement: ClassVar[Any] = None
    _keep_in_fp32_modules: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_missing: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _tied_weights_keys: ClassVar[Any] = None
    _supports_sdpa: ClassVar[bool] = False
    _rules: ClassVar[tuple[AnyRule, ...]] = ()
    _is_any_model: ClassVar[bool] = True  # the mixin among these bases does not say that all models generate
    hf_quantizer: Any = None  # what quantized the model, on one that is
    is_quantized: bool = False
    is_loaded_in_4bit: bool = False
    is_loaded_in_8bit: bool = False
    quantization_method: str | None = None
    hf_device_map: dict[str, int | str]  # only on a model that was loaded with device_map=

    def __init__(self, config: PretrainedConfig, *inputs: Any, **kwargs: Any) -> None:
        super().__init__()
        if not isinstance(config, PretrainedConfig):
            raise OptionError(
                f"{type(self).__name__} is built from a PretrainedConfig, found {type(config).__name__}. To load a "
                f"checkpoint call {type(self).__name__}.from_pretrained(…)",
                key="config",
            )
        _choose_attention(config, type(self))
        self.config = config
        self.name_or_path = config.name_or_path
        self.generation_config: Any = GenerationConfig.from_model_config(config) if self.can_generate() else None
        self._loaded_names: dict[str, str] = {}
        self.warnings_issued: dict[str, bool] = {}
        self._require_grads_hook: Any = None

    def post_init(self) -> None:
        """Initialises and ties the weights; the last line of every constructor."""
        self.init_weights()

    def init_weights(self) -> None:
        """Prunes as configured; runs `_init_weights` where it has not been, and ties, which a load does by itself."""
        if self.config.pruned_heads:
            heads.prune_as_configured(self)
        if not is_building():
            init_all(self)
            self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initial values for the parameters directly in `module`; what the layer itself gives, unless overridden."""

    # Load and save

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: PathLike | None,
        *model_args: Any,
        config: PretrainedConfig | PathLike | None = None,
        **kwargs: Any,
    ) -> Any:
        """A model with the weights of a checkpoint, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, a weight file, a hub name; None with `config` and `state_dict`.
            model_args: passed to the constructor after the config.
            config: in place of the checkpoint's own; an instance is copied, never changed.
            kwargs: the options of docs/loading.md; other keywords override config fields, then constructor arguments.

        Returns:
            The model; with output_loading_info=True, (model, LoadReport).

        Raises:
            SourceError: nothing loadable at that place. ConfigError: the config is damaged or impossible.
            WeightsFormatError: a weight file is damaged. MismatchError: checkpoint and model do not fit.
            OptionError: a keyword nobody knows; names the nearest.
        """
        options, keywords = split_load_options({"config": config, **kwargs})
        ref = pretrained_model_name_or_path
        model, report = load(cls._choose, ref, options, keywords, TorchBackend, model_args)
        return (model, report) if options.output_loading_info else model

    @classmethod
    def _choose(cls, config: Any, snapshot: Any = None) -> tuple[type[PretrainedConfig], Any]:
        return cls.config_class or PretrainedConfig, cls

    @staticmethod
    def load_tf_weights(model: nn.Module, config: PretrainedConfig, path: PathLike) -> nn.Module:
        """The model, filled from TensorFlow's weights at `path`: `folder/model.ckpt`, its .index, or an .h5 file."""
        return tf_weights.load_tf_weights(model, config, path)

    @classmethod
    def from_config(cls: type[Model], config: PretrainedConfig, **kwargs: Any) -> Model:
        """A model with freshly initialised weights.

        Args:
            config: what to build; it is copied.
            kwargs: `dtype` (or torch_dtype), `attn_implementation`, config fields, constructor arguments.

        Raises:
            OptionError: a keyword nobody knows.
        """
        options, keywords = split_load_options(kwargs, can_quantize=False)
        config = copy.deepcopy(config)
        fields, arguments = split_model_keywords(cls, config, keywords)
        for name, value in fields.items():
            config.override(name, value)
        config._attn_implementation = options.attn_implementation or config._attn_implementation
        model = cls(config, **arguments)
        if options.dtype is not None:
            name = config.dtype if options.dtype == "auto" else dtype_name(options.dtype)
            model.to(getattr(torch, name or "float32"))
            config.dtype = name
        return model

    _from_config = from_config

    def save_pretrained(
        self,
        save_directory: PathLike,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Callable[..., Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Writes config, weights and index. At every instant the folder holds the old checkpoint or the new one.

        Args:
            save_directory: made if it is not there.
            is_main_process: False writes nothing: of several processes one saves.
            state_dict: written in place of the model's own.
            save_function: called as save_function({name: tensor}, path) in place of torch.save; with
                safe_serialization=True it is not used.
            push_to_hub: pushes what was written, too; `repo_id` is the folder's name by default.
            max_shard_size: bytes, "500MB" or "2GiB" of tensors in one file.
            safe_serialization: False writes torch's pytorch_model.bin.
            variant: "fp16" writes model.fp16.safetensors.
            kwargs: `durable=False` leaves out the fsync: still safe against a killed process, not against a power cut.
                `blocking=False` copies the tensors, returns a Future at once and writes in the background.
                With push_to_hub=True those of `push_to_hub` as well.

        Returns:
            None; with `blocking=False` a concurrent.futures.Future of the SaveReport.

        Raises:
            SaveError: nothing was written; what was there is as it was.
            InvalidOptionError, OptionError: an argument that makes no sense.
        """
        extra, push = split_push(push_to_hub, save_directory, kwargs)
        options = save_options(is_main_process, state_dict, max_shard_size, safe_serialization, variant, extra)
        saved = saving.save_model(self, save_directory, options, save_function, push)
        return None if options.blocking else saved

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        if type(self).save_pretrained is not PreTrainedModel.save_pretrained:  # a class that writes more, or otherwise
            return super()._push_files(upload, saved)
        saving.push_model(self, upload, saved)

    def _card_facts(self) -> CardFacts:
        return saving.card_facts(self)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Makes saves write the source of this class and of its config beside the weights, named in auto_map.

        Raises:
            InvalidOptionError: `auto_class` is no auto model class nor its name.
        """
        cls._auto_class = check_auto_class(auto_class, config=False)

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the class generates sequences: it defines prepare_inputs_for_generation, or names the mixin."""
        return defines_generation(cls)

    # The parts

    @property
    def base_model(self) -> nn.Module:
        """The model without its head; itself if it has none."""
        return getattr(self, self.base_model_prefix, self) if self.base_model_prefix else self

    @property
    def framework(self) -> str:
        """ "pt"."""
        return "pt"

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether forward takes `num_items_in_batch`: then trainers that add up calls count the labels."""
        return "num_items_in_batch" in inspect.signature(type(self).forward).parameters

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A batch that the forward pass takes: `input_ids` of shape `(3, 5)`."""
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    def tie_weights(self, **kwargs: Any) -> None:
        """Makes tied names hold one tensor, as the config and the class say."""
        tying.tie(self)

    def _tie_or_clone_weights(self, output_embeddings: nn.Module, input_embeddings: nn.Module) -> None:
        """Ties one layer to another; what `_tie_weights` of a class calls."""
        tying.tie_layers(output_embeddings, input_embeddings)

    @staticmethod
    def _tie_encoder_decoder_weights(
        encoder: nn.Module, decoder: nn.Module, base_model_prefix: str, base_encoder_name: str = "encoder"
    ) -> list[str]:
        """Ties an encoder to a decoder, part by part; returns the encoder's names that are tied."""
        return tying.tie_encoder_to_decoder(encoder, decoder, base_encoder_name)

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Takes attention heads out for good: {layer: [heads]}, numbered as they were at first.

        Raises:
            InvalidOptionError: there is no such head. NotImplementedError: the class cannot be pruned.
        """
        heads.prune(self, heads_to_prune)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        """Takes heads out of the layers; a class whose heads can be pruned overrides it."""
        raise NotImplementedError(f"{type(self).__name__} cannot prune heads: it defines no _prune_heads")

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of all parameters, and of buffers if asked; tied ones count once."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(map(nbytes_of, tensors))

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Adds words to `model_tags`, which a push puts on the model's card; each once."""
        added = [tags] if isinstance(tags, str) else list(tags)
        self.model_tags = list(dict.fromkeys([*(self.model_tags or ()), *added]))  # type: ignore[misc]

    # Training

    def train(self, mode: bool = True) -> Any:
        """Training mode, or eval mode; a word, once, if there are quantized weights: these do not train."""
        training.warn_if_quantized(self, mode)
        return super().train(mode)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """In training, layers keep their inputs alone and are computed again in the backward pass.

        Args:
            gradient_checkpointing_kwargs: keywords of torch.utils.checkpoint.checkpoint; use_reentrant is False.

        Raises:
            InvalidOptionError: the class does not support it. OptionError: torch knows no such keyword.
        """
        training.enable_checkpointing(self, gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Takes `gradient_checkpointing_enable` back."""
        training.disable_checkpointing(self)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] | None = None
    ) -> None:
        """Sets the flag and the function in every module that has the flag."""
        training.set_checkpointing(self, enable, gradient_checkpointing_func)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether it is on in any part of the model."""
        return training.is_checkpointing(self)

    def enable_input_require_grads(self) -> None:
        """Makes the embeddings' output require a gradient, for adapters that train on frozen weights."""
        self.disable_input_require_grads()
        self._require_grads_hook = training.require_input_gradients(self)

    def disable_input_require_grads(self) -> None:
        """Takes `enable_input_require_grads` back."""
        if self._require_grads_hook is not None:
            self._require_grads_hook.remove()
            self._require_grads_hook = None

    def warn_if_padding_and_no_attention_mask(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> None:
        """Warns, once, of inputs that look padded and come without a mask."""
        training.warn_if_padded(self, input_ids, attention_mask)


def _choose_attention(config: PretrainedConfig, cls: type[PreTrainedModel]) -> None:
    """Settles `config._attn_implementation`: what was asked if there is such a one, else the class's best."""
    asked = config._attn_implementation
    if asked is None:
        config._attn_implementation = "sdpa" if cls._supports_sdpa else "eager"
    elif asked not in ATTENTION:
        raise InvalidOptionError(
            f"attn_implementation={asked!r:.80}: there is {', '.join(sorted(ATTENTION))}", key="attn_implementation"
        )
    elif asked != "eager" and not cls._supports_sdpa:
        raise InvalidOptionError(
            f"attn_implementation={asked!r}: {cls.__name__} computes attention itself; it has only 'eager'",
            key="attn_implementation",
        )
