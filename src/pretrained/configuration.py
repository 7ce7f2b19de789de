"""PretrainedConfig: what a model is, as one mutable object that is a JSON file on disk.

A family's config is a class with annotated fields::

    class LlamaConfig(PretrainedConfig):
        model_type = "llama"
        positive = ("hidden_size", "num_hidden_layers")
        hidden_size: int = 4096
        head_dim: int | None = None

Classes with an `__init__(self, …, **kwargs)` of their own that ends in `super().__init__(**kwargs)` work too.
Keys that no field declares are kept as attributes and written back as read.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ._types import PathLike, Snapshot
from .checkpoint.commit import Stage
from .checkpoint.files import read_json, safe_join
from .checkpoint.find import settle
from .configuration_fields import Field, attribute_alias, check_value, fields_of, from_json_value, to_json_value
from .errors import ConfigError, SourceError
from .hub.ref import resolve
from .options import split_source_options

__all__ = ["CONFIG_NAME", "PreTrainedConfig", "PretrainedConfig", "config_keys", "read_config_dict"]

CONFIG_NAME = "config.json"

# A config file may not decide what code runs or what the process does: these are the caller's to say.
_REFUSED_KEYS = frozenset({"trust_remote_code", "code_revision", "attn_implementation"})


class PretrainedConfig:
    """Base of all configs: the fields every model has, and JSON in and out.

    Args:
        kwargs: fields by name. What no field declares is kept as an attribute.

    Raises:
        ConfigError: a field has a value of the wrong type or out of range; only from files, not from attribute writes.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[dict[str, str]] = {}
    positive: ClassVar[tuple[str, ...]] = ()
    keys_to_ignore_at_inference: ClassVar[list[str]] = []
    base_config_key: ClassVar[str] = ""
    sub_configs: ClassVar[dict[str, type[PretrainedConfig]]] = {}
    is_composition: ClassVar[bool] = False
    _auto_class: ClassVar[str | None] = None

    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    dtype: Any = None
    is_encoder_decoder: bool = False
    is_decoder: bool = False
    add_cross_attention: bool = False
    cross_attention_hidden_size: int | None = None
    tie_encoder_decoder: bool = False
    tie_word_embeddings: bool = True
    chunk_size_feed_forward: int = 0
    pruned_heads: dict | None = None
    architectures: list | None = None
    finetuning_task: str | None = None
    problem_type: str | None = None
    bos_token_id: int | list | None = None
    pad_token_id: int | list | None = None
    eos_token_id: int | list | None = None
    sep_token_id: int | list | None = None
    decoder_start_token_id: int | list | None = None
    tokenizer_class: str | None = None
    prefix: str | None = None
    task_specific_params: dict | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for alias, target in cls.attribute_map.items():
            setattr(cls, alias, attribute_alias(target))

    def __init__(self, **kwargs: Any) -> None:
        dtype = kwargs.get("torch_dtype", kwargs.get("dtype"))
        labels = {name: kwargs.get(name) for name in ("num_labels", "id2label", "label2id")}
        given = {k: v for k, v in kwargs.items() if k not in ("torch_dtype", *labels)}
        given["dtype"] = _dtype_name(dtype)
        self._name_or_path = str(given.pop("name_or_path", given.pop("_name_or_path", "")) or "")
        self._commit_hash: str | None = None
        self._attn_implementation: str | None = None
        if (attention := given.pop("attn_implementation", given.pop("_attn_implementation", None))) is not None:
            self._attn_implementation = attention
        extra = self._set_fields(given)
        self._set_labels(**labels)
        self.__post_init__(**extra)

    def _set_fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Declared fields become attributes, the given value or a fresh copy of the default; the rest is returned."""
        table = fields_of(type(self))
        for name, field in table.items():
            # A subclass with an __init__ of its own has set its fields before it calls up: those stand.
            if name in given:
                setattr(self, name, given[name])
            elif name not in self.__dict__:
                setattr(self, name, copy.copy(field.default))
        return {name: value for name, value in given.items() if name not in table}

    def __post_init__(self, **kwargs: Any) -> None:
        """Derives what follows from the fields; a family extends it and calls up. `kwargs` is what no field declares."""
        if self.pruned_heads is None:
            self.pruned_heads = {}
        self.pruned_heads = {int(layer): list(heads) for layer, heads in self.pruned_heads.items()}
        for name, value in kwargs.items():
            target = self.attribute_map.get(name, name)
            if callable(getattr(type(self), target, None)):
                raise ConfigError(f"config key {name!r} would replace the method of that name", key=name)
            if isinstance(getattr(type(self), target, None), property):
                continue  # derived, like use_return_dict: a file does not get to set it
            setattr(self, target, value)

    # Labels are stored as a count until somebody asks for the table: a file may claim a billion of them.

    def _set_labels(self, num_labels: Any, id2label: Any, label2id: Any) -> None:
        if id2label is not None:
            table = _checked_labels(id2label, "id2label")
            self._id2label: dict[int, str] | None = {int(i): name for i, name in table.items()}
            self._num_labels = len(self._id2label)
            if num_labels is not None and num_labels != self._num_labels:
                self._set_num_labels(num_labels)
        else:
            self._id2label = None
            self._num_labels = 2
            if num_labels is not None:
                self._set_num_labels(num_labels)
        self._label2id = None if label2id is None else _checked_labels(label2id, "label2id")

    def _set_num_labels(self, value: Any) -> None:
        check_value("num_labels", value, Field("num_labels", ("int",), 2), positive=True)
        self._id2label, self._label2id, self._num_labels = None, None, value

    @property
    def num_labels(self) -> int:
        """Number of classes of a classification head."""
        return self._num_labels if self._id2label is None else len(self._id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if value != self.num_labels:
            self._set_num_labels(value)

    @property
    def id2label(self) -> dict[int, str]:
        """Class index → name; LABEL_0, LABEL_1, … until names are given."""
        if self._id2label is None:
            self._id2label = {i: f"LABEL_{i}" for i in range(self._num_labels)}
        return self._id2label

    @id2label.setter
    def id2label(self, value: Mapping[Any, str]) -> None:
        self._id2label = {int(i): name for i, name in value.items()}

    @property
    def label2id(self) -> dict[str, int]:
        """Class name → index."""
        if self._label2id is None:
            self._label2id = {name: i for i, name in self.id2label.items()}
        return self._label2id

    @label2id.setter
    def label2id(self, value: Mapping[str, int]) -> None:
        self._label2id = dict(value)

    @property
    def name_or_path(self) -> str:
        """Where the config came from."""
        return self._name_or_path

    @name_or_path.setter
    def name_or_path(self, value: str) -> None:
        self._name_or_path = str(value)

    @property
    def torch_dtype(self) -> Any:
        """Older name of `dtype`."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: Any) -> None:
        self.dtype = _dtype_name(value)

    @property
    def use_return_dict(self) -> bool:
        """Whether a forward pass returns an output object rather than a tuple."""
        return self.return_dict

    def get_text_config(self, decoder: bool = False) -> PretrainedConfig:
        """The config of the text part: `self` for all but multimodal models."""
        return getattr(self, "text_config", self) or self

    # JSON

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """A config of this class from the content of a config.json; `kwargs` override.

        With `return_unused_kwargs=True` returns (config, keywords that are no field of it).

        Raises:
            ConfigError: a value has the wrong type or is out of range; names the key.
        """
        unused = {k: v for k, v in kwargs.items() if k != "return_unused_kwargs"}
        values = {k: from_json_value(v) for k, v in config_dict.items() if _is_plain_key(k)}
        table = fields_of(cls)
        for name in [name for name in unused if cls.attribute_map.get(name, name) in table or name in values]:
            values[name] = unused.pop(name)
        for name in [name for name in unused if name in ("num_labels", "id2label", "label2id", "attn_implementation")]:
            values[name] = unused.pop(name)
        cls._check(values, table)
        config = cls(**{k: v for k, v in values.items() if k != "model_type"})
        if kwargs.get("return_unused_kwargs"):
            return config, unused
        return config

    @classmethod
    def _check(cls, values: Mapping[str, Any], table: Mapping[str, Field]) -> None:
        for name, value in values.items():
            target = cls.attribute_map.get(name, name)
            if (field := table.get(target)) is not None:
                check_value(name, value, field, positive=target in cls.positive)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: PathLike, **kwargs: Any) -> Any:
        """A config of this class from a folder, a hub name or a config.json; other keywords override fields.

        Raises:
            SourceError: there is no config.json at that place.
            ConfigError: the file is damaged or a field of it is impossible.
        """
        config_dict, rest = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_dict(config_dict, **rest)

    @classmethod
    def from_json_file(cls, json_file: PathLike) -> Any:
        """A config from one JSON file."""
        return cls.from_dict(read_json(Path(json_file), error=ConfigError))

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: PathLike, **kwargs: Any) -> tuple[dict, dict]:
        """(content of the config.json, keywords not used to find it)."""
        source, rest = split_source_options(kwargs)
        snapshot = settle(resolve(pretrained_model_name_or_path, source))
        return read_config_dict(snapshot) | {"_name_or_path": snapshot.name}, rest

    def to_dict(self) -> dict[str, Any]:
        """All fields and extra keys, as JSON-ready values."""
        values = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        if self._id2label is not None or self._num_labels != 2:
            values["id2label"], values["label2id"] = dict(self.id2label), dict(self.label2id)
        if self.model_type or type(self).model_type:
            values["model_type"] = self.model_type
        return {k: to_json_value(v) for k, v in values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` less the base fields that have their defaults; what config.json holds.

        A family's own fields are always written: a reader with other defaults still sees the same model.
        """
        base = fields_of(PretrainedConfig)
        own = {
            name
            for cls in type(self).__mro__
            if cls is not PretrainedConfig
            for name in vars(cls).get("__annotations__", {})
        }
        values = self.to_dict()
        if not values.get("pruned_heads"):
            values.pop("pruned_heads", None)
        return {
            name: value
            for name, value in values.items()
            if name in own or name not in base or value != to_json_value(base[name].default)
        }

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json: keys sorted, indent 2, newline at the end."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True, default=str) + "\n"

    def to_json_file(self, json_file_path: PathLike, use_diff: bool = True) -> None:
        """Writes the config to one file."""
        Path(json_file_path).write_text(self.to_json_string(use_diff), encoding="utf-8")

    def save_pretrained(self, save_directory: PathLike, **kwargs: Any) -> None:
        """Writes config.json into the folder, all or nothing."""
        with Stage(save_directory) as stage:
            self.to_json_file(stage.path(CONFIG_NAME))
            stage.commit()

    def override(self, name: str, value: Any) -> None:
        """Sets one field as a caller's keyword does: checked like a value from a file.

        Raises:
            ConfigError: the value has the wrong type or is out of range.
        """
        self._check({name: value}, fields_of(type(self)))
        setattr(self, name, value)

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Sets many fields at once."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string(use_diff=False)}"


PreTrainedConfig = PretrainedConfig  # the newer spelling


def config_keys(config: Any) -> set[str]:
    """Names that a keyword may have to be a field of this config: declared, set by its constructor, or an alias."""
    parameters = inspect.signature(type(config).__init__).parameters
    named = {name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}
    own = {name for name in config.__dict__ if not name.startswith("_")}
    labels = {"num_labels", "id2label", "label2id"}
    return named | own | labels | set(fields_of(type(config))) | set(config.attribute_map)


def read_config_dict(snapshot: Snapshot) -> dict[str, Any]:
    """The content of the snapshot's config.json.

    Raises:
        SourceError: there is none; lists what is there.
        ConfigError: it is not a JSON object, or something else altogether.
    """
    only = getattr(snapshot, "only", None)
    if only is not None and only.endswith(".json") and ".index." not in only:
        return read_json(snapshot.path(only), error=ConfigError)
    names = snapshot.names()
    if CONFIG_NAME not in names:
        shown = ", ".join(names[:12]) or "nothing"
        raise SourceError(
            f"no {CONFIG_NAME} beside the weights of {snapshot.name}; there is: {shown}. Pass config=…",
            path=snapshot.name,
        )
    path = snapshot.path(CONFIG_NAME)
    if snapshot.folder is not None and path == snapshot.folder / CONFIG_NAME:
        path = safe_join(snapshot.folder, CONFIG_NAME)
    return read_json(path, error=ConfigError)


def _is_plain_key(key: str) -> bool:
    """Whether a file may set this key: a private one, or one that decides what code runs, is the caller's to set."""
    return key == "_name_or_path" or not (key.startswith("_") or key in _REFUSED_KEYS)


def _checked_labels(table: Any, key: str) -> dict[Any, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"config key {key!r} must be an object, found {type(table).__name__}", key=key)
    return dict(table)


def _dtype_name(dtype: Any) -> Any:
    """A dtype as its plain name; torch.float32, jnp.float32 and "float32" are one."""
    if dtype is None or isinstance(dtype, (str, dict)):
        return dtype
    return str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
