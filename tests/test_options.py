"""Every keyword of from_pretrained: where it goes, what it accepts, what a mistake says."""

from __future__ import annotations

import contextlib
import json
import linecache
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pretrained
from pretrained.errors import InvalidOptionError, OptionError
from pretrained.options import (
    LOAD_KEYWORDS,
    LoadOptions,
    SaveOptions,
    SourceOptions,
    WeightOptions,
    parse_size,
    split_load_options,
    split_source_options,
    unknown_keyword,
)
from pretrained.source_options import Secret

# Every keyword of section 2 of the contract.
CONTRACT = frozenset(
    """
config cache_dir ignore_mismatched_sizes force_download local_files_only token revision use_safetensors
state_dict proxies resume_download mirror from_tf from_flax from_pt output_loading_info strict dtype torch_dtype
device_map max_memory offload_folder offload_state_dict offload_buffers low_cpu_mem_usage device_mesh tp_plan
distributed_config quantization_config load_in_8bit load_in_4bit subfolder variant trust_remote_code code_revision
_fast_init mean_resizing key_mapping attn_implementation generation_config gguf_file
""".split()  # noqa: SIM905
)


def test_the_contract_is_known() -> None:
    assert set(CONTRACT) <= LOAD_KEYWORDS
    options, rest = split_load_options(dict.fromkeys(CONTRACT))
    assert rest == {}
    assert options == LoadOptions()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("revision", "v1", lambda o: o.source.revision),
        ("subfolder", "unet", lambda o: o.source.subfolder),
        ("cache_dir", "/c", lambda o: o.source.cache_dir),
        ("force_download", True, lambda o: o.source.force_download),
        ("local_files_only", True, lambda o: o.source.local_files_only),
        ("token", False, lambda o: o.source.token),
        ("endpoint", "https://hub", lambda o: o.source.endpoint),
        ("use_safetensors", True, lambda o: o.weights.use_safetensors),
        ("variant", "fp16", lambda o: o.weights.variant),
        ("gguf_file", "x.gguf", lambda o: o.weights.gguf_file),
        ("config", "other", lambda o: o.config),
        ("state_dict", {"a": 1}, lambda o: o.state_dict),
        ("dtype", "float16", lambda o: o.dtype),
        ("torch_dtype", "float16", lambda o: o.dtype),
        ("ignore_mismatched_sizes", True, lambda o: o.ignore_mismatched_sizes),
        ("output_loading_info", True, lambda o: o.output_loading_info),
        ("strict", True, lambda o: o.strict),
        ("key_mapping", {"^a": "b"}, lambda o: o.key_mapping),
        ("attn_implementation", "eager", lambda o: o.attn_implementation),
        ("mmap", False, lambda o: o.mmap),
        ("generation_config", {"a": 1}, lambda o: o.generation_config),
        ("adapter_base", "org/base", lambda o: o.adapter_base),
        ("trust_adapter_base", True, lambda o: o.trust_adapter_base),
        ("adapter_kwargs", {"subfolder": "lora"}, lambda o: o.adapter_kwargs),
        ("device_map", "auto", lambda o: o.placement.device_map),
        ("device_map", {"": 0}, lambda o: o.placement.device_map),
        ("offload_folder", Path("away"), lambda o: o.placement.offload_folder),
        ("offload_buffers", True, lambda o: o.placement.offload_buffers),
    ],
)
def test_each_keyword_reaches_its_stage(name: str, value: Any, read: Any) -> None:
    options, rest = split_load_options({name: value})
    assert read(options) == value
    assert rest == {}
    assert options != LoadOptions()


@pytest.mark.parametrize(("name", "prefer"), [("from_tf", "tf"), ("from_flax", "flax")])
def test_a_framework_can_be_preferred(name: str, prefer: str) -> None:
    assert split_load_options({name: True})[0].weights.prefer == prefer
    assert split_load_options({name: False}) == (LoadOptions(), {})
    with pytest.raises(OptionError, match="two values"):
        split_load_options({"from_tf": True, "from_flax": True})


@pytest.mark.parametrize("name", ["from_pt", "low_cpu_mem_usage", "offload_state_dict", "_fast_init", "mean_resizing"])
@pytest.mark.parametrize("value", [True, False, None])
def test_not_needed_is_accepted(name: str, value: Any) -> None:
    assert split_load_options({name: value}) == (LoadOptions(), {})


OFF = {
    "device_mesh": [None],
    "tp_plan": [None],
    "distributed_config": [None],
}


@pytest.mark.parametrize("name", ["load_in_8bit", "load_in_4bit"])
def test_older_spelling_of_quantization(name: str) -> None:
    for off in (None, False):
        assert split_load_options({name: off, "quantization_config": None}) == (LoadOptions(), {})
    with pytest.warns(DeprecationWarning, match=rf"{name}=True is deprecated: use .*BitsAndBytesConfig\({name}=True\)"):
        assert split_load_options({name: True}) == (LoadOptions(**{name: True}), {})
    with pytest.raises(InvalidOptionError, match=f"{name} is True or False, not 1"):
        split_load_options({name: 1})


def test_quantization_where_nothing_is_quantized() -> None:
    with pytest.raises(OptionError, match="quantization_config= is an option of from_pretrained") as e:
        split_load_options({"quantization_config": {"quant_method": "torchao"}}, can_quantize=False)
    assert e.value.key == "quantization_config"
    assert split_load_options({"load_in_4bit": False}, can_quantize=False) == (LoadOptions(), {})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OFF.items() for value in values])
def test_off_values_are_accepted(name: str, value: Any) -> None:
    assert split_load_options({name: value}) == (LoadOptions(), {})


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("value", [True, "auto", {"": 0}, 1])
def test_what_is_not_there_yet_is_refused_not_ignored(name: str, value: Any) -> None:
    with pytest.raises(
        InvalidOptionError, match=f"{name}=.* is not supported by this version; leave it out or pass"
    ) as e:
        split_load_options({name: value})
    assert e.value.key == name


@pytest.mark.parametrize("other", [{"variant": "fp16"}, {"use_safetensors": True}])
def test_a_gguf_and_other_weights_exclude_each_other(other: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"gguf_file= names the weights, and {next(iter(other))}= asks for others"):
        split_load_options({"gguf_file": "x.gguf", **other})
    with pytest.raises(InvalidOptionError, match="gguf_file is a string, not a bool"):
        split_load_options({"gguf_file": True})


def test_other_keywords_are_given_back() -> None:
    assert split_load_options({"hidden_size": 3, "reviison": "x"})[1] == {"hidden_size": 3, "reviison": "x"}


@pytest.mark.parametrize("name", ["source", "weights", "placement"])
def test_groups_are_no_keywords(name: str) -> None:
    assert split_load_options({name: 1})[1] == {name: 1}


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("reviison", "revision"),
        ("ignore_missmatched_sizes", "ignore_mismatched_sizes"),
        ("torch_dtpye", "torch_dtype"),
        ("subfoler", "subfolder"),
        ("trust_remote", "trust_remote_code"),
    ],
)
def test_the_nearest_name(wrong: str, near: str) -> None:
    error = unknown_keyword(wrong)
    assert str(error) == f"no option {wrong!r}; did you mean {near!r}?"
    assert isinstance(error, TypeError)
    assert error.key == wrong


def test_the_nearest_name_may_be_a_config_field() -> None:
    assert "did you mean 'hidden_size'" in str(unknown_keyword("hiden_size", ["hidden_size"]))
    assert str(unknown_keyword("zzz")) == "no option 'zzz'"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strict", "yes"),
        ("strict", 1),
        ("force_download", "no"),
        ("local_files_only", "true"),
        ("output_loading_info", 0),
        ("ignore_mismatched_sizes", []),
        ("mmap", "off"),
        ("offload_buffers", 1),
        ("offload_folder", 3),
        ("max_memory", "10GB"),
        ("max_memory", {0: "lots"}),
        ("use_safetensors", "yes"),
        ("variant", 16),
        ("subfolder", 3),
        ("revision", b"main"),
        ("attn_implementation", {"": "sdpa"}),
        ("key_mapping", [("a", "b")]),
        ("key_mapping", {"(": "x"}),
        ("key_mapping", {"a": r"\2"}),
        ("key_mapping", {"a": r"\g<x>"}),
        ("key_mapping", {"a": 5}),
        ("key_mapping", {5: "a"}),
    ],
)
def test_values_of_another_kind(name: str, value: Any) -> None:
    with pytest.raises(InvalidOptionError, match=name) as caught:
        split_load_options({name: value})
    assert caught.value.key == name


@pytest.mark.parametrize(
    "name", ["strict", "force_download", "local_files_only", "mmap", "subfolder", "offload_buffers", "max_memory"]
)
def test_none_is_the_default(name: str) -> None:
    assert split_load_options({name: None})[0] == LoadOptions()


def test_paths_are_fine_as_subfolder() -> None:
    assert split_load_options({"subfolder": Path("a/b")})[0].source.subfolder == "a/b"


def test_two_spellings() -> None:
    assert split_load_options({"dtype": "float16", "torch_dtype": "float16"})[0].dtype == "float16"
    assert split_load_options({"dtype": None, "torch_dtype": "float16"})[0].dtype == "float16"
    assert split_load_options({"torch_dtype": "float16", "dtype": None})[0].dtype == "float16"
    with pytest.raises(OptionError, match="'torch_dtype' and another spelling of 'dtype' were given two values"):
        split_load_options({"dtype": "float16", "torch_dtype": "float32"})


def test_exclusive_options() -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        split_load_options({"force_download": True, "local_files_only": True})


def test_the_token_is_in_no_repr() -> None:
    assert "secret" not in repr(split_load_options({"token": "secret"})[0])


def test_source_options_alone() -> None:
    options, rest = split_source_options({"revision": "x", "hidden_size": 3, "trust_remote_code": False, "dtype": "d"})
    assert options == SourceOptions(revision="x")
    assert rest == {"hidden_size": 3, "dtype": "d"}
    assert split_source_options({"trust_remote_code": True, "code_revision": "x"}) == (SourceOptions(), {})
    with pytest.raises(InvalidOptionError, match="trust_remote_code is True or False"):
        split_source_options({"trust_remote_code": "yes"})


def test_what_a_save_does_unless_told() -> None:
    assert SaveOptions() == SaveOptions(True, None, "5GB", None, True)


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        WeightOptions().variant = "x"  # type: ignore[misc]


# Deprecated keywords


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("resume_download", True, "downloads are always resumed"),
        ("proxies", {"https": "x"}, "set HTTP_PROXY and HTTPS_PROXY"),
        ("mirror", "https://mirror", "use endpoint="),
        ("use_auth_token", "t", "use token="),
    ],
)
def test_deprecated_keywords_warn_once_and_name_the_replacement(name: str, value: Any, hint: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split_load_options({name: value})
    assert [w.category for w in caught] == [DeprecationWarning]
    assert f"{name}= is deprecated: {hint}" in str(caught[0].message)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split_load_options({name: None})
    assert caught == []


def test_what_a_deprecated_keyword_says_still_counts() -> None:
    with pytest.warns(DeprecationWarning, match="mirror"):
        assert split_load_options({"mirror": "https://m"})[0].source.endpoint == "https://m"
    with pytest.warns(DeprecationWarning, match="use_auth_token"):
        assert split_load_options({"use_auth_token": "t", "token": "t"})[0].source.token == Secret("t")
    with pytest.warns(DeprecationWarning, match="use_auth_token"), pytest.raises(OptionError, match="two values"):
        split_load_options({"token": "a", "use_auth_token": "b"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose config is fine and whose weights are not there."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path


CALLS: dict[str, Any] = {
    "AutoConfig": lambda folder: pretrained.AutoConfig.from_pretrained(folder, resume_download=True),
    "BertConfig": lambda folder: pretrained.BertConfig.from_pretrained(folder, resume_download=True),
    "get_config_dict": lambda folder: pretrained.BertConfig.get_config_dict(folder, resume_download=True),
    "AutoModel": lambda folder: pretrained.AutoModel.from_pretrained(folder, resume_download=True),
    "BertModel": lambda folder: pretrained.BertModel.from_pretrained(folder, resume_download=True),
    "split_load_options": lambda folder: split_load_options({"resume_download": True}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_warning_points_at_the_line_of_the_caller(call: Any, folder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(OSError):  # there are no weights; the keywords were looked at before
            call(folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "resume_download" in linecache.getline(__file__, caught[0].lineno)


def test_a_subclass_that_calls_up_is_a_caller_too(folder: Path) -> None:
    class Mine(pretrained.BertConfig):
        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return super().from_pretrained(*args, **kwargs)  # here

    with pytest.warns(DeprecationWarning, match="always resumed") as caught:
        Mine.from_pretrained(folder, resume_download=True)
    assert "# here" in linecache.getline(caught[0].filename, caught[0].lineno)


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, 1),
        (10**12, 10**12),
        ("1", 1),
        ("500MB", 500 * 10**6),
        ("5GB", 5 * 10**9),
        ("2GiB", 2 * 2**30),
        ("10 KB", 10**4),
        ("10kb", 10**4),
        ("1.5MiB", 3 * 2**19),
        ("1TB", 10**12),
        (" 7 B ", 7),
    ],
)
def test_sizes(size: int | str, expected: int) -> None:
    assert parse_size(size) == expected


@pytest.mark.parametrize(
    "size",
    [
        0,
        -1,
        "0",
        "0MB",
        "-5GB",
        "0.1B",
        "",
        "GB",
        "5 XB",
        "5GBs",
        "1e9",
        "5,5GB",
        "inf",
        "nan",
        "9" * 400,
        None,
        5.0,
        True,
        [5],
        b"5GB",
    ],
)
def test_no_sizes(size: Any) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        parse_size(size)
    assert caught.value.key == "max_shard_size"
    assert isinstance(caught.value, ValueError)


@given(st.integers(min_value=1, max_value=10**15 - 1), st.sampled_from(["B", "KB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_units_are_what_they_say(count: int, unit: str) -> None:
    base = 1024 if "i" in unit else 1000
    power = "BKMG".index(unit[0])
    assert parse_size(f"{count}{unit}") == pytest.approx(count * base**power, rel=1e-12)
    assert parse_size(count) == count
