"""The story of a load and of a save, without any framework but numpy."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pretrained import loading, saving
from pretrained.checkpoint.boxes import whole
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.plan_load import ParamSpec
from pretrained.checkpoint.plan_save import Stored
from pretrained.configuration import PretrainedConfig
from pretrained.errors import (
    CheckpointChangedError,
    ConfigError,
    InvalidOptionError,
    MismatchError,
    OptionError,
    PretrainedError,
    SaveError,
    SourceError,
)
from pretrained.loading import Stopwatch, read_config
from pretrained.options import LoadOptions, SaveOptions, split_load_options
from pretrained.report import LoadReport
from tests.numpy_backend import NumpyBackend, NumpyModel, bytes_of, save_arrays

Array = np.ndarray[Any, Any]


class SmallConfig(PretrainedConfig):
    model_type = "small"
    positive: ClassVar[tuple[str, ...]] = ("size", "num_hidden_layers")
    size: int = 3
    num_hidden_layers: int = 1
    double: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.double is None:
            self.double = 2 * self.size


class Small(NumpyModel):
    config_class = SmallConfig


class Tied(Small):
    ties: ClassVar[Mapping[str, tuple[str, ...]]] = {"w": ("head",)}

    @staticmethod
    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        return {"w": (config.size,), "head": (config.size,)}


class Untied(Tied):
    ties: ClassVar[Mapping[str, tuple[str, ...]]] = {}


ARRAYS: dict[str, Array] = {
    "w": np.arange(3, dtype=np.float32),
    "layer.b": np.arange(6, dtype=np.float32).reshape(3, 2),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path / "ckpt", ARRAYS)


def put(folder: Path, arrays: Mapping[str, Array], config: Mapping[str, Any] | None = None) -> Path:
    save_arrays(folder / "model.safetensors", arrays)
    values = {"model_type": "small", "size": 3} if config is None else config
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def load(ref: Any, cls: type[NumpyModel] = Small, *args: Any, **keywords: Any) -> tuple[NumpyModel, LoadReport]:
    options, rest = split_load_options(keywords)
    return loading.load(cls._choose, ref, options, rest, NumpyBackend, args)


def values_of(model: NumpyModel) -> dict[str, list[Any]]:
    return {name: array.reshape(-1).tolist() for name, array in model.arrays.items() if array is not None}


def test_the_story(folder: Path) -> None:
    model, report = load(folder)
    assert values_of(model) == {"w": [0, 1, 2], "layer.b": [0, 1, 2, 3, 4, 5]}
    assert model.is_ready
    assert report.is_clean
    assert (report.num_loaded, report.bytes_mapped, report.bytes_read) == (2, 36, 0)
    assert (report.source, report.model, report.dtype) == (str(folder), "Small", "float32")
    assert set(report.seconds) == {"resolve", "find", "skeleton", "plan", "initialise", "read", "bind"}
    assert (model.config.size, model.config.name_or_path, model.config.dtype) == (3, str(folder), "float32")


def test_the_report_equals_lists_and_sets(tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "x": ARRAYS["w"], "a": ARRAYS["w"]})
    _, report = load(tmp_path)
    assert report["missing_keys"] == ["layer.b"] == report.missing_keys
    assert report["missing_keys"] == {"layer.b"}
    assert report["unexpected_keys"] == ["x", "a"]
    assert report["unexpected_keys"] == {"a", "x"}
    assert (report["mismatched_keys"], report["error_msgs"]) == ([], [])


def test_what_is_missing_or_left_over_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "x": ARRAYS["w"]})
    with caplog.at_level(logging.INFO, "pretrained"):
        model, _ = load(tmp_path)
    assert values_of(model)["layer.b"] == [-1] * 6
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "layer.b" in warnings[0].getMessage()
    assert "1 unexpected (not used):\n    x" in warnings[0].getMessage()


def test_strict(tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "x": ARRAYS["w"]})
    with pytest.raises(MismatchError) as caught:
        load(tmp_path, strict=True)
    assert caught.value.complaints == ["layer.b: missing from the checkpoint", "x: not a parameter of the model"]


def test_mismatched_sizes(tmp_path: Path) -> None:
    put(tmp_path, {**ARRAYS, "w": np.zeros(4, np.float32)})
    with pytest.raises(MismatchError, match=r"w: checkpoint \[4\], model \[3\]"):
        load(tmp_path)
    model, report = load(tmp_path, ignore_mismatched_sizes=True)
    assert report.mismatched_keys == [("w", (4,), (3,))]
    assert values_of(model)["w"] == [-1] * 3


def test_a_checkpoint_of_another_family(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A GPT-2 under a class of another family: its config has other names, so nothing fits."""
    gpt2 = {"model_type": "gpt2", "n_embd": 4, "n_layer": 1}
    put(tmp_path, {"wte.weight": np.zeros((5, 4), np.float32), "ln_f.bias": np.zeros(4, np.float32)}, gpt2)
    with caplog.at_level(logging.WARNING), pytest.raises(MismatchError, match="matches no tensor of Small"):
        load(tmp_path)
    assert f"{tmp_path} is a gpt2 checkpoint and is read as small" in caplog.text


def test_dtype(folder: Path) -> None:
    model, report = load(folder, dtype="float16")
    assert {array.dtype.name for array in model.arrays.values() if array is not None} == {"float16"}
    assert (report.dtype, model.config.dtype, report.bytes_read) == ("float16", "float16", 36)
    put(folder, ARRAYS, {"model_type": "small", "dtype": "bfloat16"})
    assert load(folder)[1].dtype == "bfloat16"
    assert load(folder, torch_dtype="auto")[1].dtype == "bfloat16"


def test_overflow_is_a_warning_or_an_error(tmp_path: Path) -> None:
    put(tmp_path, {**ARRAYS, "w": np.array([1, 1e30, 2], np.float32)})
    _, report = load(tmp_path, dtype="float16")
    assert report.conflicts == ["w has values beyond float16: they became infinite"]
    with pytest.raises(MismatchError, match="beyond float16"):
        load(tmp_path, dtype="float16", strict=True)


def test_integers_are_a_warning_or_an_error(tmp_path: Path) -> None:
    put(tmp_path, {**ARRAYS, "w": np.arange(3)})
    model, report = load(tmp_path)
    assert report.conflicts == ["w is int64 at rest and float32 in the model"]
    assert values_of(model)["w"] == [0, 1, 2]
    with pytest.raises(MismatchError, match="int64 at rest"):
        load(tmp_path, strict=True)


# Tied weights


def test_tied_tensors_that_agree(tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "head": ARRAYS["w"]})
    model, report = load(tmp_path, Tied)
    assert report.is_clean
    assert model.arrays["w"] is model.arrays["head"]


def test_tied_tensors_that_differ(tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "head": ARRAYS["w"] + 1})
    model, report = load(tmp_path, Tied)
    assert values_of(model) == {"w": [0, 1, 2], "head": [0, 1, 2]}
    assert len(report.conflicts) == 1
    assert "head is tied to w and differs from it in the checkpoint" in report.conflicts[0]
    with pytest.raises(MismatchError, match="head is tied to w"):
        load(tmp_path, Tied, strict=True)


class FirstRows(NumpyBackend):
    """A process that needs no more than the first two rows of everything."""

    def params(self, model: NumpyModel) -> list[ParamSpec]:
        return [spec._replace(box=((0, 2), *whole(spec.shape[1:]))) for spec in super().params(model)]


@pytest.mark.parametrize(("last", "is_clean"), [([0, 1, 9], True), ([0, 9, 2], False)])
def test_of_tied_tensors_the_part_that_is_needed_is_compared(last: list[int], is_clean: bool, tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "head": np.array(last, np.float32)})
    options, rest = split_load_options({"dtype": "float16"})
    model, report = loading.load(Tied._choose, tmp_path, options, rest, FirstRows)
    assert values_of(model) == {"w": [0, 1], "head": [0, 1]}
    assert report.is_clean == is_clean
    assert report.bytes_read == 8


def test_tied_tensors_of_two_shapes_differ_in_any_part(tmp_path: Path) -> None:
    put(tmp_path, {"w": ARRAYS["w"], "head": np.arange(2, dtype=np.float32)})
    options, rest = split_load_options({})
    report = loading.load(Tied._choose, tmp_path, options, rest, FirstRows)[1]
    assert "head is tied to w and differs" in report.conflicts[0]


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_second_name_in_the_metadata(mmap: bool, dtype: str, tmp_path: Path) -> None:
    put(tmp_path, {})
    save_arrays(tmp_path / "model.safetensors", {"w": ARRAYS["w"]}, {"head": "w"})
    model, report = load(tmp_path, Untied, mmap=mmap, dtype=dtype)
    assert report.is_clean
    assert values_of(model) == {"w": [0, 1, 2], "head": [0, 1, 2]}
    first, second = model.arrays["w"], model.arrays["head"]
    assert first is not None
    assert second is not None
    assert not np.shares_memory(first, second)
    tied, report = load(tmp_path, Tied)
    assert report.is_clean
    assert tied.arrays["w"] is tied.arrays["head"]


def test_key_mapping(tmp_path: Path) -> None:
    put(tmp_path, {"old.w": ARRAYS["w"], "layer.b": ARRAYS["layer.b"]})
    model, report = load(tmp_path, key_mapping={r"^old\.": ""})
    assert report.is_clean
    assert model.renamed == {"w": "old.w"}


# Keywords and config


def test_keywords_are_fields_then_arguments(folder: Path) -> None:
    put(folder, {"w": np.zeros(5, np.float32), "layer.b": np.zeros((5, 2), np.float32)})
    model, _ = load(folder, Small, size=5, scale=2.0)
    assert (model.config.size, model.config.double, model.scale) == (5, 10, 2.0)  # what is derived follows
    model, _ = load(folder, Small, 3.0, size=5)
    assert model.scale == 3.0


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("reviison", "revision"), ("siz", "size"), ("scal", "scale"), ("num_hiden_layers", "num_hidden_layers")],
)
def test_a_keyword_nobody_knows(wrong: str, near: str, folder: Path) -> None:
    with pytest.raises(OptionError, match=f"no option '{wrong}'; did you mean '{near}'"):
        load(folder, Small, **{wrong: 1})


def test_a_keyword_with_an_impossible_value(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'size' must be positive, found -1"):
        load(folder, Small, size=-1)
    with pytest.raises(ConfigError, match="'size' must be int"):
        load(folder, Small, config=SmallConfig(), size="x")


def test_a_config_that_is_given_is_never_changed(folder: Path) -> None:
    config = SmallConfig(double=9)
    before = config.to_json_string()
    model, _ = load(folder, Small, config=config, num_labels=7, attn_implementation="eager")
    assert config.to_json_string() == before
    assert config._attn_implementation is None
    assert model.config is not config
    assert (model.config.double, model.config.num_labels, model.config._attn_implementation) == (9, 7, "eager")


def test_a_config_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "other", {}, {"model_type": "small", "double": 77})
    (folder / "config.json").unlink()
    assert load(folder, config=tmp_path / "other")[0].config.double == 77
    assert load(folder, config=str(tmp_path / "other" / "config.json"))[0].config.double == 77
    with pytest.raises(SourceError, match=r"no config\.json beside the weights of .* there is: model\.safetensors"):
        load(folder)


def test_a_config_of_attributes_only() -> None:
    with pytest.raises(OptionError, match="pass config= and state_dict="):
        load(None)
    with pytest.raises(OptionError, match="pass state_dict="):
        load(None, config=SmallConfig())


def test_a_state_dict(folder: Path) -> None:
    model, report = load(None, config=SmallConfig(), state_dict=ARRAYS)
    assert values_of(model)["w"] == [0, 1, 2]
    assert report.source == "<state_dict>"
    assert model.generation_config is None
    assert not np.shares_memory(np.asarray(model.arrays["w"]), ARRAYS["w"])
    model, _ = load(folder, state_dict={**ARRAYS, "w": ARRAYS["w"] + 5})
    assert values_of(model)["w"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"size": 0}, "size"),
        ({"size": "abc"}, "size"),
        ({"size": 2**63}, "size"),
        ({"dtype": "load"}, "dtype"),
        ({"torch_dtype": "__builtins__"}, "torch_dtype"),
        ({"dtype": "float99"}, "dtype"),
        ({"num_labels": "x"}, "num_labels"),
        ({"to_dict": 1}, "to_dict"),
    ],
)
def test_errors_of_the_config_name_the_file(values: dict[str, Any], key: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "small", **values}))
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert (caught.value.key, caught.value.path) == (key, str(folder / "config.json"))
    assert str(folder / "config.json") in str(caught.value)


def test_what_the_model_class_says_of_the_config_names_the_file_too(folder: Path) -> None:
    class Picky(Small):
        def __init__(self, config: Any) -> None:
            raise ConfigError("config key 'size' does not divide", key="size")

    with pytest.raises(ConfigError) as caught:
        load(folder, Picky)
    assert str(caught.value) == f"{folder / 'config.json'}: config key 'size' does not divide"
    with pytest.raises(ConfigError, match=r"^config key 'size' does not divide"):
        load(folder, Picky, config=SmallConfig())


def test_a_constructor_that_trips_over_the_file(folder: Path) -> None:
    class Trips(Small):
        def __init__(self, config: Any, scale: Any = 1.0) -> None:
            raise ValueError("dropout must be below 1")

    with pytest.raises(ConfigError, match="Trips cannot be built from these values: ValueError: dropout") as caught:
        load(folder, Trips)
    assert caught.value.path == str(folder / "config.json")
    assert isinstance(caught.value.__cause__, ValueError)
    for args, keywords in (((2,), {}), ((), {"scale": 2}), ((), {"config": SmallConfig()})):
        with pytest.raises(ValueError, match=r"^dropout must be below 1"):  # it may be what the caller said
            load(folder, Trips, *args, **keywords)


def test_an_impossible_dtype_of_the_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "small", "dtype": "int8"}))
    with pytest.raises(ConfigError, match="'int8', which is no floating dtype"):
        load(folder)
    assert load(folder, dtype="float32")[1].is_clean


# Bounds: nothing is built


class NeverBuilt(Small):
    def __init__(self, config: Any) -> None:
        raise AssertionError("built")


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 10**9), ("size", 2**31 - 1), ("size", 5 * 10**6)])
def test_a_config_far_beyond_the_weights(key: str, value: int, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "small", key: value}))
    with pytest.raises(ConfigError, match=f"config key '{key}' is {value}, and .* holds") as caught:
        load(folder, NeverBuilt)
    assert (caught.value.key, caught.value.path) == (key, str(folder / "model.safetensors"))


def test_a_billion_labels(folder: Path) -> None:
    class Head(Small):
        @staticmethod
        def shapes(config: Any) -> dict[str, tuple[int, ...]]:
            return {"w": (config.size,), "classifier": (config.num_labels, 2)}

    (folder / "config.json").write_text(json.dumps({"model_type": "small", "num_labels": 10**9}))
    with pytest.raises(ConfigError, match=r"asks for 8,000,000,000 bytes .* classifier \[1000000000, 2\]"):
        load(folder, Head)


# Saves in the middle


def test_a_save_in_the_middle_is_noticed_and_the_load_begins_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loading.execute, []

    def execute(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            put(folder, {**ARRAYS, "w": ARRAYS["w"] + 1}, {"model_type": "small", "double": 8})
        return real(*args, **kwargs)

    monkeypatch.setattr(loading, "execute", execute)
    model, _ = load(folder)
    assert len(calls) == 2
    assert values_of(model)["w"] == [1, 2, 3]
    assert model.config.double == 8  # one checkpoint, whole


def test_a_file_replaced_after_it_was_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading._compare_twins

    def replace(*args: Any) -> None:
        real(*args)
        save_arrays(folder / "model.safetensors", ARRAYS)

    monkeypatch.setattr(loading, "_compare_twins", replace)
    monkeypatch.setattr(loading, "_PAUSE", 0)
    with pytest.raises(CheckpointChangedError, match="was replaced while it was being loaded"):
        load(folder)


def test_a_config_replaced_in_the_middle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading.load_weights

    def replace(*args: Any, **kwargs: Any) -> Any:
        (folder / "config.json").write_text(json.dumps({"model_type": "small", "double": len(seen)}))
        os.utime(folder / "config.json", ns=(len(seen), len(seen)))
        seen.append(1)
        return real(*args, **kwargs)

    seen: list[int] = []
    monkeypatch.setattr(loading, "load_weights", replace)
    monkeypatch.setattr(loading, "_PAUSE", 0)
    with pytest.raises(CheckpointChangedError):
        load(folder)
    assert len(seen) == loading._ATTEMPTS


def test_an_error_that_is_no_change_is_raised_at_once(folder: Path) -> None:
    made: list[int] = []

    def backend() -> NumpyBackend:
        made.append(1)
        return NumpyBackend()

    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(PretrainedError):
        loading.load(Small._choose, folder, LoadOptions(), {}, backend)
    assert len(made) == 1


# Pieces


def test_read_config(folder: Path) -> None:
    from pretrained.hub.ref import resolve
    from pretrained.options import SourceOptions

    config = read_config(Small._choose, resolve(folder, SourceOptions()), LoadOptions())
    assert (type(config), config.size) == (SmallConfig, 3)


def test_the_stopwatch_adds_up_also_when_something_fails() -> None:
    watch = Stopwatch()
    with watch.time("a"):
        pass
    first = watch.seconds["a"]
    with pytest.raises(ZeroDivisionError), watch.time("a"):
        raise ZeroDivisionError
    assert watch.seconds["a"] >= first >= 0


# Saves


def save(folder: Path, arrays: Mapping[str, Array], **options: Any) -> Any:
    texts = options.pop("texts", None)
    names = {name: np.asarray(array) for name, array in arrays.items()}
    secondary = options.pop("secondary", ())
    stored = [
        Stored(n, a.dtype.name, a.shape, a.ctypes.data, a.ctypes.data + a.nbytes, a.strides) for n, a in names.items()
    ]
    return saving.save(
        folder, stored, lambda name: bytes_of(names[name]), SaveOptions(**options), secondary=secondary, texts=texts
    )


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    text = SmallConfig().to_json_string()
    report = save(tmp_path / "new", ARRAYS, texts={"config.json": text})
    assert report.total_size == 36
    assert report.files == {name: os.path.getsize(tmp_path / "new" / name) for name in os.listdir(tmp_path / "new")}
    model, loaded = load(tmp_path / "new")
    assert loaded.is_clean
    assert values_of(model) == {name: array.reshape(-1).tolist() for name, array in ARRAYS.items()}


def test_one_memory_is_written_once_and_its_other_name_noted(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    report = save(tmp_path, {"head": array, "w": array}, secondary=["head"], texts={"config.json": "{}"})
    assert report.tied == {"head": "w"}
    header = read_header(tmp_path / "model.safetensors")
    assert list(header.entries) == ["w"]
    assert header.metadata == {"format": "pt", "head": "w"}
    model, loaded = load(tmp_path, Untied)
    assert loaded.is_clean
    assert values_of(model) == {"w": [0, 1, 2], "head": [0, 1, 2]}


def test_an_alias_that_is_called_like_the_metadata(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    save(tmp_path, {"a": array, "format": array})
    assert read_header(tmp_path / "model.safetensors").metadata == {"format": "pt"}


def test_shards_and_the_way_back_to_one_file(tmp_path: Path) -> None:
    text = {"config.json": "{}"}
    report = save(tmp_path, ARRAYS, max_shard_size=24, texts=text)
    assert sorted(report.files) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 36}
    assert load(tmp_path)[1].is_clean
    (tmp_path / "notes.txt").write_text("mine")
    report = save(tmp_path, ARRAYS, texts=text)
    assert sorted(report.removed) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors", "notes.txt"]
    assert load(tmp_path)[1].is_clean


def tree(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error"), ValueError("x")]
)
def test_a_save_that_fails_leaves_what_was_there(error: Exception, folder: Path) -> None:
    before = tree(folder)
    array = np.zeros(3, np.float32)

    def fail(name: str) -> Any:
        raise error

    with pytest.raises(SaveError if isinstance(error, OSError) else ValueError):
        saving.save(folder, [Stored("w", "float32", (3,))], fail, SaveOptions())
    assert tree(folder) == before
    overlap = [Stored("a", "float32", (3,), 100, 112), Stored("b", "float32", (3,), 104, 116)]
    with pytest.raises(SaveError, match="share memory"):
        saving.save(folder, overlap, lambda name: bytes_of(array), SaveOptions())
    assert tree(folder) == before


@pytest.mark.parametrize("size", ["5 XB", 0, -1, None])
def test_no_size(size: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError):
        save(tmp_path / "new", ARRAYS, max_shard_size=size)
    assert not (tmp_path / "new").exists()


def test_a_target_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError, match="it is a file, not a folder") as caught:
        save(tmp_path / "file", ARRAYS)
    assert caught.value.path == str(tmp_path / "file")


def test_a_writer_of_the_callers_own(tmp_path: Path) -> None:
    written: list[tuple[list[str], str]] = []

    def write(names: list[str], path: Path) -> None:
        written.append((names, path.name))
        path.write_bytes(b"x")

    stored = [Stored(name, "float32", array.shape) for name, array in ARRAYS.items()]
    report = saving.save(tmp_path, stored, lambda name: b"", SaveOptions(), save_function=write)
    assert written == [(["w", "layer.b"], "model.safetensors")]
    assert report.files == {"model.safetensors": 1}
