"""Configs: every way to write a class, every value a file may hold, and the way back to the file."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.configuration import CONFIG_NAME, PretrainedConfig, config_keys
from pretrained.configuration_fields import fields_of, from_json_value, to_json_value
from pretrained.errors import ConfigError, InvalidOptionError, OptionError, ResourceLimitError, SaveError, SourceError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.llama.configuration_llama import LlamaConfig


class Fields(PretrainedConfig):
    """Declared as a dataclass is."""

    model_type = "fields"
    positive: ClassVar[tuple[str, ...]] = ("hidden_size",)
    attribute_map: ClassVar[dict[str, str]] = {"num_hidden_layers": "n_layer", "n_positions": "n_ctx"}

    hidden_size: int = 32
    n_layer: int = 2
    n_ctx: int | None = None
    eps: float = 1e-5
    act: str = "gelu"
    use_cache: bool = True
    scaling: dict | None = None
    sizes: list = [1, [2]]
    old: Optional[int] = 3  # noqa: UP045
    anything: Any = None
    tie_word_embeddings = False
    is_decoder: bool = True


class Written(PretrainedConfig):
    """With a constructor of its own, as configs of transformers 4.x are."""

    model_type = "written"
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "n_embd"}

    def __init__(self, n_embd: int = 8, rate: float = 0.1, pad_token_id: int | None = 7, **kwargs: Any) -> None:
        self.n_embd = n_embd
        self.rate = rate
        self.n_inner = 4 * n_embd
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class Whole(PretrainedConfig):
    """With another config inside."""

    model_type = "whole"
    sub_configs: ClassVar[dict[str, type[PretrainedConfig]]] = {"text_config": Fields}
    text_config: Any = None
    size: int = 1


CLASSES = [Fields, Written, Whole, BertConfig, LlamaConfig]
EACH = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def written(config: PretrainedConfig) -> dict[str, Any]:
    return json.loads(config.to_json_string())


def put(folder: Path, values: object) -> Path:
    (folder / CONFIG_NAME).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


# Making one


@EACH
def test_defaults_round_trip(cls: type[PretrainedConfig], tmp_path: Path) -> None:
    config = cls()
    config.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert cls.from_dict(config.to_dict()) == config
    assert cls.from_json_file(tmp_path / CONFIG_NAME) == config
    assert (tmp_path / CONFIG_NAME).read_text() == again.to_json_string()


def test_fields_and_their_defaults() -> None:
    config = Fields(hidden_size=5, act="relu")
    assert (config.hidden_size, config.act, config.n_layer, config.eps) == (5, "relu", 2, 1e-5)
    assert config.is_decoder is True
    assert config.tie_word_embeddings is False
    assert PretrainedConfig().tie_word_embeddings is True


def test_defaults_are_not_shared() -> None:
    first, second = Fields(), Fields()
    first.sizes[1].append(9)
    first.pruned_heads[0] = [1]
    assert second.sizes == [1, [2]]
    assert second.pruned_heads == {}


def test_annotations_are_understood() -> None:
    table = fields_of(Fields)
    assert table["n_ctx"].kinds == ("int", "None")
    assert table["old"].kinds == ("int", "None")
    assert table["anything"].kinds == ()
    assert table["scaling"].kinds == ("dict", "None")
    assert "model_type" not in table
    assert "positive" not in table
    assert table["tie_word_embeddings"].default is False

    class Unquoted(PretrainedConfig):
        pass

    Unquoted.__annotations__ = {"a": int, "b": int | None, "c": dict[str, int], "d": Optional[str]}  # noqa: UP045
    kinds = {name: field.kinds for name, field in fields_of(Unquoted).items() if len(name) == 1}
    assert kinds == {"a": ("int",), "b": ("int", "None"), "c": ("dict",), "d": ("str", "None")}


def test_a_constructor_of_its_own() -> None:
    config = Written(n_embd=3)
    assert (config.n_embd, config.n_inner, config.pad_token_id, config.hidden_size) == (3, 12, 7, 3)
    assert Written(hidden_size=5).n_embd == 5
    assert Written(extra=1).extra == 1
    assert Written(num_labels=4).num_labels == 4


def test_labels_may_be_set_before_the_base_is_built() -> None:
    class Early(PretrainedConfig):
        model_type = "early"

        def __init__(self, **kwargs: Any) -> None:
            self.num_labels = 5
            super().__init__(**kwargs)

    assert Early().num_labels == 5
    assert Early(num_labels=3).num_labels == 3


def test_other_names_of_fields() -> None:
    config = Fields(num_hidden_layers=7, n_positions=9)
    assert (config.n_layer, config.num_hidden_layers, config.n_ctx) == (7, 7, 9)
    config.num_hidden_layers = 8
    assert config.n_layer == 8
    assert written(config)["n_layer"] == 8
    assert "num_hidden_layers" not in written(config)
    assert Fields.from_dict({"num_hidden_layers": 4}).n_layer == 4
    assert Fields.from_dict({"num_hidden_layers": 4}, n_layer=5).n_layer == 5
    assert Fields.from_dict({"n_layer": 4}, num_hidden_layers=5).n_layer == 5
    with pytest.raises(ConfigError, match="'num_hidden_layers' must be int"):
        Fields.from_dict({"num_hidden_layers": "4"})


def test_configs_inside_configs() -> None:
    config = Whole.from_dict({"text_config": {"model_type": "fields", "hidden_size": 9, "new": 1}, "size": 2})
    assert isinstance(config.text_config, Fields)
    assert (config.text_config.hidden_size, config.text_config.new) == (9, 1)
    assert config.get_text_config() is config.text_config
    assert config.text_config.get_text_config() is config.text_config
    out = written(config)
    assert out["text_config"]["model_type"] == "fields"
    assert out["text_config"]["hidden_size"] == 9
    assert Whole.from_dict(out) == config
    with pytest.raises(ConfigError, match="'hidden_size' must be positive, found -1"):
        Whole.from_dict({"text_config": {"hidden_size": -1}})
    assert (
        Whole.from_dict({"text_config": {"_attn_implementation_internal": "x/y"}}).text_config._attn_implementation
        is None
    )


def test_a_text_config_that_is_no_config() -> None:
    config = PretrainedConfig.from_dict({"text_config": {"a": 1}})
    assert config.get_text_config() is config


def test_unknown_keys_are_kept_and_written_back(tmp_path: Path) -> None:
    values = {
        "model_type": "bert",
        "n_embd": 4,
        "nested": {"a": [1, None, {"b": True}]},
        "auto_map": {"AutoModel": "x.Y"},
    }
    config = BertConfig.from_pretrained(put(tmp_path, values))
    assert config.nested == values["nested"]
    assert {name: written(config)[name] for name in values} == values


def test_the_base_class_keeps_any_model_type() -> None:
    config = PretrainedConfig.from_dict({"model_type": "gpt2", "n_embd": 4})
    assert written(config) == {"model_type": "gpt2", "n_embd": 4}
    assert BertConfig.from_dict({"model_type": "gpt2"}).model_type == "bert"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(min_size=1, max_size=8).map(lambda key: "x" + key)


@given(extra=st.dictionaries(KEYS, JSON, max_size=4), size=st.integers(1, 100), eps=st.floats(allow_nan=False))
def test_round_trip_of_anything(extra: dict[str, Any], size: int, eps: float) -> None:
    config = Fields(hidden_size=size, eps=eps, **extra)
    assert all(getattr(config, key) == value for key, value in extra.items())
    assert Fields.from_dict(json.loads(config.to_json_string())) == config
    assert Fields.from_dict(config.to_dict()).to_json_string() == config.to_json_string()
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_equality_is_by_content() -> None:
    assert BertConfig() == BertConfig()
    assert BertConfig() != BertConfig(hidden_size=24)
    assert BertConfig() != LlamaConfig()
    assert BertConfig() != 1
    asked, silent = BertConfig(), BertConfig()
    assert asked.id2label  # looking at the labels changes nothing
    assert asked.label2id
    assert asked == silent
    assert written(asked) == written(silent)
    with pytest.raises(TypeError):
        hash(BertConfig())


def test_defaults_of_the_base() -> None:
    off = ("output_hidden_states", "output_attentions", "is_encoder_decoder", "is_decoder", "add_cross_attention")
    config = PretrainedConfig()
    assert [getattr(config, name) for name in off] == [False] * len(off)
    assert (config.return_dict, config.use_return_dict, config.tie_word_embeddings) == (True, True, True)
    assert (config.chunk_size_feed_forward, config.pruned_heads, config.pad_token_id, config.dtype) == (
        0,
        {},
        None,
        None,
    )
    assert written(config) == {}


def test_repr_is_json() -> None:
    assert json.loads(repr(Fields()).removeprefix("Fields "))["hidden_size"] == 32


# What is written


def test_defaults_of_the_base_are_not_written() -> None:
    out = written(BertConfig())
    assert out["model_type"] == "bert"
    assert out["hidden_size"] == 768
    assert not out.keys() & {
        "return_dict",
        "id2label",
        "label2id",
        "pruned_heads",
        "task_specific_params",
        "_name_or_path",
    }


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (Fields, "tie_word_embeddings", True),  # the base's default, and not this class's
        (Fields, "is_decoder", False),
        (Written, "pad_token_id", None),
        (LlamaConfig, "tie_word_embeddings", True),
        (LlamaConfig, "bos_token_id", None),
        (BertConfig, "pad_token_id", None),
    ],
)
def test_a_value_that_is_only_the_bases_default_is_written(cls: Any, name: str, value: Any) -> None:
    config = cls(**{name: value})
    assert getattr(config, name) == value
    assert written(config)[name] == value
    assert getattr(cls.from_dict(written(config)), name) == value


def test_text_form() -> None:
    text = BertConfig(architectures=["B"]).to_json_string()
    keys = [line.split('"')[1] for line in text.splitlines() if line.startswith('  "')]
    assert keys == sorted(keys)
    assert text.endswith("}\n")
    assert text.startswith('{\n  "architectures"')
    assert set(json.loads(BertConfig().to_json_string(use_diff=False))) > set(json.loads(BertConfig().to_json_string()))


@pytest.mark.parametrize(("number", "text"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN")])
def test_special_floats(number: float, text: str) -> None:
    out = written(Fields(eps=number, anything=[{"deep": number}]))
    assert out["eps"] == {"__float__": text}
    assert out["anything"] == [{"deep": {"__float__": text}}]
    again = Fields.from_dict(out)
    assert repr(again.eps) == repr(number)
    assert repr(again.anything[0]["deep"]) == repr(number)


@pytest.mark.parametrize("text", ["inf", 5, None, [], {}, "__import__('os')"])
def test_no_special_floats(text: Any) -> None:
    with pytest.raises(ConfigError, match="is none of Infinity, -Infinity and NaN"):
        Fields.from_dict({"eps": {"__float__": text}})


def test_values_of_python_become_json() -> None:
    import numpy as np

    class Kind:
        __name__ = "float16"

    values = (1, 2), {"b", "a"}, np.int64(3), np.float32(0.5), np.float64("inf"), {1: "x"}, Kind()
    assert [to_json_value(value) for value in values] == [
        [1, 2],
        ["a", "b"],
        3,
        0.5,
        {"__float__": "Infinity"},
        {"1": "x"},
        "float16",
    ]
    assert type(to_json_value(np.int64(3))) is int


@given(JSON)
def test_json_values_round_trip(value: Any) -> None:
    assert from_json_value(to_json_value(value)) == value or "__float__" in str(value)


# Labels


def test_labels_default() -> None:
    config = Fields()
    assert config.num_labels == 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_labels_from_a_file() -> None:
    config = Fields.from_dict(
        {"id2label": {"0": "bad", "1": "ok", "2": "good"}, "label2id": {"bad": 0, "ok": 1, "good": 2}}
    )
    assert config.num_labels == 3
    assert config.id2label[2] == "good"
    assert written(config)["id2label"] == {"0": "bad", "1": "ok", "2": "good"}
    assert Fields.from_dict(written(config)) == config
    assert Fields.from_dict({"id2label": {"0": "a"}}).label2id == {"a": 0}
    assert Fields.from_dict({"id2label": {"0": "a"}}, num_labels=4).num_labels == 4


def test_labels_that_change() -> None:
    config = Fields(id2label={0: "a", 1: "b"})
    assert config.label2id == {"a": 0, "b": 1}
    config.id2label = {0: "x", 1: "y", 2: "z"}
    assert config.num_labels == 3
    assert config.label2id == {"x": 0, "y": 1, "z": 2}
    config.label2id = {"x": 5}
    config.id2label = {0: "x"}
    assert config.label2id == {"x": 5}
    config.num_labels = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config.num_labels = 2
    assert len(config.label2id) == 2


def test_a_billion_labels_cost_nothing() -> None:
    config = BertConfig.from_dict({"num_labels": 10**9})
    assert config.num_labels == 10**9
    assert written(config)["num_labels"] == 10**9
    assert "id2label" not in written(config)
    assert len(repr(config)) < 10_000
    assert BertConfig.from_dict(written(config)) == copy.deepcopy(config) == config
    assert config._id2label is None  # no table was made on the way


@pytest.mark.parametrize(
    "values",
    [
        {"num_labels": "3"},
        {"num_labels": 0},
        {"num_labels": -1},
        {"num_labels": True},
        {"num_labels": 2.5},
        {"num_labels": 2**40},
        {"num_labels": [2]},
        {"id2label": [1, 2]},
        {"id2label": {"a": "x"}},
        {"id2label": {"0": {"x": 1}}},
        {"id2label": "ab"},
        {"label2id": 3},
        {"label2id": ["a"]},
    ],
)
def test_impossible_labels(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))) as caught:
        Fields.from_pretrained(put(tmp_path, values))
    assert caught.value.key == next(iter(values))
    assert caught.value.path == str(tmp_path / CONFIG_NAME)


# dtype


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({}, None),
        ({"dtype": "float16"}, "float16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, "bfloat16"),
        ({"dtype": "bfloat16", "torch_dtype": None}, "bfloat16"),
        ({"dtype": None, "torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"torch_dtype": "half"}, "float16"),
        ({"dtype": "auto"}, "auto"),
        ({"dtype": {"text_config": "float16", "": "float32"}}, {"text_config": "float16", "": "float32"}),
    ],
)
def test_dtype_in_either_spelling(values: dict[str, Any], dtype: Any) -> None:
    config = Fields.from_dict(values)
    assert config.dtype == config.torch_dtype == dtype
    assert written(config).get("dtype") == dtype
    assert "torch_dtype" not in written(config)


def test_dtype_of_a_caller() -> None:
    import numpy as np

    class Torch:
        def __repr__(self) -> str:
            return "torch.float16"

    assert Fields(dtype=np.float16).dtype == "float16"
    assert Fields(torch_dtype=Torch()).dtype == "float16"
    assert Fields.from_dict({"torch_dtype": "float32"}, dtype=Torch()).dtype == "float16"
    assert Fields.from_dict({"dtype": "float32"}, torch_dtype="bfloat16").dtype == "bfloat16"
    config = Fields()
    config.torch_dtype = np.float32
    assert config.dtype == "float32"


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    "value", ["load", "__builtins__", "float99", "", 5, True, ["float16"], {"a": "nope"}, "torch.load"]
)
def test_no_dtypes(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"config key '{name}' is .*, which is no dtype") as caught:
        Fields.from_pretrained(put(tmp_path, {name: value}))
    assert caught.value.key == name
    assert caught.value.path == str(tmp_path / CONFIG_NAME)


# Impossible values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "abc"),
        ("hidden_size", "16"),
        ("hidden_size", -16),
        ("hidden_size", 0),
        ("hidden_size", 16.5),
        ("hidden_size", True),
        ("hidden_size", None),
        ("hidden_size", [16]),
        ("hidden_size", {"a": 1}),
        ("hidden_size", 10**12),
        ("hidden_size", 2**63),
        ("num_attention_heads", 0),
        ("num_hidden_layers", "2"),
        ("pad_token_id", "0"),
        ("layer_norm_eps", "small"),
        ("layer_norm_eps", True),
        ("layer_norm_eps", None),
        ("hidden_act", 3),
        ("use_cache", "yes"),
        ("use_cache", 1),
        ("pruned_heads", {"a": [1]}),
        ("pruned_heads", {"0": 5}),
        ("pruned_heads", {"0": ["x"]}),
        ("pruned_heads", [1]),
        ("architectures", "BertModel"),
        ("is_decoder", None),
        ("task_specific_params", "x"),
    ],
)
def test_bad_values_name_file_key_and_value(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_pretrained(put(tmp_path, {"model_type": "bert", key: value}))
    error = caught.value
    assert (error.key, error.path) == (key, str(tmp_path / CONFIG_NAME))
    assert str(error).startswith(f"{tmp_path / CONFIG_NAME}: config key '{key}'")
    shown = {str: value, bool: value, type(None): "NoneType"}.get(type(value), "")
    assert str(shown) in str(error)
    assert len(str(error)) < 2048


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_ctx", None),
        ("old", None),
        ("eps", 1),
        ("eps", 10**12),
        ("scaling", {"a": 1}),
        ("sizes", []),
        ("anything", "x"),
    ],
)
def test_values_that_are_fine(key: str, value: Any) -> None:
    assert getattr(Fields.from_dict({key: value}), key) == value


def test_only_files_are_checked() -> None:
    config = Fields(hidden_size=-1)
    config.hidden_size = "x"
    assert config.hidden_size == "x"


def test_override_is_checked_like_a_file() -> None:
    config = Fields()
    config.override("hidden_size", 5)
    config.override("num_labels", 3)
    assert (config.hidden_size, config.num_labels) == (5, 3)
    for name, value in (("hidden_size", 0), ("num_hidden_layers", "x"), ("num_labels", "x"), ("to_dict", 1)):
        with pytest.raises(ConfigError, match=name):
            config.override(name, value)
    assert callable(config.to_dict)


def test_overrides_come_before_what_is_derived() -> None:
    values = {"hidden_size": 32, "num_attention_heads": 4}
    assert LlamaConfig.from_dict(values).head_dim == 8
    assert LlamaConfig.from_dict(values, num_attention_heads=2).head_dim == 16
    assert Written.from_dict({"n_embd": 2}, n_embd=3).n_inner == 12
    assert Written.from_dict({}, n_embd=3).n_inner == 12  # the file need not have it


def test_unused_keywords() -> None:
    config, rest = Fields.from_dict({}, hidden_size=3, nothing=1, return_unused_kwargs=True)
    assert (config.hidden_size, rest) == (3, {"nothing": 1})
    assert Fields.from_dict({}, strict=True, variant="x") == Fields()  # options of a model's load
    with pytest.raises(OptionError, match="no option 'hiden_size'; did you mean 'hidden_size'"):
        Fields.from_dict({}, hiden_size=3)
    assert Fields.from_dict({"extra": 1}, extra=2).extra == 2


def test_a_constructor_that_fails_is_a_config_error(tmp_path: Path) -> None:
    class Divides(PretrainedConfig):
        model_type = "divides"

        def __init__(self, size: Any = 4, heads: Any = 2, **kwargs: Any) -> None:
            self.head_size = size // heads
            super().__init__(**kwargs)

    for values in ({"heads": 0}, {"size": "x"}, {"size": [1]}):
        with pytest.raises(ConfigError, match="Divides cannot be built from these values") as caught:
            Divides.from_pretrained(put(tmp_path, values))
        assert caught.value.path == str(tmp_path / CONFIG_NAME)
        assert isinstance(caught.value.__cause__, (TypeError, ZeroDivisionError))

    class Refuses(PretrainedConfig):
        model_type = "refuses"

        def __post_init__(self, **kwargs: Any) -> None:
            super().__post_init__(**kwargs)
            raise InvalidOptionError("no")

    with pytest.raises(InvalidOptionError, match=r"^no$"):
        Refuses.from_pretrained(tmp_path)


# Keys that are not for a file to set


@pytest.mark.parametrize(
    "key",
    [
        "__class__",
        "__dict__",
        "__init__",
        "_id2label",
        "_num_labels",
        "_attn_implementation",
        "_attn_implementation_internal",
        "_commit_hash",
        "_config_file",
        "attn_implementation",
        "trust_remote_code",
        "code_revision",
        "use_return_dict",
        "attribute_map",
        "positive",
        "sub_configs",
    ],
)
def test_private_keys_of_a_file_are_ignored(key: str, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(put(tmp_path, {key: {"a": "__class__"}, "a": 1}))
    plain = BertConfig.from_pretrained(put(tmp_path, {"a": 1}))
    assert config == plain
    assert vars(config).keys() == vars(plain).keys()
    assert (config._attn_implementation, config._commit_hash, config._num_labels) == (None, None, 2)
    assert key not in written(config)


@pytest.mark.parametrize(
    "key", ["to_dict", "save_pretrained", "from_dict", "to_json_string", "update", "self", "_check"]
)
def test_no_key_replaces_a_method(key: str, tmp_path: Path) -> None:
    folder = put(tmp_path, {key: "x"})
    if key.startswith("_"):
        assert callable(getattr(BertConfig.from_pretrained(folder), key))
        return
    with pytest.raises(ConfigError, match=key) as caught:
        BertConfig.from_pretrained(folder)
    assert caught.value.path == str(tmp_path / CONFIG_NAME)


def test_the_caller_may_say_what_a_file_may_not() -> None:
    assert BertConfig(attn_implementation="eager")._attn_implementation == "eager"
    assert (
        BertConfig.from_dict({"attn_implementation": "x"}, attn_implementation="eager")._attn_implementation == "eager"
    )
    assert "attn_implementation" not in written(BertConfig(attn_implementation="eager"))


def test_a_property_of_a_family_is_not_replaced() -> None:
    class Derived(PretrainedConfig):
        model_type = "derived"

        @property
        def twice(self) -> int:
            return 2

    assert Derived.from_dict({"twice": 5}).twice == 2


# Files


BROKEN: Mapping[str, bytes] = {
    "empty": b"",
    "truncated": b'{"model_type": "bert"',
    "html": b"<!DOCTYPE html><html>not found</html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "utf16": '{"a": 1}'.encode("utf-16"),
    "nul": b'{"a": 1}\0',
    "array": b"[1]",
    "null": b"null",
    "trailing": b'{"a": 1} {"b": 2}',
    "twice": b'{"a": 1, "a": 2}',
    "nan": b'{"a": NaN}',
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
    "deep": b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_pretrained(tmp_path)
    assert caught.value.path == str(tmp_path / CONFIG_NAME)
    assert CONFIG_NAME in str(caught.value)
    assert len(str(caught.value)) < 2048


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder" / CONFIG_NAME).mkdir(parents=True)
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / CONFIG_NAME)
    for name, what in (("folder", "is a folder"), ("fifo", "is a FIFO")):
        with pytest.raises(ConfigError, match=what):
            BertConfig.from_pretrained(tmp_path / name)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / CONFIG_NAME).symlink_to(CONFIG_NAME)
    with pytest.raises(ConfigError, match=CONFIG_NAME):
        BertConfig.from_pretrained(tmp_path / "loop")
    (tmp_path / "huge").mkdir()
    with (tmp_path / "huge" / CONFIG_NAME).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ResourceLimitError, match="at most"):
        BertConfig.from_pretrained(tmp_path / "huge")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "model.safetensors").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no config\.json .* there is: model\.safetensors"):
        BertConfig.from_pretrained(tmp_path / "none")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    from pretrained.errors import UntrustedPathError

    (tmp_path / "inside").mkdir()
    put(tmp_path, {"model_type": "bert"})
    (tmp_path / "inside" / CONFIG_NAME).symlink_to(tmp_path / CONFIG_NAME)
    with pytest.raises(UntrustedPathError, match="link out of its folder"):
        BertConfig.from_pretrained(tmp_path / "inside")


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(b"\xef\xbb\xbf" + b'{"hidden_size": 24}')
    assert BertConfig.from_pretrained(tmp_path).hidden_size == 24


def test_the_file_itself_and_subfolders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    put(tmp_path / "a", {"hidden_size": 24})
    config = BertConfig.from_pretrained(tmp_path / "a" / CONFIG_NAME)
    assert (config.hidden_size, config.name_or_path) == (24, str(tmp_path / "a" / CONFIG_NAME))
    assert BertConfig.from_pretrained(str(tmp_path), subfolder="a", hidden_size=48).hidden_size == 48
    (tmp_path / "a" / "other.json").write_text('{"hidden_size": 36}')
    assert BertConfig.from_pretrained(tmp_path / "a" / "other.json").hidden_size == 36
    values, rest = BertConfig.get_config_dict(tmp_path / "a", nothing=1)
    assert (values["hidden_size"], values["_name_or_path"], rest) == (24, str(tmp_path / "a"), {"nothing": 1})


def test_saving(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=24)
    config.save_pretrained(tmp_path / "new")
    assert sorted(os.listdir(tmp_path / "new")) == [CONFIG_NAME]
    config.save_pretrained(tmp_path / "new", push_to_hub=False)
    with pytest.raises(OptionError, match="private= is of a push; pass push_to_hub=True with it"):
        config.save_pretrained(tmp_path / "new", private=True)
    with pytest.raises(OptionError, match="no option 'max_shard_size'"):
        config.save_pretrained(tmp_path / "new", max_shard_size=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError):
        config.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_config_keys() -> None:
    assert {"n_embd", "rate", "hidden_size", "num_labels", "id2label", "n_inner", "extra"} <= config_keys(
        Written(extra=1)
    )
    assert not config_keys(Written()) & {"self", "kwargs", "to_dict", "_id2label"}
    assert {"hidden_size", "num_hidden_layers", "pad_token_id"} <= config_keys(BertConfig())


def test_update_sets_many() -> None:
    config = Fields()
    config.update({"hidden_size": 3, "new": 4})
    assert (config.hidden_size, config.new) == (3, 4)


def test_an_integer_beyond_64_bits_is_no_number_of_a_model() -> None:
    with pytest.raises(
        ConfigError, match=r"'initializer_range' is 1000.*: no number of a model is that large"
    ) as caught:
        BertConfig.from_dict({"model_type": "bert", "initializer_range": 10**300})
    assert "no number of a model is that large" in str(caught.value) and caught.value.key == "initializer_range"
