"""Keras' HDF5 weights: what it writes is read, under torch's names; whatever else such a file can do is refused."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats import hdf5_tree
from pretrained.checkpoint.formats.hdf5 import HDF5File, read_hdf5
from pretrained.checkpoint.index import ShardIndex, without_model_names
from pretrained.checkpoint.rules import apply_ops, legacy_names
from pretrained.checkpoint.tensors import Container
from pretrained.errors import (
    CheckpointChangedError,
    MissingFrameworkError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    SourceError,
    TensorError,
    WeightsFormatError,
)
from pretrained.hub.ref import resolve
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.bert.modeling_bert_heads import BertForPreTraining
from pretrained.options import SourceOptions, WeightOptions

REFERENCE = Path(__file__).parents[1] / "reference"
FDS = Path("/proc/self/fd")
FAMILIES = ["bert", "gpt2", "t5", "vit", "wav2vec2"]
W = np.arange(12, dtype="f4").reshape(3, 4)


def opened(folder: Path) -> Weights:
    return find_checkpoint(resolve(folder, SourceOptions()), WeightOptions())


def arrays_of(weights: Weights) -> dict[str, Any]:
    """Every tensor as torch has it."""
    return {
        name: apply_ops(weights.layouts.get(name, ()), weights.containers[entry.file].read(entry))
        for name, entry in weights.entries.items()
    }


def keras(path: Path, layers: dict[str, dict[str, Any]], **options: Any) -> Path:
    """A file as Keras writes it: layer → full name of a variable → its values."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, variables in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in variables]
            for name, value in variables.items():
                group.create_dataset(name, data=value, **options)
    return path


def built(tmp_path: Path, build: Callable[[Any], None]) -> Path:
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        build(file)
    return path


def refused(path: Path, kind: type[PretrainedError], reason: str, tensor: str | None = None) -> PretrainedError:
    before = len(list(FDS.iterdir())) if FDS.exists() else 0
    with pytest.raises(kind, match=reason) as caught:
        read_hdf5(path)
    assert type(caught.value) is kind
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.tensor == tensor
    assert tensor is None or repr(tensor) in str(caught.value)
    assert len(str(caught.value).encode()) <= 2048
    assert not FDS.exists() or len(list(FDS.iterdir())) == before
    return caught.value


# What is read


@pytest.mark.parametrize("layout", ["tf-h5", "tf-h5-sharded", "tf-safetensors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_torchs(family: str, layout: str) -> None:
    expected = arrays_of(opened(REFERENCE / family / "torch-safetensors"))
    weights = opened(REFERENCE / family / layout)
    found = arrays_of(weights)
    for name in [name for name in found if name not in expected]:
        # Normed weights: torch's newest name for them is settled when they meet the model.
        renamed = next(new for new in legacy_names(name) if new in expected)
        found[renamed] = found.pop(name)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for name, twin in weights.twins:
        first = weights.containers[twin.file].read(weights.entries[name])
        np.testing.assert_array_equal(weights.containers[twin.file].read(twin), first, err_msg=name)
    assert len(weights.twins) == ({"bert": 5, "t5": 2}.get(family, 0) if layout == "tf-h5" else 0)


@pytest.mark.parametrize("source", ["tf-h5", "tf-h5-sharded", "tf-h5/tf_model.h5"])
def test_a_model_is_loaded(source: str) -> None:
    folder = REFERENCE / "bert"
    config = BertConfig.from_json_file(folder / "torch-safetensors/config.json")
    model, report = BertForPreTraining.from_pretrained(folder / source, config=config, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["conflicts"])
    inputs = {name: torch.from_numpy(value) for name, value in np.load(folder / "inputs.npz").items()}
    with torch.no_grad():
        output = model(**inputs)
    expected = np.load(folder / "expected.npz")
    for name in ("prediction_logits", "seq_relationship_logits"):
        value = torch.from_numpy(expected[f"tf/BertForPreTraining/{name}"])
        torch.testing.assert_close(output[name], value, atol=2e-5, rtol=0)


def test_entries_say_where_the_bytes_are(tmp_path: Path) -> None:
    file = read_hdf5(
        keras(tmp_path / "tf_model.h5", {"bert": {"tf_bert/bert/a/kernel:0": W, "tf_bert/bert/b:0": W[0]}})
    )
    container: Container = file
    assert container.metadata == {"format": "tf"}
    assert list(file.entries) == ["bert/a/kernel:0", "bert/b:0"]
    content = file.path.read_bytes()
    for entry, value in zip(file.entries.values(), (W, W[0]), strict=True):
        assert (entry.dtype, entry.shape, entry.nbytes) == ("float32", value.shape, value.nbytes)
        assert content[entry.offset : entry.offset + entry.nbytes] == value.tobytes()
        array = file.read(entry)
        assert array.flags.writeable and array.flags.c_contiguous
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", "<u4", "<i8", "<f2", "<f4", "<f8", ">f4", ">i8", "bool"])
@pytest.mark.parametrize(
    "options", [{}, {"chunks": True}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
def test_each_dtype_and_layout(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    value = (np.arange(60).reshape(5, 12) % 2).astype(dtype)
    file = read_hdf5(keras(tmp_path / "x.h5", {"l": {"m/l/w:0": value}}, **options))
    entry = file.entries["l/w:0"]
    assert entry.dtype == value.dtype.name
    is_plain = not options and not dtype.startswith(">") and dtype != "bool"
    assert (entry.offset >= 0) == is_plain
    array = file.read(entry)
    assert array.dtype.isnative and array.dtype.name == entry.dtype
    np.testing.assert_array_equal(array, value)


def test_scalars_empty_tensors_and_compact_ones(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["scalar:0"] = np.float32(3)
        file["empty:0"] = np.empty((0, 4), "f4")
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3, 4))
        h5py.h5d.create(file.id, b"compact:0", h5py.h5t.py_create(W.dtype), space, plan).write(
            h5py.h5s.ALL, h5py.h5s.ALL, W
        )

    file = read_hdf5(built(tmp_path, build))
    assert {name: entry.shape for name, entry in file.entries.items()} == {
        "compact:0": (3, 4),
        "empty:0": (0, 4),
        "scalar:0": (),
    }
    assert file.read(file.entries["scalar:0"]) == 3
    assert file.read(file.entries["empty:0"]).shape == (0, 4)
    np.testing.assert_array_equal(file.read(file.entries["compact:0"]), W)


def test_a_variable_of_several_layers_is_there_once_and_has_twins(tmp_path: Path) -> None:
    layers = {layer: {"shared/shared/embeddings:0": W} for layer in ("decoder", "encoder", "shared")}
    weights = find_checkpoint(resolve(keras(tmp_path / "tf_model.h5", layers), SourceOptions()), WeightOptions())
    assert {name: entry.name for name, entry in weights.entries.items()} == {"shared.weight": "shared/embeddings:0"}
    names = [(name, twin.name) for name, twin in weights.twins]
    assert names == [
        ("shared.weight", "shared/embeddings:0@encoder"),
        ("shared.weight", "shared/embeddings:0@shared"),
    ]


def test_a_long_list_of_names_is_split(tmp_path: Path) -> None:
    path = keras(tmp_path / "tf_model.h5", {"l": {f"m/l/{i}:0": W for i in range(3)}})
    with h5py.File(path, "a") as file:
        names = list(file["l"].attrs["weight_names"])
        del file["l"].attrs["weight_names"]
        file["l"].attrs["weight_names0"], file["l"].attrs["weight_names1"] = names[:2], names[2:]
    assert list(read_hdf5(path).entries) == ["l/0:0", "l/1:0", "l/2:0"]
    with h5py.File(path, "a") as file:
        del file["l"].attrs["weight_names1"]
    refused(path, WeightsFormatError, "the group 'l' lists 2 tensors and has 3")


def test_shards_agree_with_an_index_of_full_names(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(REFERENCE / "bert/tf-h5-sharded", folder)
    index = folder / "tf_model.h5.index.json"
    index.write_text(index.read_text().replace("pooler/dense/bias:0", "pooler/dense/bios:0"))
    with pytest.raises(ShardIndexError, match=r"'bert/pooler/dense/bios:0' should be in the shard") as caught:
        opened(folder)
    assert caught.value.shard == "tf_model-00003-of-00003.h5"
    with pytest.raises(ShardIndexError, match=r"'b/x:0' is listed twice but for the name of the model"):
        without_model_names(ShardIndex(index, {"a/x:0": "1.h5", "b/x:0": "2.h5"}, {}))


def test_two_names_of_one_dataset_share_its_bytes(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["a:0"] = W
        file["b:0"] = file["a:0"]

    file = read_hdf5(built(tmp_path, build))
    assert file.entries["a:0"].offset == file.entries["b:0"].offset


# What is refused


def external_storage(file: Any) -> None:
    file.create_dataset("g/w:0", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("g/w:0", layout)


def cycle(file: Any) -> None:
    file["g/w:0"] = W
    file["g/again"] = file["g"]


def soft_loop(file: Any) -> None:
    file["g/a"] = h5py.SoftLink("/g/b")
    file["g/b"] = h5py.SoftLink("/g/a")


def linked_outside(file: Any) -> None:
    file["g/w:0"] = h5py.ExternalLink("/etc/passwd", "/")


def assigned(name: str, value: Any, **options: Any) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        file.create_dataset(name, data=value, **options)

    return build


def declared(dtype: Any) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        file.create_dataset("w:0", (2,), dtype)

    return build


def arrays(file: Any) -> None:
    kind = h5py.h5t.array_create(h5py.h5t.IEEE_F32LE, (3,))
    h5py.h5d.create(file.id, b"w:0", kind, h5py.h5s.create_simple((2,)))


def odd_float(file: Any) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    h5py.h5d.create(file.id, b"w:0", kind, h5py.h5s.create_simple((4,)))


def never_written(file: Any) -> None:
    file.create_dataset("g/w:0", (1 << 40,), "f4")


def chunks_never_written(file: Any) -> None:
    file.create_dataset("g/w:0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))[0, 0] = 1


def zipped_bomb(file: Any) -> None:
    file.create_dataset("g/w:0", data=np.zeros(20 << 20, "f4"), compression="gzip", chunks=(5 << 20,))


def large_chunk(file: Any) -> None:
    file.create_dataset("g/w:0", data=np.zeros(4, "f4"), compression="gzip", chunks=(20 << 20,), maxshape=(None,))


@pytest.mark.parametrize(
    ("build", "kind", "reason", "tensor"),
    [
        (linked_outside, TensorError, "is a link to another file, which is not followed", "g/w:0"),
        (soft_loop, TensorError, "is a soft link, which is not followed", "g/a"),
        (cycle, WeightsFormatError, "the group 'g/again' is linked twice", None),
        (external_storage, TensorError, "is stored in another file", "g/w:0"),
        (virtual, TensorError, "is a virtual dataset", "g/w:0"),
        (never_written, TensorError, "has 0 bytes where its shape takes 4398046511104", "g/w:0"),
        (chunks_never_written, TensorError, "has 1 of its 1048576 chunks", "g/w:0"),
        (zipped_bomb, ResourceLimitError, "grows beyond 67108864 bytes when it is unpacked", "g/w:0"),
        (large_chunk, ResourceLimitError, "grows beyond 67108864 bytes", "g/w:0"),
        (assigned("w:0", np.zeros(2, [("r", "f4"), ("i", "f4")])), TensorError, "elements are compound", "w:0"),
        (assigned("w:0", np.zeros(2, "c8")), TensorError, "elements are compound", "w:0"),
        (assigned("w:0", ["a", "b"], dtype=h5py.string_dtype()), TensorError, "elements are text", "w:0"),
        (declared(h5py.vlen_dtype("f4")), TensorError, "of variable length", "w:0"),
        (declared(h5py.ref_dtype), TensorError, "are references", "w:0"),
        (assigned("w:0", np.zeros(2, "V4")), TensorError, "elements are opaque", "w:0"),
        (arrays, TensorError, "are arrays", "w:0"),
        (assigned("w:0", h5py.Empty("f4")), TensorError, "has no shape", "w:0"),
        (odd_float, TensorError, "a type that is not read, nearest to float32", "w:0"),
        (assigned("w:0", np.arange(4), scaleoffset=0), TensorError, "is packed by the filter 6", "w:0"),
        (assigned("a/\x1b[31m", W), TensorError, "its name has a control character", "a/\x1b[31m"),
        (assigned("x" * 2000, W), TensorError, "its name is none that a tensor can have", "x" * 2000),
        (assigned("layers/dense/vars/0", W), WeightsFormatError, "looks like a weights file of Keras 3", None),
        (assigned("model_weights/d/d/k:0", W), WeightsFormatError, "is a whole Keras model", None),
        (assigned("/".join("x" * 70), W), WeightsFormatError, "lies too deep", None),
        (lambda file: file.__setitem__("t", np.dtype("f4")), TensorError, "neither a group nor a dataset", "t"),
    ],
)
def test_what_weights_never_have(
    tmp_path: Path, build: Any, kind: type[PretrainedError], reason: str, tensor: str | None
) -> None:
    path = built(tmp_path, build)
    with pytest.raises(kind, match=reason) as caught:
        read_hdf5(path)
    assert type(caught.value) is kind
    assert caught.value.tensor == tensor
    assert str(path) in str(caught.value)
    assert len(str(caught.value).encode()) <= 2048 and "\x1b" not in str(caught.value)
    assert not FDS.exists() or not [fd for fd in FDS.iterdir() if fd.exists() and fd.resolve() == path]


def test_a_layer_must_have_its_list(tmp_path: Path) -> None:
    path = keras(tmp_path / "tf_model.h5", {"a": {"m/a/w:0": W}, "b": {"m/b/w:0": W}})
    with h5py.File(path, "a") as file:
        del file["b"].attrs["weight_names"]
    refused(path, TensorError, "lies in no group that has the attribute weight_names", "b/m/b/w:0")
    with h5py.File(path, "a") as file:
        file["b"].attrs["weight_names"] = "m/b/w:0"
    refused(path, WeightsFormatError, "the attribute weight_names of the group 'b' is no list")
    with h5py.File(path, "a") as file:
        file["b"].attrs["weight_names"] = [b"m/b/w:0", b"m/b/v:0"]
    refused(path, WeightsFormatError, "the group 'b' lists 2 tensors and has 1")
    with h5py.File(path, "a") as file:
        del file["b"]
        file["a/b/m/w:0"] = W
        file["a/b"].attrs["weight_names"] = [b"m/w:0"]
    refused(path, WeightsFormatError, "the layer 'a/b' lies in another one")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no HDF5 file: it is empty"),
        (b"PK\3\4" + bytes(60), "looks like a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "looks like an HTML page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is damaged or cut off"),
        (bytes(range(9, 100)), "do not begin as one does"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "tf_model.h5"
    path.write_bytes(content)
    refused(path, WeightsFormatError, reason)


def test_nothing_there_and_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.h5", SourceError, "does not exist")
    refused(tmp_path, WeightsFormatError, "is a folder, not a file")


def test_a_user_block_is_no_place_to_hide(tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["w:0"] = W
    content = bytearray(path.read_bytes())
    content[:8] = b"\x89HDF\r\n\x1a\n"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError, match=r"is damaged or cut off|has a user block"):
        read_hdf5(path)


def test_a_file_that_changes(tmp_path: Path) -> None:
    file = read_hdf5(keras(tmp_path / "tf_model.h5", {"l": {"m/l/w:0": W, "m/l/p:0": W.astype(">f4")}}))
    entry = file.entries["l/w:0"]
    with pytest.raises(TensorError, match="no such entry in this file"):
        file.read(entry._replace(shape=(4, 3)))
    keras(file.path, {"l": {"m/l/w:0": W + 1, "m/l/p:0": W.astype(">f4"), "m/l/q:0": W}})
    for name in ("l/w:0", "l/p:0"):
        with pytest.raises(CheckpointChangedError, match="changed after"):
            file.read(file.entries[name])


def test_h5py_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras(tmp_path / "tf_model.h5", {"l": {"m/l/w:0": W}})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        MissingFrameworkError, match=r"h5py is needed to read HDF5 files: pip install 'pretrained\[h5\]'"
    ):
        read_hdf5(path)


def test_h5py_is_imported_when_a_file_is_read_and_not_before() -> None:
    code = (
        "import sys, pretrained.checkpoint.find, pretrained.checkpoint.formats.hdf5; assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras(tmp_path / "tf_model.h5", {"l": {f"m/l/{i}:0": W for i in range(20)}})
    monkeypatch.setattr(hdf5_tree, "MAX_OBJECTS", 20)
    refused(path, ResourceLimitError, "more than 20 objects")
    monkeypatch.undo()
    monkeypatch.setattr(hdf5_tree, "MAX_READ", -2 * path.stat().st_size + 4096)
    refused(path, WeightsFormatError, "is damaged or cut off")


# Damage


def attempt(path: Path, raw: bytes) -> HDF5File | None:
    """The file these bytes make and all its tensors read, or None after one of our errors."""
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    complaint = ""
    try:
        file = read_hdf5(path)
        for entry in file.entries.values():
            assert file.read(entry).shape == entry.shape
    except PretrainedError as error:
        complaint = str(error)
    if complaint:
        assert path.name in complaint
        assert len(complaint.encode()) <= 2048
        return None
    return file


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = keras(tmp_path / "tf_model.h5", {"l": {"m/l/a:0": W, "m/l/b:0": W}}).read_bytes()
    assert attempt(tmp_path / "x.h5", raw) is not None
    for size in range(0, len(raw), 7):
        assert attempt(tmp_path / "x.h5", raw[:size]) is None, size


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    layers = {"l": {"m/l/a:0": W, "m/l/b:0": W + 1}}
    raw = keras(tmp_path / "tf_model.h5", layers, compression="gzip").read_bytes()
    plain = keras(tmp_path / "tf_model.h5", layers).read_bytes()
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    for source in (raw, plain):
        for _ in range(600):
            damaged = bytearray(source)
            for _ in range(rng.choice([1, 1, 3])):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            outcomes[attempt(tmp_path / "x.h5", bytes(damaged)) is None] += 1
    assert outcomes[True] > 100 and outcomes[False] > 100
