"""Flax's msgpack files: what Flax writes is read without holding it in memory; whatever else is there is refused."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats import msgpack
from pretrained.checkpoint.formats.msgpack import FlaxFile, read_msgpack
from pretrained.checkpoint.rules import apply_ops, legacy_names
from pretrained.checkpoint.tensors import Container
from pretrained.errors import (
    CheckpointChangedError,
    PretrainedError,
    ResourceLimitError,
    SourceError,
    TensorError,
    WeightsFormatError,
)
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions, WeightOptions

REFERENCE = Path(__file__).parents[1] / "reference"
FDS = Path("/proc/self/fd")
DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32"),
    *("float64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"),
]


# A writer, which writes whatever it is told


def head(small: int, limit: int, codes: bytes, count: int) -> bytes:
    """The first bytes of something of so many bytes or items."""
    if count < limit:
        return bytes([small | count])
    width = next(i for i, size in enumerate((1, 2, 4)[-len(codes) :]) if count < 256**size)
    return codes[width : width + 1] + count.to_bytes((1, 2, 4)[-len(codes) :][width], "big")


class Raw(bytes):
    """Bytes that are msgpack already."""


def pack(value: Any) -> bytes:
    match value:
        case Raw():
            return bytes(value)
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int() if 0 <= value < 128:
            return bytes([value])
        case int():
            return b"\xd3" + struct.pack(">q", value) if value < 0 else b"\xcf" + struct.pack(">Q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            raw = value.encode()
            return head(0xA0, 32, b"\xd9\xda\xdb", len(raw)) + raw
        case bytes():
            return head(0, 0, b"\xc4\xc5\xc6", len(value)) + value
        case list() | tuple():
            return head(0x90, 16, b"\xdc\xdd", len(value)) + b"".join(map(pack, value))
        case dict():
            items = b"".join(pack(key) + pack(item) for key, item in value.items())
            return head(0x80, 16, b"\xde\xdf", len(value)) + items
        case np.ndarray():
            return pack(array(value.shape, value.dtype.name, value.tobytes()))
    raise AssertionError(value)


def ext(code: int, raw: bytes) -> Raw:
    return Raw(head(0, 0, b"\xc7\xc8\xc9", len(raw)) + struct.pack(">b", code) + raw)


def array(shape: Any = (2,), dtype: Any = "float32", raw: Any = bytes(8), code: int = 1, tail: bytes = b"") -> Raw:
    return ext(code, pack([list(shape) if isinstance(shape, tuple) else shape, dtype, raw]) + tail)


def chunked(value: np.ndarray, size: int, **changes: Any) -> dict[str, Any]:
    """An array as Flax writes those that are too large for msgpack, with chunks of `size` elements."""
    flat = value.reshape(-1)
    parts = [flat[i : i + size] for i in range(0, flat.size, size)]
    shape = {str(i): dim for i, dim in enumerate(value.shape)}
    made = {msgpack.CHUNKED: True, "shape": shape, "chunks": {str(i): part for i, part in enumerate(parts)}}
    return {**made, **changes}


def put(tmp_path: Path, tree: Any) -> Path:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(tree if type(tree) is bytes else pack(tree))
    return path


def opened(tmp_path: Path, tree: Any) -> FlaxFile:
    return read_msgpack(put(tmp_path, tree))


def make(dtype: str, *shape: int) -> np.ndarray:
    kind = np.dtype(getattr(ml_dtypes, dtype)) if dtype.startswith(("bfloat", "float8")) else np.dtype(dtype)
    count = int(np.prod(shape)) * kind.itemsize
    raw = np.random.default_rng(count).integers(0, 2 if dtype == "bool" else 256, count, np.uint8)
    return raw.view(kind).reshape(shape)


def check_same(file: FlaxFile, tensors: dict[str, np.ndarray]) -> None:
    assert list(file.entries) == list(tensors)
    content = file.path.read_bytes()
    for name, tensor in tensors.items():
        entry = file.entries[name]
        assert (entry.name, entry.file, entry.dtype, entry.shape) == (name, file.path, tensor.dtype.name, tensor.shape)
        found = file.read(entry)
        assert found.dtype.name == entry.dtype and found.shape == entry.shape and found.flags.writeable
        assert found.tobytes() == tensor.tobytes() and entry.nbytes == tensor.nbytes
        if entry.offset >= 0:
            assert content[entry.offset : entry.offset + entry.nbytes] == tensor.tobytes()


# What is read


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_and_shape(tmp_path: Path, dtype: str) -> None:
    arrays = {str(shape): make(dtype, *shape) for shape in [(), (1,), (7,), (3, 4), (2, 1, 5), (0, 3), (300, 70)]}
    file = opened(tmp_path, {"a": arrays})
    check_same(file, {f"a/{key}": value for key, value in arrays.items()})
    assert all(entry.offset >= 0 for entry in file.entries.values())


def test_a_tree(tmp_path: Path) -> None:
    one, two = make("float32", 2, 3), make("bfloat16", 4)
    tree = {
        "params": {"dense": {"kernel": one, "é": two}, **{f"layer{i}": {"bias": two} for i in range(20)}},
        "batch_stats": {"norm": {"mean": two}},
        "step": 7,
        "extra": {"none": None, "rate": 0.5, "on": True, "big": 2**63, "less": -1, "name": "x" * 70_000},
        "z": ext(2, pack([1.0, -2])),
        "empty": {},
        "number": ext(3, pack([[], "float32", struct.pack("<f", 2.5)])),
    }
    file = opened(tmp_path, tree)
    layers = {f"params/layer{i}/bias": two for i in range(20)}
    number = np.array(2.5, np.float32)
    expected = {"params/dense/kernel": one, "params/dense/é": two, **layers, "batch_stats/norm/mean": two}
    check_same(file, {**expected, "number": number})
    assert file.metadata == {"format": "flax"}
    assert file.skipped == (
        *("step", "extra/none", "extra/rate", "extra/on", "extra/big", "extra/less", "extra/name", "z"),
    )
    container: Container = file
    assert container.path == tmp_path / "flax_model.msgpack"


def test_an_empty_tree(tmp_path: Path) -> None:
    assert opened(tmp_path, {}).entries == {}


@pytest.mark.parametrize("order", [("shape", "chunks"), ("chunks", "shape")])
def test_an_array_in_chunks(tmp_path: Path, order: tuple[str, str]) -> None:
    large, small = make("float32", 5, 4), make("bfloat16", 3)
    made = chunked(large, 6)
    made = {msgpack.CHUNKED: True, **{key: made[key] for key in order}}
    file = opened(tmp_path, {"a": {"w": made, "b": small}, "one": chunked(small, 9), "listed": {**chunked(large, 7)}})
    check_same(file, {"a/w": large, "a/b": small, "one": small, "listed": large})
    assert file.entries["a/w"].offset == -1 and file.entries["one"].offset > 0


def test_chunks_in_any_order_and_a_shape_that_is_a_list(tmp_path: Path) -> None:
    value = make("int16", 3, 8)
    made = chunked(value, 2, shape=[3, 8])
    made["chunks"] = dict(sorted(made["chunks"].items()))  # "10" comes before "2"
    check_same(opened(tmp_path, {"w": made}), {"w": value})


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """Three arrays of half a gigabyte, of zeros that take no room on the disk, within little address space."""
    path = tmp_path / "flax_model.msgpack"
    with open(path, "wb") as target:
        target.write(b"\x83")
        for name in "abc":
            size = 2**29
            inner = b"\x93" + pack([size // 4]) + pack("float32") + b"\xc6" + struct.pack(">L", size)
            target.write(pack(name) + b"\xc9" + struct.pack(">L", size + len(inner)) + b"\x01" + inner)
            target.seek(size, os.SEEK_CUR)
        target.truncate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = read_msgpack(path)
    assert [entry.nbytes for entry in file.entries.values()] == [2**29] * 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_torch_and_flax_are_not_imported() -> None:
    code = (
        "import sys; from pretrained.checkpoint.formats.msgpack import read_msgpack;"
        "f = read_msgpack(sys.argv[1]); [f.read(e) for e in f.entries.values()]; assert f.entries;"
        "assert not {'torch', 'flax', 'jax', 'msgpack'} & set(sys.modules)"
    )
    path = REFERENCE / "bert" / "flax-msgpack" / "flax_model.msgpack"
    subprocess.run([sys.executable, "-c", code, path], check=True)


# What is refused


def refuse(tmp_path: Path, tree: Any, kind: type[PretrainedError] = WeightsFormatError) -> PretrainedError:
    """The error that a file of these bytes raises, checked for what every error must have."""
    path = put(tmp_path, tree)
    with pytest.raises(kind) as caught:
        read_msgpack(path)
    error = caught.value
    assert type(error) is kind or (kind is WeightsFormatError and error.tensor)
    assert path.name in str(error) and error.path == str(path) and error.reason
    assert len(str(error).encode()) <= 2048
    return error


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (array(dtype="object"), "dtype 'object'"),
        (array(dtype="str32"), "dtype 'str32'"),
        (array(dtype="void16"), "dtype 'void16'"),
        (array(dtype="float8_e4m3b11fnuz"), "dtype 'float8_e4m3b11fnuz'"),
        (array(dtype="float4_e2m1fn_x2"), "dtype 'float4_e2m1fn_x2'"),
        (array(dtype="<f4"), "dtype '<f4'"),
        (array(dtype="x" * 65), "no name of a dtype"),
        (array(dtype=3), "no name of a dtype"),
        (array(dtype=Raw(b"\xa2\xff\xfe")), r"dtype '\\xff\\xfe'"),
        (array(shape=(3,)), "[3] of float32 takes 12 bytes, and 8 are there"),
        (array(shape=()), "[] of float32 takes 4 bytes, and 8 are there"),
        (array(shape=(-2,)), "an axis of -2 elements"),
        (array(shape=(2**62, 4)), "impossible shape"),
        (array(shape=(2**64 - 1, 0)), "impossible shape"),
        (array(shape=(1.5,)), "an axis of float elements"),
        (array(shape=(True, 2)), "an axis of bool elements"),
        (array(shape="ab"), "has str of 2 for its shape"),
        (array(shape=(1,) * 33), "has array of 33 for its shape"),
        (array(raw="12345678"), "has str in place of its bytes"),
        (array(raw=[1, 2]), "has array in place of its bytes"),
        (array(tail=b"\0"), "ends at"),
        (ext(1, pack([[2], "float32"])), "does not say its shape, dtype and bytes"),
        (ext(1, pack({"a": 1})), "does not say its shape, dtype and bytes"),
        (ext(1, b""), "does not say its shape, dtype and bytes"),
        (array(code=3), "a single number of the shape [2]"),
        (array(code=4), "ext of the type 4"),
        (array(code=-1), "ext of the type -1"),
        (Raw(b"\xd6\x00abcd"), "ext of the type 0"),
        (ext(2, pack([1.0])), "damaged complex number"),
        (ext(2, pack([1.0, "x"])), "damaged complex number"),
        (ext(2, pack([1.0, 2.0]) + b"\0"), "damaged complex number"),
        ([array()], "is array, where a map"),
        (b"raw", "is bin, where a map"),
    ],
)
def test_an_impossible_leaf(tmp_path: Path, leaf: Any, words: str) -> None:
    error = refuse(tmp_path, {"a": {"b": leaf, "c": 3}}, TensorError)
    assert error.tensor == "a/b" and words in str(error)


WHOLE = make("float32", 2, 4)


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (chunked(WHOLE, 3, shape={"0": 2, "1": 5}), "takes 40 bytes, and its chunks have 32"),
        (chunked(WHOLE, 3, shape={"0": 2, "2": 4}), "none of the number 1"),
        (chunked(WHOLE, 3, shape={"0": -2, "1": -4}), "an axis of -2 elements"),
        (chunked(WHOLE, 3, shape={"0": 2**40, "1": 2**40}), "impossible shape"),
        (chunked(WHOLE, 3, shape={str(i): 1 for i in range(33)}), "has map of 33 for its shape"),
        (chunked(WHOLE, 3, shape=3), "has int of 3 for its shape"),
        (chunked(WHOLE, 3, chunks={"0": WHOLE[0], "2": WHOLE[1]}), "none of the number 1"),
        (chunked(WHOLE, 3, chunks={"0": WHOLE[0], "1": WHOLE[1].astype("float64")}), "chunks of several dtypes"),
        (chunked(WHOLE, 3, chunks={"0": WHOLE}), "of more than one axis"),
        (chunked(WHOLE, 3, chunks={"0": chunked(WHOLE, 3)}), "is map, where an array of numbers is expected"),
        (chunked(WHOLE, 3, chunks={"0": 3}), "is int, where an array of numbers is expected"),
        (chunked(WHOLE, 3, chunks={}), "has map of 0 for its chunks"),
        (chunked(WHOLE, 3, chunks=[WHOLE[0]]), "has array of 1 for its chunks"),
        (chunked(WHOLE, 3, **{msgpack.CHUNKED: False}), "does not say __msgpack_chunked_array__: true"),
        ({msgpack.CHUNKED: True, "shape": {}, "other": 1}, "has the key 'other'"),
        ({msgpack.CHUNKED: True, "shape": {}}, "where no array in chunks can be"),
        ({"shape": {}, msgpack.CHUNKED: True, "chunks": {}}, "where no array in chunks can be"),
        (chunked(WHOLE, 3, more=1), "where no array in chunks can be"),
        (Raw(b"\x83" + b"".join(map(pack, [msgpack.CHUNKED, True, "shape", {}, "shape", {}]))), "is there twice"),
    ],
)
def test_an_impossible_array_in_chunks(tmp_path: Path, leaf: Any, words: str) -> None:
    error = refuse(tmp_path, {"a": {"b": leaf}}, TensorError)
    assert error.tensor == "a/b" and words in str(error)


def test_the_root_is_no_array_in_chunks(tmp_path: Path) -> None:
    assert "where no array in chunks can be" in str(refuse(tmp_path, chunked(WHOLE, 3), TensorError))


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (Raw(b"\x81" + pack("a") + b"\x82" + pack("b") + pack(1) + pack("b") + pack(2)), "the key 'b' is there twice"),
        ({"a": {3: 1}}, "a key of a map is int, not text"),
        ({"a": {b"x": 1}}, "a key of a map is bin, not text"),
        ({"a": {None: 1}}, "a key of a map is nil, not text"),
        ({"a": {"": 1}}, "a key of a map is empty"),
        ({"a": {"b\x1b[2J": 1}}, "no plain text"),
        ({"a": {"b" * 1025: 1}}, "a key of a map has 1025 bytes"),
        (Raw(b"\x81" + pack("a") + b"\x81\xa1\xff\x01"), "not UTF-8"),
    ],
)
def test_impossible_keys(tmp_path: Path, tree: Any, words: str) -> None:
    error = refuse(tmp_path, pack(tree), TensorError)
    assert error.tensor == "a" and words in str(error)


def test_one_name_by_two_ways(tmp_path: Path) -> None:
    error = refuse(tmp_path, {"a": {"b": WHOLE}, "a/b": WHOLE}, TensorError)
    assert error.tensor == "a/b" and "two arrays have this name" in str(error)


@pytest.mark.parametrize("code", [0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xC5, 0xC8, 0xDA, 0xDC, 0xDE])
@pytest.mark.parametrize("where", ["value", "key"])
def test_length_bombs(tmp_path: Path, code: int, where: str) -> None:
    bomb = bytes([code]) + b"\xff" * 4 + b"\x01"
    tree = b"\x81" + (pack("a") if where == "value" else b"") + bomb + bytes(100)
    error = refuse(tmp_path, tree)
    assert "is cut off" in str(error)
    assert error.tensor == ("a" if where == "value" else None)


def test_bombs_within_an_array(tmp_path: Path) -> None:
    for inner in (b"\x93\xdd\xff\xff\xff\xff", b"\x93\x91\x02\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff"):
        refuse(tmp_path, {"a": ext(1, inner)})
    over = pack([[2**32 - 1], "uint8"])[1:] + b"\xc6\xff\xff\xff\xff"
    assert "is cut off" in str(refuse(tmp_path, {"a": ext(1, b"\x93" + over)}))
    # More than its own ext, and less than the file.
    reaching = ext(1, b"\x93" + pack([8]) + pack("uint8") + b"\xc4\x08")
    assert "ends at" in str(refuse(tmp_path, {"a": reaching, "b": "x" * 30}, TensorError))


def test_depth(tmp_path: Path) -> None:
    tree: Any = {"w": WHOLE}
    for _ in range(63):
        tree = {"a": tree}
    assert len(opened(tmp_path, tree).entries) == 1
    assert "more than 64" in str(refuse(tmp_path, {"a": tree}, ResourceLimitError))
    refuse(tmp_path, b"\x81\xa1a" * 500_000, ResourceLimitError)
    refuse(tmp_path, b"\x81\xa1a" + b"\x91" * 500_000, TensorError)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgpack, "MAX_ITEMS", 10)
    refuse(tmp_path, {str(i): i for i in range(11)}, ResourceLimitError)
    refuse(tmp_path, {"a": chunked(make("int8", 20), 1)}, ResourceLimitError)
    monkeypatch.setattr(msgpack, "MAX_NAMES", 100)
    refuse(tmp_path, {"x" * 60: {"a": 1}}, ResourceLimitError)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (pack({"a": WHOLE}) + b"\0", "goes on for 1 bytes after its end"),
        (pack({"a": WHOLE}) * 2, "after its end"),
        (b"\x81\xa1a\xc1", "0xc1"),
        (pack([WHOLE]), "does not begin with a map"),
        (pack(3), "does not begin with a map"),
        (b"", "is empty"),
        (bytes(600), "all zero bytes"),
        (b"\x80\x02}q\x00.", "looks like a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!doctype html><html></html>", "an HTML page"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}', "a safetensors file"),
        (b"GGUF" + bytes(60), "a GGUF file"),
    ],
)
def test_another_file_and_a_wrong_end(tmp_path: Path, raw: bytes, words: str) -> None:
    assert words in str(refuse(tmp_path, raw))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        read_msgpack(tmp_path / "none.msgpack")
    with pytest.raises(WeightsFormatError, match="a folder"):
        read_msgpack(tmp_path)


def test_a_bool_that_is_none(tmp_path: Path) -> None:
    file = opened(tmp_path, {"w": array((3,), "bool", b"\0\1\2")})
    with pytest.raises(TensorError, match="neither 0 nor 1"):
        file.read(file.entries["w"])


def test_a_file_that_changed(tmp_path: Path) -> None:
    file = opened(tmp_path, {"w": WHOLE})
    (entry,) = file.entries.values()
    with pytest.raises(TensorError, match="no such entry"):
        file.read(entry._replace(nbytes=8))
    put(tmp_path, {"w": make("float32", 300)})
    with pytest.raises(CheckpointChangedError, match="changed"):
        file.read(entry)
    file.path.unlink()
    with pytest.raises(CheckpointChangedError):
        file.read(entry)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(list(FDS.iterdir()))
    file = opened(tmp_path, {"w": WHOLE, "c": chunked(WHOLE, 3)})
    for entry in file.entries.values():
        file.read(entry)
    refuse(tmp_path, b"\x81\xa1")
    assert len(list(FDS.iterdir())) == before


# Damage


def some_tree() -> dict[str, Any]:
    inner = {"kernel": make("float32", 3, 5), "bias": make("bfloat16", 20), "step": 300, "name": "x" * 40}
    return {"params": {"dense": inner}, "w": chunked(make("int16", 4, 3), 5), "one": array((), "int8", b"\7", code=3)}


def contents(path: Path) -> dict[str, Any]:
    file = read_msgpack(path)
    return {name: (entry, file.read(entry).tobytes()) for name, entry in file.entries.items()}


def test_truncated_at_every_length(tmp_path: Path) -> None:
    raw = pack(some_tree())
    assert len(contents(put(tmp_path, raw))) == 4
    for stop in range(len(raw)):
        error = refuse(tmp_path, raw[:stop])
    assert error.tensor == "one" and "is cut off" in str(error)


def test_flipped_bytes(tmp_path: Path) -> None:
    """No checksum protects a file: an error of ours, or tensors within the file that are what they are said to be."""
    raw = pack(some_tree())
    source = random.Random(0)
    for at in range(len(raw)):
        for _ in range(3):
            flipped = bytearray(raw)
            flipped[at] ^= source.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
            path = put(tmp_path, bytes(flipped))
            try:
                found = contents(path)
            except PretrainedError as error:
                message = str(error)
            else:
                message = path.name
                assert all(entry.nbytes == len(values) <= len(raw) for entry, values in found.values())
            assert path.name in message and len(message.encode()) <= 2048


def test_spliced_files(tmp_path: Path) -> None:
    """Pieces of a file put elsewhere: the parts of a tree in places where they do not belong."""
    raw = pack(some_tree())
    source = random.Random(1)
    for _ in range(800):
        start, stop, at = (source.randrange(len(raw)) for _ in range(3))
        piece = raw[start : start + source.choice([1, 2, 5, 20, 80])]
        path = put(tmp_path, raw[:at] + piece + raw[source.choice([at, at, stop]) :])
        try:
            found = contents(path)
        except PretrainedError:
            continue
        assert all(entry.nbytes == len(values) <= path.stat().st_size for entry, values in found.values())


# What Flax wrote


def weights_of(folder: Path) -> Weights:
    return find_checkpoint(resolve(folder, SourceOptions()), WeightOptions())


def values(weights: Weights, name: str) -> Any:
    entry = weights.entries[name]
    return apply_ops(weights.layouts.get(name, ()), weights.containers[entry.file].read(entry))


@pytest.mark.parametrize("form", ["flax-msgpack", "flax-msgpack-sharded", "flax-safetensors"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "vit", "wav2vec2", "llama"])
def test_the_same_tensors_as_torch_has(family: str, form: str) -> None:
    torch, flax = weights_of(REFERENCE / family / "torch-safetensors"), weights_of(REFERENCE / family / form)
    assert (flax.index is None) == ("sharded" not in form)
    assert not flax.unlisted and not flax.twins and not flax.skipped
    used = set()
    for name in torch.entries:
        (found,) = [other for other in (name, *legacy_names(name)) if other in flax.entries]
        used.add(found)
        expected = values(torch, name)
        np.testing.assert_array_equal(values(flax, found), expected, err_msg=name)
        assert values(flax, found).dtype == expected.dtype
    assert set(flax.entries) - used <= {"wav2vec2.masked_spec_embed"}


def test_batch_norm(tmp_path: Path) -> None:
    mean, kernel = make("float32", 4), make("float32", 3, 3, 2, 4)
    norm = {"mean": mean, "var": mean + 1}
    params = {"conv": {"kernel": kernel}, "norm": {"scale": mean, "bias": mean}}
    put(tmp_path, {"params": params, "batch_stats": {"norm": norm}})
    weights = weights_of(tmp_path)
    assert sorted(weights.entries) == sorted(
        ["conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    )
    np.testing.assert_array_equal(values(weights, "norm.running_var"), mean + 1)
    np.testing.assert_array_equal(values(weights, "conv.weight"), kernel.transpose(3, 2, 0, 1))
