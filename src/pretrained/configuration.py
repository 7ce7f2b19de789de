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

from ._types import PathLike
from .checkpoint.files import read_json
from .checkpoint.find import find_gguf, settle
from .configuration_fields import Field, attribute_alias, check_value, constructor_names, fields_of, to_json_value
from .configuration_file import CONFIG_NAME, config_path, read_config_dict, read_located
from .configuration_input import LABELS, check_dtype, located, merged_values, plain_dtype
from .configuration_labels import MAX_LISTED, checked_heads, checked_label2id, index_to_name, numbered
from .errors import ConfigError
from .hub.card import CardFacts
from .hub.push import PushToHubMixin
from .hub.ref import resolve
from .hub.upload import Upload
from .options import LOAD_KEYWORDS, WeightOptions, split_source_options, unknown_keyword
from .own_code import auto_map_of, check_auto_class, sources_of
from .saving_texts import save_texts

__all__ = ["CONFIG_NAME", "PreTrainedConfig", "PretrainedConfig", "config_keys", "config_path", "read_config_dict"]


class PretrainedConfig(PushToHubMixin):
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
    pruned_heads: dict[int, list[int]] | None = None
    architectures: list[str] | None = None
    finetuning_task: str | None = None
    problem_type: str | None = None
    bos_token_id: int | list[int] | None = None
    pad_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    sep_token_id: int | list[int] | None = None
    decoder_start_token_id: int | list[int] | None = None
    tokenizer_class: str | None = None
    prefix: str | None = None
    task_specific_params: dict[str, Any] | None = None

    # Labels are a count until somebody asks for the table: a file may claim a billion of them. These stand here because
    # a subclass with an __init__ of its own may set labels before it calls up.
    _num_labels: int = 2
    _id2label: dict[int, str] | None = None
    _label2id: dict[str, int] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for alias, target in cls.attribute_map.items():
            setattr(cls, alias, attribute_alias(target))

    def __init__(self, **kwargs: Any) -> None:
        dtype = kwargs.get("dtype")
        labels = {name: kwargs.get(name) for name in LABELS}
        given = {k: v for k, v in kwargs.items() if k not in ("torch_dtype", *labels)}
        given["dtype"] = plain_dtype(kwargs.get("torch_dtype") if dtype is None else dtype)
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
                setattr(self, name, copy.deepcopy(field.default))
        return {name: value for name, value in given.items() if name not in table}

    def __post_init__(self, **kwargs: Any) -> None:
        """Derives what follows from the fields; a family extends it and calls up. `kwargs`: what no field declares."""
        self.pruned_heads = checked_heads(self.pruned_heads)
        for name, value in kwargs.items():
            target = type(self).attribute_map.get(name, name)
            found = getattr(type(self), target, None)
            if callable(found):
                raise ConfigError(f"config key {name!r} would replace the method of that name", key=name)
            # What is derived, like use_return_dict, or belongs to the class, is not for a file to set.
            if not (isinstance(found, property) or target in _CLASS_NAMES or target.startswith("_")):
                setattr(self, target, value)
        for name, inner in type(self).sub_configs.items():
            if isinstance(value := getattr(self, name, None), Mapping):
                setattr(self, name, inner.from_dict(value))

    def _set_labels(self, num_labels: Any, id2label: Any, label2id: Any) -> None:
        if id2label is not None:
            self._id2label = index_to_name(id2label)
        is_outdated = id2label is not None and num_labels is not None and num_labels != self.num_labels
        if num_labels is not None and (id2label is None or is_outdated):
            self._set_num_labels(num_labels)
        if label2id is not None and not is_outdated:  # one table goes with the other
            self._label2id = checked_label2id(label2id)

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
            self._id2label = numbered(self._num_labels)
        return self._id2label

    @id2label.setter
    def id2label(self, value: Mapping[Any, str]) -> None:
        table = index_to_name(value)
        if self._label2id is not None and self._label2id == {name: i for i, name in self.id2label.items()}:
            self._label2id = None  # it followed from the old table
        self._id2label = table

    @property
    def label2id(self) -> dict[str, int]:
        """Class name → index."""
        if self._label2id is None:
            self._label2id = {name: i for i, name in self.id2label.items()}
        return self._label2id

    @label2id.setter
    def label2id(self, value: Mapping[str, int]) -> None:
        self._label2id = checked_label2id(value)

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
        self.dtype = plain_dtype(value)

    @property
    def use_return_dict(self) -> bool:
        """Whether a forward pass returns an output object rather than a tuple."""
        return self.return_dict

    def get_text_config(self, decoder: bool = False) -> PretrainedConfig:
        """The config of the text part: `self` for all but multimodal models."""
        inner = getattr(self, "text_config", None)
        return inner if isinstance(inner, PretrainedConfig) else self

    # JSON

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """A config of this class from the content of a config.json; `kwargs` override.

        With `return_unused_kwargs=True` returns (config, keywords that are no field of it).

        Raises:
            ConfigError: a value has the wrong type or is out of range; names the key.
            OptionError: a keyword that is no field and no option.
        """
        with located(cls.__name__, config_dict.get("_config_file")):
            values, unused = merged_values(cls, config_dict, kwargs)
            cls._check(values, fields_of(cls))
            config = cls(**{k: v for k, v in values.items() if k != "model_type"})
        if not cls.model_type and isinstance(values.get("model_type"), str):
            vars(config)["model_type"] = values["model_type"]  # a class for any model keeps what the file says
        if kwargs.get("return_unused_kwargs"):
            return config, unused
        if unknown := sorted(set(unused) - LOAD_KEYWORDS):
            raise unknown_keyword(unknown[0], config_keys(config))
        return config

    @classmethod
    def _check(cls, values: Mapping[str, Any], table: Mapping[str, Field]) -> None:
        for name, value in values.items():
            target = cls.attribute_map.get(name, name)
            if target in ("dtype", "torch_dtype"):
                check_dtype(name, value)
            elif (field := table.get(target)) is not None:
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
        path = Path(json_file)
        return cls.from_dict(read_json(path) | {"_config_file": str(path)})

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(content of config.json or a GGUF, with `_name_or_path` and `_config_file`; keywords not used to find it)."""
        source, rest = split_source_options(kwargs)
        snapshot = settle(resolve(pretrained_model_name_or_path, source))
        weights = WeightOptions(gguf_file=rest.get("gguf_file"))
        values, path = read_located(snapshot, find_gguf(snapshot, weights))
        return values | {"_name_or_path": snapshot.name, "_config_file": str(path)}, rest

    def to_dict(self) -> dict[str, Any]:
        """All fields and extra keys, as JSON-ready values."""
        values = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        if self._id2label is None and self._num_labels > MAX_LISTED:
            values["num_labels"] = self._num_labels
        else:
            values["id2label"], values["label2id"] = dict(self.id2label), dict(self.label2id)
        if self.model_type or type(self).model_type:
            values["model_type"] = self.model_type
        return {k: to_json_value(v) for k, v in values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` less the base fields that have their defaults; what config.json holds.

        A family's own fields are always written: a reader with other defaults still sees the same model.
        """
        values, defaults = self.to_dict(), _unwritten(type(self))
        if any(values.get(name) != defaults[name] for name in ("id2label", "label2id")):
            del defaults["id2label"], defaults["label2id"]
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json: keys sorted, indent 2, newline at the end."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True, default=str) + "\n"

    def to_json_file(self, json_file_path: PathLike, use_diff: bool = True) -> None:
        """Writes the config to one file."""
        Path(json_file_path).write_text(self.to_json_string(use_diff), encoding="utf-8")

    def save_pretrained(self, save_directory: PathLike, **kwargs: Any) -> None:
        """Writes config.json into the folder, all or nothing.

        Args:
            save_directory: made if it is not there.
            kwargs: `push_to_hub=True` pushes it too, with the keywords of `push_to_hub`.

        Raises:
            SaveError: nothing was written. OptionError: a keyword nobody knows.
        """
        save_texts(self, save_directory, self._texts(), kwargs)

    def _texts(self) -> dict[str, str]:
        """What a save writes: name → content."""
        texts = sources_of(type(self))
        self._note_code(type(self))
        return {CONFIG_NAME: self.to_json_string(), **texts}

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        if type(self).save_pretrained is not PretrainedConfig.save_pretrained:
            return super()._push_files(upload, saved)
        upload.add_texts(self._texts())

    def _save_to(self, folder: Path, saved: dict[str, Any]) -> None:
        self.save_pretrained(folder)

    def _card_facts(self) -> CardFacts:
        return CardFacts(type(self).__name__, self.model_type)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Makes saves write the source of this class beside config.json, with an auto_map that names it.

        Raises:
            InvalidOptionError: `auto_class` is not AutoConfig.
        """
        cls._auto_class = check_auto_class(auto_class, config=True)

    def _note_code(self, *classes: type) -> None:
        """Names the registered ones of these classes in auto_map."""
        if found := auto_map_of(*classes):
            self.auto_map = {**getattr(self, "auto_map", {}), **found}

    def override(self, name: str, value: Any) -> None:
        """Sets one field as a caller's keyword does: checked like a value from a file.

        Raises:
            ConfigError: the value has the wrong type or is out of range.
        """
        self._check({name: value}, fields_of(type(self)))
        if callable(getattr(type(self), name, None)):
            raise ConfigError(f"config key {name!r} would replace the method of that name", key=name)
        setattr(self, name, value)

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Sets many fields at once."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and type(self) is type(other) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string(use_diff=False)}"


PreTrainedConfig = PretrainedConfig  # the newer spelling
_CLASS_NAMES = frozenset(vars(PretrainedConfig)) - frozenset(fields_of(PretrainedConfig))


def _unwritten(cls: type) -> dict[str, Any]:
    """Values that a config.json leaves out: the defaults of base fields that the class does not make its own."""
    base, mine = fields_of(PretrainedConfig), fields_of(cls)
    own = constructor_names(cls) | {name for name in mine if name not in base or mine[name] != base[name]}
    own |= {name for part in cls.__mro__ if part is not PretrainedConfig for name in inspect.get_annotations(part)}
    defaults = {name: to_json_value(field.default) for name, field in base.items() if name not in own}
    labels = {"id2label": to_json_value(numbered(2)), "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    return {**defaults, "pruned_heads": {}, **labels}


def config_keys(config: Any) -> set[str]:
    """Names that a keyword may have to be a field of this config: declared, set by its constructor, or an alias."""
    own = {name for name in config.__dict__ if not name.startswith("_")}
    return {*constructor_names(type(config)), *own, *LABELS, *fields_of(type(config)), *config.attribute_map}
