"""TensorFlow checkpoints: what TensorFlow writes is read without it; every byte of an index is accounted for."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats import tf_bundle, tf_bundle_table
from pretrained.checkpoint.formats.readers import open_containers
from pretrained.checkpoint.formats.tf_bundle import BundleFile, data_file_name, read_bundle
from pretrained.checkpoint.formats.tf_bundle_crc import crc32c, masked
from pretrained.checkpoint.formats.tf_bundle_proto import DTYPES, STRING
from pretrained.checkpoint.rules import apply_ops
from pretrained.checkpoint.tensors import Container
from pretrained.checkpoint.windows import numpy_dtype
from pretrained.errors import (
    CheckpointChangedError,
    IntegrityError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    SourceError,
    TensorError,
    UntrustedPathError,
    WeightsFormatError,
)
from pretrained.hub.ref import resolve
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.bert.modeling_bert import BertModel
from pretrained.models.bert.modeling_bert_heads import BertForPreTraining
from pretrained.options import SourceOptions, WeightOptions

REFERENCE = Path(__file__).parents[1] / "reference"
BERT = REFERENCE / "bert/tf1-ckpt"
FDS = Path("/proc/self/fd")
W = np.arange(12, dtype="f4").reshape(3, 4)
NUMBERS = {name: number for number, name in DTYPES.items()}
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


# A writer, for files that TensorFlow would not write


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def header(num_shards: int = 1, endianness: int = 0, consumer: int = 0) -> bytes:
    return number(1, num_shards) + number(2, endianness) + text(3, number(1, 1) + number(2, consumer))


def entry(dtype: int, shape: Iterable[int], shard: int, offset: int, size: int, crc: int, more: bytes = b"") -> bytes:
    dims = b"".join(text(2, number(1, dim)) for dim in shape)
    place = number(3, shard) + number(4, offset) + number(5, size)
    return number(1, dtype) + text(2, dims) + place + varint(6 << 3 | 5) + struct.pack("<L", crc) + more


def block(pairs: Iterable[tuple[bytes, bytes]], every: int = 3, kind: int = 0) -> bytes:
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(pairs):
        shared = 0
        if i % every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return sealed(bytes(out) + b"".join(struct.pack("<L", r) for r in restarts or [0]) + tail(restarts), kind)


def tail(restarts: list[int]) -> bytes:
    return struct.pack("<L", max(1, len(restarts)))


def sealed(content: bytes, kind: int = 0) -> bytes:
    content += bytes([kind])
    return content + struct.pack("<L", masked(crc32c(content)))


def table(pairs: Iterable[tuple[bytes, bytes]], per_block: int = 4) -> bytes:
    pairs = list(pairs)
    blocks = [pairs[i : i + per_block] for i in range(0, len(pairs), per_block)]
    return assembled([(chunk[-1][0], block(chunk)) for chunk in blocks])


def assembled(blocks: list[tuple[bytes, bytes]]) -> bytes:
    out, handles = b"", []
    for bound, sealed_block in blocks:
        handles.append((bound, varint(len(out)) + varint(len(sealed_block) - 5)))
        out += sealed_block
    meta = varint(len(out)) + varint(len(block([])) - 5)
    out += block([])
    listed = block(handles)
    footer = meta + varint(len(out)) + varint(len(listed) - 5)
    return out + listed + footer.ljust(40, b"\0") + MAGIC


def saved(
    folder: Path,
    tensors: Mapping[str, Any],
    num_shards: int = 1,
    stem: str = "model.ckpt",
    raw: Any = None,
    **changes: Any,
) -> Path:
    """Writes a checkpoint; `raw` adds pairs to the index, `changes` alters what is said of the tensor "w"."""
    contents = [bytearray() for _ in range(num_shards)]
    pairs = [(b"", header(num_shards))]
    for i, name in enumerate(sorted(tensors)):
        value = tensors[name]
        content = value.tobytes()
        shard = i * num_shards // len(tensors)
        said = {
            "dtype": NUMBERS[value.dtype.name],
            "shape": value.shape,
            "shard": shard,
            "offset": len(contents[shard]),
            "size": len(content),
            "crc": masked(crc32c(content)),
        }
        pairs.append((name.encode(), entry(**{**said, **(changes if name == "w" else {})})))
        contents[shard] += content
    index = folder / f"{stem}.index"
    index.write_bytes(table(sorted([*pairs, *(raw or [])])))
    for shard, content in enumerate(contents):
        (folder / data_file_name(stem, shard, num_shards)).write_bytes(content)
    return index


def opened(place: Any) -> Weights:
    return find_checkpoint(resolve(place, SourceOptions()), WeightOptions())


def arrays_of(weights: Weights) -> dict[str, Any]:
    """Every tensor as torch has it."""
    return {
        name: apply_ops(weights.layouts.get(name, ()), weights.containers[one.file].read(one))
        for name, one in weights.entries.items()
    }


def refused(index: Path, kind: type[PretrainedError], reason: str, tensor: str | None = None) -> PretrainedError:
    before = len(list(FDS.iterdir())) if FDS.exists() else 0
    with pytest.raises(kind, match=reason) as caught:
        for file in read_bundle(index):
            for one in file.entries.values():
                file.read(one)
    assert type(caught.value) is kind
    assert str(index.parent) in str(caught.value)
    assert caught.value.tensor == tensor
    assert tensor is None or repr(tensor[:200]) in str(caught.value)
    assert len(str(caught.value).encode()) <= 2048 and "\x1b" not in str(caught.value)
    assert not FDS.exists() or len(list(FDS.iterdir())) == before
    return caught.value


# What is read


@pytest.mark.parametrize(("family", "prefix", "num_skipped"), [("bert", "", 2), ("gpt2", "transformer.", 0)])
def test_every_tensor_is_torchs(family: str, prefix: str, num_skipped: int) -> None:
    expected = arrays_of(opened(REFERENCE / family / "torch-safetensors"))
    weights = opened(REFERENCE / family / "tf1-ckpt")
    found = {prefix + name: array for name, array in arrays_of(weights).items()}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert len(weights.skipped) == num_skipped


def expect_outputs(model: Any) -> None:
    folder = REFERENCE / "bert"
    inputs = {name: torch.from_numpy(value) for name, value in np.load(folder / "inputs.npz").items()}
    with torch.no_grad():
        output = model(**inputs)
    expected = np.load(folder / "expected.npz")
    for name in ("prediction_logits", "seq_relationship_logits"):
        value = torch.from_numpy(expected[f"torch/BertForPreTraining/{name}"])
        torch.testing.assert_close(output[name], value, atol=2e-5, rtol=0)


@pytest.mark.parametrize("place", ["", "model.ckpt", "model.ckpt.index"])
def test_a_model_is_loaded(place: str) -> None:
    config = BertConfig.from_json_file(BERT / "config.json")
    model, report = BertForPreTraining.from_pretrained(BERT / place, config=config, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["conflicts"])
    expect_outputs(model)


@pytest.mark.parametrize("path", [BERT / "model.ckpt", str(BERT / "model.ckpt.index"), REFERENCE / "bert/tf-h5"])
def test_load_tf_weights_fills_a_live_model(path: Any) -> None:
    model = BertForPreTraining(BertConfig.from_json_file(BERT / "config.json")).eval()
    parameters = list(model.parameters())
    assert BertForPreTraining.load_tf_weights(model, model.config, path) is model
    assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
    assert not model.training
    expect_outputs(model)


def test_load_tf_weights_that_fails_changes_nothing(tmp_path: Path) -> None:
    model = BertModel(BertConfig.from_json_file(BERT / "config.json"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SourceError, match="no file or folder"):
        BertModel.load_tf_weights(model, model.config, tmp_path / "model.ckpt")
    for name in ("model.ckpt.index", data_file_name("model.ckpt", 0, 1)):
        (tmp_path / name).write_bytes((BERT / name).read_bytes())
    damage(tmp_path / data_file_name("model.ckpt", 0, 1), 40_000)
    with pytest.raises(IntegrityError, match="recorded checksum"):
        BertModel.load_tf_weights(model, model.config, tmp_path / "model.ckpt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", sorted(NUMBERS))
def test_each_dtype(tmp_path: Path, dtype: str) -> None:
    value = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, 96, np.uint8)
    tensors = {
        "w": value.view(numpy_dtype(dtype)).reshape(2, -1),
        "empty": np.empty((0, 3), numpy_dtype(dtype)),
        "scalar": value[:16].view(numpy_dtype(dtype))[0],
    }
    (file,) = read_bundle(saved(tmp_path, tensors))
    container: Container = file
    assert (container.metadata, container.path.name) == ({"format": "tf1"}, "model.ckpt.data-00000-of-00001")
    for name, expected in tensors.items():
        found = file.entries[name]
        assert (found.dtype, found.shape, found.nbytes) == (dtype, expected.shape, expected.nbytes)
        array = file.read(found)
        assert array.dtype.name == dtype and array.shape == expected.shape and array.flags.writeable
        assert array.tobytes() == expected.tobytes()


def test_data_in_several_files(tmp_path: Path) -> None:
    tensors = {f"layer_{i:03}/kernel": W + i for i in range(40)}
    files = read_bundle(saved(tmp_path, tensors, num_shards=3))
    assert [file.path.name[-14:] for file in files] == ["00000-of-00003", "00001-of-00003", "00002-of-00003"]
    found = {name: file.read(one) for file in files for name, one in file.entries.items()}
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], value) for name, value in tensors.items())


def test_names_of_files_in_a_cache(tmp_path: Path) -> None:
    index = saved(tmp_path, {"w": W})
    for i, path in enumerate((index, tmp_path / data_file_name("model.ckpt", 0, 1))):
        path.rename(tmp_path / f"blob{i}")
    asked = []

    def sibling(name: str) -> Path:
        asked.append(name)
        return tmp_path / "blob1"

    (file,) = open_containers(tmp_path / "blob0", "bert_model.ckpt.index", sibling)
    assert asked == ["bert_model.ckpt.data-00000-of-00001"]
    np.testing.assert_array_equal(file.read(file.entries["w"]), W)


def test_a_link_of_a_data_file_must_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    index = saved(tmp_path / "inner", {"w": W})
    data = tmp_path / "inner" / data_file_name("model.ckpt", 0, 1)
    data.rename(tmp_path / "outside")
    data.symlink_to(tmp_path / "outside")
    with pytest.raises(UntrustedPathError, match="is a link out of its folder"):
        read_bundle(index)


def test_which_format_is_read_first(tmp_path: Path) -> None:
    for name in ("model.ckpt.index", data_file_name("model.ckpt", 0, 1)):
        (tmp_path / name).write_bytes((BERT / name).read_bytes())
    snapshot = resolve(tmp_path, SourceOptions())
    (path,) = find_checkpoint(snapshot, WeightOptions()).containers
    assert path.name == "model.ckpt.data-00000-of-00001"
    (tmp_path / "tf_model.h5").write_bytes((BERT.parent / "tf-h5/tf_model.h5").read_bytes())
    (path,) = find_checkpoint(snapshot, WeightOptions(use_safetensors=False)).containers
    assert path.name == "tf_model.h5"
    (tmp_path / "model.safetensors").write_bytes((BERT.parent / "torch-safetensors/model.safetensors").read_bytes())
    (path,) = find_checkpoint(snapshot, WeightOptions()).containers
    assert path.name == "model.safetensors"
    (path,) = find_checkpoint(snapshot, WeightOptions(prefer="tf")).containers
    assert path.name == "tf_model.h5"
    with pytest.raises(SourceError, match=r"there is variables\.index, which is another format or name"):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare/variables.index").write_bytes(b"")
        opened(tmp_path / "bare")


def test_what_is_no_tensor_is_passed_over(tmp_path: Path) -> None:
    raw = [(b"words", entry(STRING, [2], 0, 0, 9, 0)), (b"table", entry(20, [], 0, 0, 0, 0))]
    (file,) = read_bundle(saved(tmp_path, {"w": W, "w/adam_m": W, "global_step": np.int64(7)}, raw=raw))
    assert file.skipped == ("table", "words")
    weights = opened(tmp_path)
    assert list(weights.entries) == ["weight"]
    assert weights.skipped == ["global_step", "w/adam_m"]


# Checkpoints of objects


def object_graph(full_names: Mapping[str, str]) -> bytes:
    attributes = (
        text(1, b"VARIABLE_VALUE") + text(2, full.encode()) + text(3, key.encode()) for key, full in full_names.items()
    )
    return b"".join(text(1, text(1, number(1, 1) + text(2, b"child")) + text(2, one)) for one in attributes)


def saved_objects(folder: Path, tensors: Mapping[str, Any], full_names: Mapping[str, str], **changes: Any) -> Path:
    graph = object_graph(full_names)
    sizes = len(graph).to_bytes(4, "little")
    middle = struct.pack("<L", masked(crc32c(sizes)))
    content = varint(len(graph)) + middle + graph
    at = sum(value.nbytes for value in tensors.values())
    said = {"offset": at, "size": len(content), "crc": masked(crc32c(sizes + middle + graph)), **changes}
    raw = [(b"_CHECKPOINTABLE_OBJECT_GRAPH", entry(STRING, [], 0, **said))]
    index = saved(folder, tensors, raw=raw)
    data = folder / data_file_name("model.ckpt", 0, 1)
    data.write_bytes(data.read_bytes() + content)
    return index


VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def test_objects_have_the_names_of_their_variables(tmp_path: Path) -> None:
    full_names = {
        f"bert/encoder/layer/0/dense/kernel{VALUE}": "tf_bert_model/bert/encoder/layer_._0/dense/kernel",
        f"bert/encoder/layer/0/dense/bias{VALUE}": "",
        f"bert/pooler/kernel{VALUE}": "tf_bert_model/bert/encoder/layer_._0/dense/kernel",
        f"optimizer/iter{VALUE}": "Adam/iter",
    }
    slot = f"bert/encoder/layer/0/dense/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}"
    tensors = {key: W + i for i, key in enumerate([*full_names, slot, f"save_counter{VALUE}"])}
    (file,) = read_bundle(saved_objects(tmp_path, tensors, full_names))
    assert file.metadata == {"format": "tf"}
    assert list(file.entries) == [
        "bert/encoder/layer/0/dense/bias",
        "bert/encoder/layer_._0/dense/kernel",
        "bert/pooler/kernel",
    ]
    assert file.skipped == (slot, f"optimizer/iter{VALUE}", f"save_counter{VALUE}")
    weights = opened(tmp_path)
    expected = {"dense.kernel": W.T}
    found = arrays_of(weights)
    np.testing.assert_array_equal(found["bert.encoder.layer.0.dense.weight"], expected["dense.kernel"])
    np.testing.assert_array_equal(found["bert.encoder.layer.0.dense.bias"], W + 1)
    np.testing.assert_array_equal(found["bert.pooler.weight"], (W + 2).T)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crc": 7}, "do not have the recorded checksum"),
        ({"size": 20}, "is not where it should be"),
        ({"size": 1 << 40}, "at most 67108864 are read"),
        ({"offset": 1 << 20}, "its text does not lie in"),
    ],
)
def test_a_damaged_graph(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    index = saved_objects(tmp_path, {f"a{VALUE}": W}, {f"a{VALUE}": "m/a"}, **changes)
    kind = ResourceLimitError if "at most" in reason else TensorError
    refused(index, kind, reason, "_CHECKPOINTABLE_OBJECT_GRAPH")


# What is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 44}, r"has 44 bytes where its shape \(3, 4\) takes 48"),
        ({"shape": (3, 5)}, r"has 48 bytes where its shape \(3, 5\) takes 60"),
        ({"shape": (1 << 62, 1 << 62)}, "has 48 bytes where its shape"),
        ({"shape": (3, -4)}, "its shape is impossible"),
        ({"shape": (1,) * 255}, "its shape is impossible"),
        ({"dtype": 99}, "its dtype has the number 99"),
        ({"dtype": 11}, "its dtype has the number 11"),
        ({"dtype": 2}, "has 48 bytes where its shape"),
        ({"shard": 1}, "lies in data file 1 of 1"),
        ({"shard": -1}, "lies in data file 18446744073709551615 of 1"),
        ({"offset": 1}, "do not lie in 'model.ckpt.data-00000-of-00001', which has 48"),
        ({"offset": -8}, "do not lie in"),
        ({"more": text(7, text(1, number(2, 3)))}, "lies in 1 parts, as a partitioned variable does"),
        ({"more": b"\x3b"}, "a damaged message: a field of kind 3"),
        ({"more": b"\x00\x00"}, "a field without a number"),
        ({"more": b"\x3a\x7f"}, "a field reaches beyond its end"),
        ({"more": b"\x18" + b"\xff" * 10}, "a number has more than 64 bits"),
        ({"more": b"\x18"}, "a number is cut off"),
        ({"more": text(2, number(3, 1))}, "its shape is unknown"),
    ],
)
def test_what_is_said_of_a_tensor(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    refused(saved(tmp_path, {"w": W}, **changes), TensorError, reason, "w")


def test_tensors_do_not_overlap(tmp_path: Path) -> None:
    refused(saved(tmp_path, {"v": W, "w": W}, offset=44), TensorError, "shares bytes with another tensor", "w")


def test_flipped_data(tmp_path: Path) -> None:
    index = saved(tmp_path, {"v": W, "w": W + 1})
    damage(tmp_path / data_file_name("model.ckpt", 0, 1), 50)
    error = refused(index, IntegrityError, r"its bytes do not have the recorded checksum \(crc32c\)", "w")
    assert error.path == str(tmp_path / data_file_name("model.ckpt", 0, 1))
    assert error.expected == f"{masked(crc32c(W + 1)):08x}" != error.got


def test_data_that_is_not_there(tmp_path: Path) -> None:
    index = saved(tmp_path, {"v": W, "w": W}, num_shards=2)
    (tmp_path / data_file_name("model.ckpt", 1, 2)).unlink()
    error = refused(index, ShardIndexError, "the data file 'model.ckpt.data-00001-of-00002' does not exist", "w")
    assert error.shard == "model.ckpt.data-00001-of-00002"
    (tmp_path / data_file_name("model.ckpt", 1, 2)).write_bytes(b"")
    refused(index, TensorError, "which has 0", "w")


def test_a_file_that_changes(tmp_path: Path) -> None:
    (file,) = read_bundle(saved(tmp_path, {"w": W}))
    with pytest.raises(TensorError, match="no such entry in this file"):
        file.read(file.entries["w"]._replace(shape=(4, 3)))
    file.path.write_bytes(W.tobytes() + b"x")
    with pytest.raises(CheckpointChangedError, match="changed after its header was read"):
        file.read(file.entries["w"])


def test_a_bool_is_0_or_1(tmp_path: Path) -> None:
    index = saved(tmp_path, {"w": np.array([0, 1, 2], np.uint8)}, dtype=NUMBERS["bool"])
    refused(index, TensorError, "a bool is neither 0 nor 1", "w")


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (header(endianness=1), "its numbers are big-endian"),
        (header(consumer=2), "needs a reader of version 2"),
        (header(num_shards=0), "says it has 0 data files"),
        (header(num_shards=100_000), "says it has 100000 data files"),
        (b"\xff", "a number is cut off"),
    ],
)
def test_headers(tmp_path: Path, first: bytes, reason: str) -> None:
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(table([(b"", first), (b"w", entry(1, [3, 4], 0, 0, 48, 0))]))
    refused(path, WeightsFormatError, reason)


HEAD = (b"", header())
PAIR = (b"w", entry(1, [1], 0, 0, 4, 0))


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", WeightsFormatError, "is no index of a TensorFlow checkpoint: it is empty"),
        (b"PK\3\4" + bytes(99), WeightsFormatError, "looks like a zip archive"),
        (b"x\xff" * 99, WeightsFormatError, "is cut off, or damaged at its end"),
        (table([PAIR]), WeightsFormatError, "its table has no header"),
        (assembled([(b"z", block([HEAD, PAIR], kind=1))]), WeightsFormatError, "compressed with snappy; load it with"),
        (assembled([(b"z", block([HEAD, PAIR], kind=9))]), WeightsFormatError, "compressed with method 9"),
        (assembled([(b"z", block([HEAD, PAIR, PAIR]))]), WeightsFormatError, "its keys are out of order at b'w'"),
        (assembled([(b"a", block([HEAD, PAIR]))]), WeightsFormatError, "its keys are out of order"),
        (assembled([(b"", block([HEAD])), (b"a", block([]))]), WeightsFormatError, "has an empty block"),
        (assembled([(b"", sealed(b""))]), WeightsFormatError, "says it has 0 restarts in 0 bytes"),
        (assembled([(b"", sealed(bytes(8)))]), WeightsFormatError, "says it has 0 restarts in 8 bytes"),
        (assembled([(b"", sealed(b"\xff" * 8))]), WeightsFormatError, "says it has 4294967295 restarts"),
        (
            assembled([(b"", sealed(struct.pack("<LL", 9, 1)))]),
            WeightsFormatError,
            "restarts of the block at 0 are not",
        ),
        (
            assembled([(b"z", sealed(b"\0\1\0a\1\1\0b" + struct.pack("<LLL", 0, 4, 2)))]),
            WeightsFormatError,
            "reaches beyond what there is",
        ),
        (
            assembled([(b"z", sealed(b"\0\4\0abcd" + struct.pack("<LLL", 0, 2, 2)))]),
            WeightsFormatError,
            "a restart of the block at 0 lies between entries",
        ),
        (assembled([(b"z", sealed(b"\0\x7f\0a" + struct.pack("<LL", 0, 1)))]), WeightsFormatError, "reaches beyond"),
        (assembled([(b"z", sealed(b"\5\0\0" + struct.pack("<LL", 0, 1)))]), WeightsFormatError, "reaches beyond"),
        (
            assembled([(b"z", sealed(b"\xff" * 9 + struct.pack("<LL", 0, 1)))]),
            WeightsFormatError,
            "a number is cut off",
        ),
        (table([HEAD, (b"\x1b[31m", PAIR[1])]), TensorError, "its name has a control character"),
        (table([HEAD, (b"\xff\xfe", PAIR[1])]), TensorError, "its name is not UTF-8"),
        (table([HEAD, (b"k" * 5000, PAIR[1])]), ResourceLimitError, "a name of 5000 bytes; at most 4096"),
    ],
)
def test_tables(tmp_path: Path, content: bytes, kind: type[PretrainedError], reason: str) -> None:
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(content)
    with pytest.raises(kind, match=reason) as caught:
        read_bundle(path)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        ((1 << 62, 8), "refers to a block of 8 bytes at 4611686018427387904"),
        ((0, 1 << 62), "refers to a block of 4611686018427387904 bytes"),
        ((1, 8), "does not have the recorded checksum"),
    ],
)
def test_handles_in_the_footer(tmp_path: Path, handle: tuple[int, int], reason: str) -> None:
    path = saved(tmp_path, {"w": W})
    content = path.read_bytes()
    footer = (varint(handle[0]) + varint(handle[1])) * 2
    path.write_bytes(content[:-48] + footer.ljust(40, b"\0") + MAGIC)
    refused(path, WeightsFormatError, reason)


def test_a_block_is_listed_once(tmp_path: Path) -> None:
    first = block([HEAD, PAIR])
    handle = varint(0) + varint(len(first) - 5)
    listed = block([(b"w", handle), (b"x", handle)])
    meta = block([])
    out = first + meta
    footer = varint(len(first)) + varint(len(meta) - 5) + varint(len(out)) + varint(len(listed) - 5)
    path = tmp_path / "model.ckpt.index"
    path.write_bytes(out + listed + footer.ljust(40, b"\0") + MAGIC)
    refused(path, WeightsFormatError, "its blocks are listed twice, or out of order")


def test_names_do_not_grow_beyond_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key repeats all of the one before it: a file of 5 bytes a key would be 4 KiB a key in memory."""
    path = saved(tmp_path, {"a" * i: W for i in range(1, 200)})
    assert sum(len(file.entries) for file in read_bundle(path)) == 199
    monkeypatch.setattr(tf_bundle_table, "MAX_KEYS", 10_000)
    refused(path, ResourceLimitError, "or 10000 bytes of names")
    monkeypatch.setattr(tf_bundle_table, "MAX_PAIRS", 100)
    refused(path, ResourceLimitError, "more than 100 entries")
    monkeypatch.setattr(tf_bundle, "MAX_INDEX", 100)
    refused(path, ResourceLimitError, "at most 100 are read")


# Damage


def attempt(path: Path, raw: bytes) -> list[BundleFile] | None:
    """The files of an index of these bytes, or None after one of our errors."""
    path.unlink(missing_ok=True)
    path.write_bytes(raw)
    complaint = ""
    try:
        files = read_bundle(path)
    except PretrainedError as error:
        complaint = str(error)
    if complaint:
        assert path.name in complaint and len(complaint.encode()) <= 2048
        return None
    return files


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = (BERT / "model.ckpt.index").read_bytes()
    data = data_file_name("model.ckpt", 0, 1)
    (tmp_path / data).write_bytes((BERT / data).read_bytes())
    path = tmp_path / "model.ckpt.index"
    assert attempt(path, raw) is not None
    for size in range(len(raw)):
        assert attempt(path, raw[:size]) is None, size


def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    """All blocks have checksums; what is left is the filling of the footer, which says nothing."""
    raw = (BERT / "model.ckpt.index").read_bytes()
    data = data_file_name("model.ckpt", 0, 1)
    (tmp_path / data).write_bytes((BERT / data).read_bytes())
    path = tmp_path / "model.ckpt.index"
    (expected,) = read_bundle(BERT / "model.ckpt.index")
    rng = random.Random(0)
    for position in range(len(raw)):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << rng.randrange(8)
        files = attempt(path, bytes(damaged))
        if files is not None:
            assert len(raw) - 48 <= position < len(raw) - 8
            assert files[0].entries.keys() == expected.entries.keys()
            assert files[0]._described == expected._described


def mutated(rng: random.Random, value: bytes) -> bytes:
    raw = bytearray(value)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(raw) + 1)
        choice = rng.randrange(4)
        if choice == 0 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif choice == 1:
            raw[at:at] = rng.choice([b"\xff" * 9 + b"\1", b"\0", varint(rng.getrandbits(62)), b"\x3a\0"])
        elif choice == 2:
            del raw[at : at + rng.randrange(1, 4)]
        elif at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
    return bytes(raw)


def test_damage_under_a_right_checksum(tmp_path: Path) -> None:
    """A hostile writer's checksums are right: keys, values and blocks are damaged before they are taken."""
    path = saved(tmp_path, {"w": W, "v/kernel": W, "v/bias": W[0]})
    pairs = tf_bundle_table.read_table(path.read_bytes())
    rng = random.Random(1)
    good = 0

    def seal_damaged(content: bytes) -> bytes:
        return sealed(mutated(rng, content[:-5]))

    ways: list[Callable[[], bytes]] = [
        lambda: table(sorted((key, mutated(rng, value)) for key, value in pairs)),
        lambda: table(sorted((mutated(rng, key) if key else key, value) for key, value in pairs)),
        lambda: assembled([(b"\xff", seal_damaged(block(pairs)))]),
    ]
    tracemalloc.start()
    try:
        for way in ways * 100:
            for file in attempt(path, way()) or ():
                assert all(one.nbytes <= 48 for one in file.entries.values())
                good += len(file.entries)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert good > 10
    assert peak < 16 << 20


# The checksum


def slow_crc(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_of_known_texts() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("size", [1, 3, 4, 63, 2047, 2048, 2049, 2050, 2051, 2052, 3072, 3075, 4096, 9999, 70_001])
def test_crc32c_of_any_length(size: int) -> None:
    content = random.Random(size).randbytes(size)
    assert crc32c(content) == crc32c(np.frombuffer(content, np.uint8)) == slow_crc(content)


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 20) + 4, (1 << 20) + (1 << 16) + 3])
def test_crc32c_of_much(size: int) -> None:
    """A CRC of a whole is that of its parts: the last byte's effect is the slow one's, step by step."""
    content = random.Random(size).randbytes(size)
    crc = crc32c(content[:-3]) ^ 0xFFFFFFFF
    for byte in content[-3:]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(content) == crc ^ 0xFFFFFFFF
    assert crc32c(bytes(size)) != crc32c(bytes(size - 1))


def test_masks() -> None:
    assert masked(0) == 0xA282EAD8
    assert masked(crc32c(b"foo")) != crc32c(b"foo")
