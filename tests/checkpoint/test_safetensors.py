"""safetensors: what we write others read, what others write we read, and what is not right is refused by name."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from pretrained.checkpoint.files import read_up_to
from pretrained.checkpoint.formats import safetensors as module
from pretrained.checkpoint.formats import safetensors_header, safetensors_write
from pretrained.checkpoint.formats.safetensors import DTYPES, Header, Outgoing, read_header, write
from pretrained.checkpoint.tensors import BITS, num_bytes
from pretrained.errors import (
    CheckpointChangedError,
    InvalidOptionError,
    PretrainedError,
    ResourceLimitError,
    SourceError,
    TensorError,
    WeightsFormatError,
)

FDS = Path("/proc/self/fd")
REFERENCE = Path(__file__).parents[1] / "reference"


def pack(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with this header, whatever it says."""
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def field(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> str:
    """The description of one tensor as JSON text."""
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets, **more})


def one(description: str, name: str = "w") -> str:
    return '{"' + name + '": ' + description + "}"


def check_message(error: PretrainedError, path: Path) -> None:
    assert len(str(error).encode()) <= 2048
    assert path.name in str(error)
    assert error.path == str(path)
    assert error.reason
    assert all(char.isprintable() or char == "\n" for char in str(error))


def refuse(path: Path, raw: bytes, kind: type[PretrainedError] = WeightsFormatError) -> PretrainedError:
    """The error that reading a file of these bytes raises, checked for what every error must have."""
    path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        read_header(path)
    assert type(caught.value) is kind
    check_message(caught.value, path)
    return caught.value


def outgoing(arrays: dict[str, Any]) -> list[Outgoing]:
    return [Outgoing(name, str(array.dtype), array.shape, lambda a=array: a) for name, array in arrays.items()]


def make_array(dtype: str, shape: tuple[int, ...]) -> Any:
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, num_bytes(shape, dtype), np.uint8)
    own = getattr(ml_dtypes, dtype, None) if dtype.startswith(("bfloat", "float8")) else dtype
    return raw.view(np.dtype(own)).reshape(shape)


WHOLE = sorted(name for name in DTYPES.values() if BITS[name] >= 8)


# -- what is right ----------------------------------------------------------------------------------------------------


def test_every_dtype_of_the_format_is_one_of_ours() -> None:
    assert set(DTYPES.values()) <= set(BITS)
    assert set(BITS) - set(DTYPES.values()) == {"complex128"}


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 16), (2, 0, 3)], ids=str)
def test_round_trip_and_the_reference_reader(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    array = make_array(dtype, shape)
    written = write(path, outgoing({"w": array}), {"format": "pt"})
    header = read_header(path)
    assert list(header.entries.values()) == written
    ours = header.read(header.entries["w"])
    assert ours.dtype == array.dtype
    assert ours.shape == shape
    assert ours.tobytes() == array.tobytes()
    assert ours.flags.writeable
    [(name, theirs)] = safetensors.deserialize(path.read_bytes())
    assert (name, DTYPES[theirs["dtype"]], tuple(theirs["shape"])) == ("w", dtype, shape)
    assert bytes(theirs["data"]) == array.tobytes()


def test_we_read_what_the_reference_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    # The reference has no writer for these two dtypes of numpy.
    arrays = {f"{n}.{dtype}": make_array(dtype, (n, 3)) for dtype in WHOLE if dtype[:6] != "float8" for n in (0, 1, 5)}
    safetensors.numpy.save_file(arrays, path, {"format": "flax", "note": 'a "quoted"\nnote — 🤗'})
    header = read_header(path)
    assert header.metadata == {"format": "flax", "note": 'a "quoted"\nnote — 🤗'}
    assert header.entries.keys() == arrays.keys()
    for name, array in arrays.items():
        assert header.read(header.entries[name]).tobytes() == array.tobytes()
    ends = [entry.offset + entry.nbytes for entry in header.entries.values()]
    assert [entry.offset for entry in header.entries.values()] == [header.data_start, *ends[:-1]]


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*/*/*.safetensors")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_reference_files(path: Path) -> None:
    header = read_header(path)
    assert header.metadata["format"] == {"tf": "tf", "flax": "flax"}.get(path.parent.name.partition("-")[0], "pt")
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    assert header.entries.keys() == theirs.keys()
    for name, entry in header.entries.items():
        assert header.read(entry).tobytes() == bytes(theirs[name]["data"])
        assert entry.shape == tuple(theirs[name]["shape"])


def test_alignment_order_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sizes = {"odd": 3, "even": 128, "empty": 0, "odder": 65, "full": 64, "last": 1, "é": 192}
    tensors = [Outgoing(name, "uint8", (size,), lambda size=size: bytes(size)) for name, size in sizes.items()]
    written = write(path, tensors, {"id": "1"})
    assert [entry.name for entry in written] == ["even", "empty", "full", "é", "odd", "odder", "last"]
    header = read_header(path)
    assert header.data_start % 64 == 0
    assert list(header.entries) == [entry.name for entry in written]
    assert all(entry.offset % 64 == 0 for entry in written if entry.nbytes % 64 == 0)
    assert header.metadata == {"format": "pt", "id": "1"}
    with safetensors.safe_open(path, "np") as theirs:
        assert theirs.metadata() == header.metadata
        assert sorted(theirs.keys()) == sorted(sizes)


def test_empty_file_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert write(path, [], {"format": "tf"}) == []
    assert read_header(path).entries == {}
    assert safetensors.deserialize(path.read_bytes()) == []
    for raw in ("{}", "{ }  ", '{"__metadata__":{}}', '{"__metadata__" : { } }\n', '{\t"__metadata__":{"a":"b"}}'):
        path.write_bytes(pack(raw))
        assert read_header(path).entries == {}


SPELLINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "compact": lambda header: json.dumps(header, separators=(",", ":")),
    "spaced": json.dumps,
    "indented": lambda header: json.dumps(header, indent=2),
    "sorted": lambda header: json.dumps(header, sort_keys=True, separators=(",", ":")),
    "ascii": lambda header: json.dumps(header, ensure_ascii=True),
    "odd spaces": lambda header: json.dumps(header, separators=(" , ", "\r\n:\t")),
    "reversed": lambda header: json.dumps(dict(reversed(header.items())), ensure_ascii=False),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("fields", [("dtype", "shape", "data_offsets"), ("shape", "data_offsets", "dtype")], ids=str)
def test_every_spelling_of_a_header(spelling: str, fields: tuple[str, ...], tmp_path: Path) -> None:
    described = {
        "b,]}": ("I16", [2], [2, 6]),
        'a"\\': ("U8", [], [0, 1]),
        "": ("U8", [1, 1], [1, 2]),
        "é{": ("U8", [0], [6, 6]),
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "b": '{}\\"'}}
    for name, values in described.items():
        full = dict(zip(("dtype", "shape", "data_offsets"), values, strict=True))
        header[name] = {field: full[field] for field in fields}
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(SPELLINGS[spelling](header), b"abcdef"))
    ours = read_header(path)
    assert ours.metadata == header["__metadata__"]
    assert list(ours.entries) == ['a"\\', "", "b,]}", "é{"]
    assert ours.read(ours.entries["b,]}"]).tobytes() == b"cdef"
    assert {name for name, _ in safetensors.deserialize(path.read_bytes())} == set(ours.entries)


def test_sub_byte_tensors_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = [
        Outgoing("f4", "float4_e2m1fn_x2", (2, 2), lambda: bytes([0x21, 0x43])),
        Outgoing("f6", "float6_e2m3fn", (4,), lambda: (1 | 2 << 6 | 3 << 12 | 63 << 18).to_bytes(3, "little")),
    ]
    write(path, tensors, {})
    header = read_header(path)
    f4, f6 = (header.read(header.entries[name]) for name in ("f4", "f6"))
    assert (f4.dtype, f4.shape) == (np.dtype(ml_dtypes.float4_e2m1fn), (2, 2))
    assert f4.astype("f4").tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert f6.astype("f4").tolist() == [0.125, 0.25, 0.375, -7.5]


def test_sixty_four_gigabytes_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 64 << 30
    raw = pack(one(field("U8", [size], [0, size])))
    path.write_bytes(raw)
    os.truncate(path, len(raw) + size)
    header = read_header(path)
    assert header.entries["w"].nbytes == size
    os.truncate(path, len(raw) + size - 1)
    with pytest.raises(TensorError, match="cut off") as caught:
        read_header(path)
    check_message(caught.value, path)
    assert caught.value.tensor == "w"


# -- another kind of file -------------------------------------------------------------------------------------------


OTHERS = {
    "a PyTorch zip archive": b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(600),
    "a pickle": b"\x80\x02}q\x00." + bytes(600),
    "an HTML page": b"<html><body>404</body></html>",
    "a Git LFS pointer (run 'git lfs pull')": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "gzip": b"\x1f\x8b\x08" + bytes(600),
    "a GGUF file": b"GGUF\x03\0\0\0" + bytes(600),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "a JSON document": b'{"metadata": {}, "weight_map": {}}',
    "all zero bytes": bytes(4096),
    "a text file": b"Entry not found",
    "empty": b"",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_of_file_is_named(kind: str, tmp_path: Path) -> None:
    error = refuse(tmp_path / "model.safetensors", OTHERS[kind])
    assert kind in str(error)
    assert error.offset == 0  # type: ignore[attr-defined]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = len(list(FDS.iterdir()))
    with pytest.raises(SourceError, match="does not exist"):
        read_header(path)
    path.symlink_to("nowhere")
    with pytest.raises(SourceError, match="a link to nothing"):
        read_header(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(WeightsFormatError, match="a device"):
        read_header(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsFormatError, match="a FIFO"):
        read_header(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsFormatError, match="a folder"):
        read_header(path)
    assert len(list(FDS.iterdir())) == before


# -- damaged files --------------------------------------------------------------------------------------------------

GOOD = one(field())
METADATA = "__metadata__"
EIGHT = bytes(8)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "seven bytes": (b"\x01" * 7, "only 7 bytes"),
    "length beyond the file": (pack(GOOD, EIGHT, 10_000), "claims 10000 bytes"),
    "length of all ones": (pack(GOOD, EIGHT, 2**64 - 1), "claims 18446744073709551615 bytes"),
    "big-endian length": (len(GOOD).to_bytes(8, "big") + GOOD.encode() + EIGHT, "claims"),
    "length 0": (pack("", EIGHT), "no safetensors file"),
    "length too short": (pack(GOOD, EIGHT, len(GOOD) - 1), "should stand here"),
    "length 1": (pack(GOOD, EIGHT, 1), "the name of a tensor should begin here"),
    "length too long": (pack(GOOD, EIGHT, len(GOOD) + 1), "goes on after its last brace"),
    "padded with zeros": (pack(GOOD + "\0\0", EIGHT), "goes on after its last brace"),
    "space first": (pack(" " + GOOD, EIGHT), "does not begin with '{'"),
    "byte order mark": (pack("\ufeff" + GOOD, EIGHT), "does not begin with '{'"),
    "an array": (pack("[]"), "does not begin with '{'"),
    "not UTF-8": (pack(GOOD.encode().replace(b"w", b"\xff"), EIGHT), "not UTF-8 at byte 10"),
    "utf-16": (pack(GOOD.encode("utf-16-le"), EIGHT), "the name of a tensor should begin here"),
    "not JSON": (pack("{w: 1}"), "the name of a tensor should begin here"),
    "an open name": (pack('{"w'), "not valid JSON"),
    "no colon": (pack('{"w" 1}'), "':' should stand here"),
    "trailing comma": (pack(GOOD[:-1] + ",}", EIGHT), "the name of a tensor should begin here"),
    "no comma": (pack(GOOD[:-1] + GOOD[1:], EIGHT), "',' or '}' should stand here"),
    "two objects": (pack(GOOD + GOOD, EIGHT), "goes on after its last brace"),
    "name with a line feed": (pack('{"a\nb": ' + field() + "}", EIGHT), "not valid JSON"),
    "name of half a pair": (pack('{"a\\ud800": ' + field() + "}", EIGHT), "half of a surrogate pair"),
    "deep": (pack("{" + '"a":{' * 100_000), "tensor 'a'"),
    "trailing byte": (pack(GOOD, bytes(9)), "1 bytes too many"),
    "trailing zip": (pack(GOOD, EIGHT + b"PK\x03\x04" * 9), "36 bytes too many"),
    "data without tensors": (pack("{}", b"x"), "1 bytes too many"),
    "metadata null": (pack('{"__metadata__":null}'), "not an object of strings"),
    "metadata list": (pack('{"__metadata__":[]}'), "not an object of strings"),
    "metadata of numbers": (pack('{"__metadata__":{"a":1}}'), "a string, the value of __metadata__, should begin here"),
    "metadata nested": (pack('{"__metadata__":{"a":{"b":"c"}}}'), "a string, the value of __metadata__"),
    "metadata null value": (pack('{"__metadata__":{"a":null}}'), "a string, the value of __metadata__"),
    "metadata twice": (pack('{"__metadata__":{},"__metadata__":{}}'), "__metadata__ appears twice"),
    "metadata twice, escaped": (pack('{"__metadata__":{},"__metadata\\u005f_":{}}'), "__metadata__ appears twice"),
    "metadata key twice": (pack('{"__metadata__":{"a":"b","\\u0061":"c"}}'), "the key 'a' appears twice"),
    "metadata like a tensor": (pack('{"__metadata__":' + field("U8", [0], [0, 0]) + "}"), "__metadata__"),
    "metadata like a tensor, compact": (pack(one(field("U8", [0], [0, 0]), METADATA).replace(" ", "")), METADATA),
    "metadata of half a pair": (pack('{"__metadata__":{"a":"\\udfff"}}'), "half of a surrogate pair"),
    "metadata unfinished": (pack('{"__metadata__":{"a":"b"'), "',' or '}' should stand here"),
}  # fmt: skip


# What the reference lets pass.
STRICTER = {"space first", "metadata null", "metadata key twice"}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_headers_are_refused(name: str, tmp_path: Path) -> None:
    raw, reason = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    error = refuse(path, raw, TensorError if reason.startswith("tensor '") else WeightsFormatError)
    assert reason in str(error)
    if name not in STRICTER:
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(raw)


def two(first: str, second: str, names: tuple[str, str] = ("v", "w")) -> str:
    return f'{{"{names[0]}":{first},"{names[1]}":{second}}}'


HUGE = 10**30
BAD_TENSORS: dict[str, tuple[str, str]] = {
    "twice": (two(field("U8", [4], [0, 4]), field("U8", [4], [4, 8]), ("w", "w")), "the name appears twice"),
    "twice, escaped": (two(field("U8", [4], [0, 4]), field("U8", [4], [4, 8]), ("w", "\\u0077")), "appears twice"),
    "no object": (one("null"), "not described by an object"),
    "a list": (one('["F32",[2],[0,8]]'), "not described by an object"),
    "no fields": (one("{}"), "missing or unknown"),
    "a field missing": (one('{"dtype":"F32","shape":[2]}'), "missing or unknown: 'data_offsets'"),
    "a field too many": (one(field(extra=1)), "missing or unknown: 'extra'"),
    "a field twice": (one('{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'), "a field appears twice"),
    "a field twice, escaped": (one('{"dtype":"F32","d\\u0074ype":"F32","shape":[2],"data_offsets":[0,8]}'), "twice"),
    "nested": (one('{"dtype":{"a":1},"shape":[2],"data_offsets":[0,8]}'), "not a flat JSON object"),
    "deep lists": (one('{"dtype":"F32","data_offsets":[0,8],"shape":' + "[" * 4000 + "]" * 4000 + "}"), "not a flat"),
    "long": (one(field(shape=[1.0] * 5000)), "within 8192 characters"),
    "dtype null": (one(field(None)), "dtype is not a string"),
    "dtype list": (one(field(["F32"])), "dtype is not a string"),
    "dtype unknown": (one(field("F128")), "the dtype 'F128' is unknown"),
    "dtype in lower case": (one(field("f32")), "the dtype 'f32' is unknown"),
    "dtype of ours": (one(field("float32")), "the dtype 'float32' is unknown"),
    "dtype long": (one(field("X" * 7000)), "is unknown"),
    "dtype wider": (one(field("F64")), "takes 16 bytes; data_offsets 0 to 8 span 8"),
    "dtype narrower": (one(field("F16")), "takes 4 bytes"),
    "shape null": (one(field(shape=None)), "shape is not a list of integers"),
    "shape a number": (one(field(shape=2)), "shape is not a list of integers"),
    "shape of floats": (one(field(shape=[2.0])), "shape is not a list of integers"),
    "shape of booleans": (one(field("F64", [True])), "shape is not a list of integers"),
    "shape of strings": (one(field(shape=["2"])), "shape is not a list of integers"),
    "shape nested": (one(field(shape=[[2]])), "shape is not a list of integers"),
    "shape negative": (one(field(shape=[-2])), "a negative number"),
    "shape twice negative": (one(field(shape=[-1, -2])), "a negative number"),
    "shape minus zero": (one('{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}'), "a negative number"),
    "shape with a leading zero": (one('{"dtype":"F32","shape":[02],"data_offsets":[0,8]}'), "not a list of integers"),
    "shape with a comma": (one('{"dtype":"F32","shape":[2,],"data_offsets":[0,8]}'), "not a list of integers"),
    "shape with two words": (one('{"dtype":"F32","shape":[1 2],"data_offsets":[0,8]}'), "not a list of integers"),
    "shape overflow": (one(field(shape=[2**62])), "larger than any memory"),
    "shape wraps to 8": (one(field("U8", [2**63, 2, 8])), "larger than any memory"),
    "shape wraps to 0": (one(field("U8", [2**32, 2**32], [0, 0])), "larger than any memory"),
    "shape overflow behind a zero": (one(field("U8", [2**63, 2, 0], [0, 0])), "larger than any memory"),
    "shape huge": (one(field(shape=[HUGE])), "larger than any memory"),
    "shape of many digits": (one('{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,8]}'), "tensor 'w'"),
    "shape of many more digits": (one('{"dtype":"U8","shape":[' + "9" * 9000 + '],"data_offsets":[0,8]}'), "'w'"),
    "shape of 65 dimensions": (one(field("U8", [1] * 65, [0, 1])), "more than 64 dimensions"),
    "shape of 1000 dimensions": (one(field("U8", [1] * 1000, [0, 1])), "more than 64 dimensions"),
    "shape larger than the data": (one(field(shape=[3])), "takes 12 bytes"),
    "offsets null": (one(field(offsets=None)), "data_offsets is not a list"),
    "offsets missing one": (one(field(offsets=[0])), "not two integers"),
    "offsets with one more": (one(field(offsets=[0, 8, 8])), "not two integers"),
    "offsets floats": (one(field(offsets=[0, 8.0])), "data_offsets is not a list of integers"),
    "offsets exponent": (one('{"dtype":"F32","shape":[2],"data_offsets":[0,8e0]}'), "not a list of integers"),
    "offsets strings": (one(field(offsets=["0", "8"])), "data_offsets is not a list of integers"),
    "offsets booleans": (one(field("U8", [1], [False, True])), "data_offsets is not a list of integers"),
    "offsets negative": (one(field(offsets=[-8, 0])), "a negative number"),
    "offsets reversed": (one(field(offsets=[8, 0])), "run backwards, from 8 to 0"),
    "offsets of 64 bits": (one(field(offsets=[2**64 - 8, 2**64])), "begins at byte"),
    "offsets wrap": (one(field(offsets=[2**64 - 4, 4])), "run backwards"),
    "offsets huge": (one(field(offsets=[HUGE, HUGE + 8])), "leaves a hole before it"),
    "offsets of many digits": (one('{"dtype":"U8","shape":[8],"data_offsets":[0,' + "9" * 4200 + "]}"), "tensor 'w'"),
    "offsets leading zero": (one('{"dtype":"F32","shape":[2],"data_offsets":[00,8]}'), "not a flat JSON object"),
    "hole first": (one(field("U8", [4], [4, 8])), "leaves a hole before it"),
    "hole": (two(field("U8", [2], [0, 2]), field("U8", [2], [6, 8])), "leaves a hole before it"),
    "overlap": (two(field("U8", [5], [0, 5]), field("U8", [4], [4, 8])), "overlaps the tensor before it"),
    "same place": (two(field("U8", [8], [0, 8]), field("U8", [8], [0, 8])), "overlaps the tensor before it"),
    "empty inside": (two(field("U8", [8], [0, 8]), field("U8", [0], [4, 4])), "overlaps"),
    "beyond the end": (one(field(shape=[4], offsets=[0, 16])), "cut off: the data ends at byte"),
    "sub-byte odd": (one(field("F4", [15], [0, 8])), "60 bits of F4 are not whole bytes"),
    "sub-byte six": (one(field("F6_E2M3", [3], [0, 2])), "not whole bytes"),
    "name with a control character": (one(field(), "w\\u0007"), "control character"),
    "name with NUL": (one(field(), "w\\u0000"), "control character"),
    "name with raw DEL": (one(field(), "w\x7f"), "control character"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TENSORS)
@pytest.mark.parametrize("is_compact", [True, False])
def test_impossible_tensors_are_refused_by_name(name: str, is_compact: bool, tmp_path: Path) -> None:
    header, reason = BAD_TENSORS[name]
    if is_compact:
        header = header.replace(": ", ":").replace(", ", ",")
    error = refuse(tmp_path / "model.safetensors", pack(header, EIGHT), TensorError)
    assert reason in str(error)
    assert error.tensor in ("v", "w", "w\x07", "w\0", "w\x7f")
    assert repr(error.tensor) in str(error)


def test_the_offset_of_a_flaw_is_in_bytes(tmp_path: Path) -> None:
    header = two(field("U8", [4], [0, 4]), field("X", [4], [4, 8]), ("éé", "w"))
    error = refuse(tmp_path / "model.safetensors", pack(header, EIGHT), TensorError)
    assert error.offset == 8 + header.encode().index(b'"w"')  # type: ignore[attr-defined]


def test_a_name_of_a_megabyte_makes_a_short_message(tmp_path: Path) -> None:
    error = refuse(tmp_path / "model.safetensors", pack(one(field("X"), "w" * (1 << 20)), EIGHT), TensorError)
    assert "the dtype 'X' is unknown" in str(error)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((100_000_001).to_bytes(8, "little") + b"{}")
    os.truncate(path, 200_000_000)
    with pytest.raises(ResourceLimitError, match="at most 100000000 are read") as caught:
        read_header(path)
    check_message(caught.value, path)
    assert caught.value.limit == 100_000_000
    path.write_bytes((100_000_000).to_bytes(8, "little") + b"{}")
    os.truncate(path, 100_000_008)
    with pytest.raises(WeightsFormatError, match="goes on after its last brace"):
        read_header(path)
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 2)
    monkeypatch.setattr(safetensors_header, "MAX_METADATA", 2)
    monkeypatch.setattr(safetensors_header, "MAX_SLOW", 1)
    empty = field("U8", [0], [0, 0])
    unusual = empty.replace(":", " :")
    for header, reason in [
        (f'{{"a":{empty},"b":{empty},"c":{empty}}}', "more than 2 tensors"),
        (f'{{"a":{empty},"b":{empty},"c":{empty},"d":{empty}}}', "more than 2 tensors"),
        (f'{{"a":{unusual},"b":{unusual}}}', "more than 1 tensors"),
        ('{"__metadata__":{"a":"","b":"","c":""}}', "more than 2 keys of metadata"),
    ]:
        assert reason in str(refuse(path, pack(header), ResourceLimitError))


def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = len(list(FDS.iterdir()))
    for _ in range(30):
        for raw in (b"", pack("{"), pack(GOOD), pack(GOOD, b"\0" * 9), pack("{\xff".encode("latin-1")), EIGHT):
            refuse(path, raw, TensorError if raw == pack(GOOD) else WeightsFormatError)
    path.write_bytes(pack(GOOD, EIGHT))
    header = read_header(path)
    os.truncate(path, 20)
    for _ in range(30):
        with pytest.raises(CheckpointChangedError):
            header.read(header.entries["w"])
    assert len(list(FDS.iterdir())) == before


# -- reading data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path) -> Header:
    path = tmp_path / "model.safetensors"
    write(path, outgoing({"w": np.arange(64, dtype="float32"), "b": np.ones(3, "bool")}), {})
    return read_header(path)


def test_a_file_that_changed_is_not_read(opened: Header) -> None:
    raw = opened.path.read_bytes()

    def shrink() -> None:
        os.truncate(opened.path, 100)

    def replace() -> None:
        (opened.path.parent / "new").write_bytes(raw)
        os.replace(opened.path.parent / "new", opened.path)

    def remove() -> None:
        opened.path.unlink()

    def become_folder() -> None:
        opened.path.mkdir()

    for change in (shrink, replace, remove, become_folder):
        change()
        with pytest.raises(CheckpointChangedError) as caught:
            opened.read(opened.entries["w"])
        check_message(caught.value, opened.path)


def test_a_file_that_shrinks_while_it_is_read(opened: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(fd: int, target: memoryview, offset: int) -> int:
        return len(target) - 1

    monkeypatch.setattr(module, "fill", short)
    with pytest.raises(CheckpointChangedError, match="while it was being read") as caught:
        opened.read(opened.entries["w"])
    assert caught.value.tensor == "w"


def fail(*args: object) -> Any:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_disk_that_fails(opened: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fill", fail)
    monkeypatch.setattr(module, "read_up_to", fail)
    for read in (lambda: opened.read(opened.entries["w"]), lambda: read_header(opened.path)):
        with pytest.raises(WeightsFormatError, match="cannot be read: Input/output error") as caught:
            read()
        check_message(caught.value, opened.path)
        assert isinstance(caught.value.__cause__, OSError)


def test_a_header_that_changes_while_it_is_read(opened: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_and_touch(fd: int, limit: int, offset: int = 0) -> bytes:
        os.utime(opened.path, ns=(0, 0))
        return read_up_to(fd, limit, offset)

    monkeypatch.setattr(module, "read_up_to", read_and_touch)
    with pytest.raises(CheckpointChangedError, match="while its header was read") as caught:
        read_header(opened.path)
    check_message(caught.value, opened.path)


def test_a_header_that_is_cut_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(GOOD + " " * 8192, EIGHT))
    monkeypatch.setattr(module, "read_up_to", lambda fd, limit, offset=0: read_up_to(fd, min(limit, 4096), offset))
    with pytest.raises(WeightsFormatError, match="the header ends at byte 4104"):
        read_header(path)


def test_a_tensor_that_memory_cannot_hold(opened: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_memory(*args: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse_memory)
    with pytest.raises(MemoryError, match=r"model\.safetensors: tensor 'w' takes 256 bytes"):
        opened.read(opened.entries["w"])


def test_an_entry_of_another_file_is_refused(opened: Header) -> None:
    for entry in (opened.entries["w"]._replace(offset=0), opened.entries["w"]._replace(name="x")):
        with pytest.raises(TensorError, match="no such entry") as caught:
            opened.read(entry)
        check_message(caught.value, opened.path)


def test_a_bool_is_0_or_1(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(one(field("BOOL", [2], [0, 2])), b"\1\2"))
    header = read_header(path)
    with pytest.raises(TensorError, match="neither 0 nor 1"):
        header.read(header.entries["w"])


def test_each_read_has_memory_of_its_own(opened: Header) -> None:
    first, second = (opened.read(opened.entries["w"]) for _ in range(2))
    first[:] = 0
    assert second.tolist() == list(range(64))


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin_writeback", [True, False])
def test_large_tensors_are_written_whole(
    begin_writeback: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_write, "PIECE", 1000)
    system = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: system(fd, view[: max(1, len(view) // 2)]))
    path = tmp_path / "model.safetensors"
    arrays = {name: make_array("float32", (1000,)) for name in "abc"}
    write(path, outgoing(arrays), {}, begin_writeback=begin_writeback)
    monkeypatch.undo()
    for name, array in safetensors.numpy.load_file(path).items():
        assert array.tobytes() == arrays[name].tobytes()


def test_writing_does_without_early_write_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = safetensors_write._starter.__wrapped__
    assert start() is not None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert start() is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert start() is None


def test_one_tensor_in_memory_at_a_time(tmp_path: Path) -> None:
    alive = 0
    most = 0

    class Buffer(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def make() -> Any:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return np.ndarray.__new__(Buffer, (1000,), np.uint8)

    write(tmp_path / "model.safetensors", [Outgoing(f"w{i}", "uint8", (1000,), make) for i in range(10)], {})
    assert (most, alive) == (1, 0)


@pytest.mark.parametrize("data", [b"12345678", bytearray(8), memoryview(bytes(8)).cast("d"), np.zeros(1, "complex64")])
def test_any_buffer_will_do(data: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, [Outgoing("w", "float32", (2,), lambda: data)], {})
    assert path.read_bytes()[-8:] == bytes(data)


REFUSED: dict[str, tuple[Outgoing, str]] = {
    "dtype": (Outgoing("w", "complex128", (1,), lambda: bytes(16)), "no dtype 'complex128'"),
    "dtype unknown": (Outgoing("w", "F32", (1,), lambda: bytes(4)), "no dtype 'F32'"),
    "shape": (Outgoing("w", "uint8", (-1,), bytes), "the shape"),
    "shape of floats": (Outgoing("w", "uint8", (1.0,), lambda: b"x"), "the shape"),  # type: ignore[arg-type]
    "sub-byte": (Outgoing("w", "float4_e2m1fn_x2", (3,), lambda: b"xx"), "does not fill whole bytes"),
    "too short": (Outgoing("w", "float32", (2,), lambda: bytes(7)), "7 bytes of data; float32 of shape [2] takes 8"),
    "too long": (Outgoing("w", "float32", (2,), lambda: bytes(9)), "9 bytes of data"),
    "strided": (Outgoing("w", "uint8", (2,), lambda: np.zeros((2, 2), "u1")[:, 0]), "no plain buffer"),
    "no buffer": (Outgoing("w", "uint8", (2,), lambda: 3), "no plain buffer"),
    "name": (Outgoing("__metadata__", "uint8", (0,), bytes), "no tensor may have this name"),
    "name with a surrogate": (Outgoing("w\ud800", "uint8", (0,), bytes), "no tensor may have this name"),
    "name with a line feed": (Outgoing("w\n", "uint8", (0,), bytes), "no tensor may have this name"),
    "name of bytes": (Outgoing(b"w", "uint8", (0,), bytes), "no tensor may have this name"),  # type: ignore[arg-type]
    "name twice": (Outgoing("first", "uint8", (0,), bytes), "two tensors have this name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    tensor, reason = REFUSED[case]
    path = tmp_path / "model.safetensors"
    first = Outgoing("first", "uint8", (64,), lambda: bytes(64))
    with pytest.raises(InvalidOptionError) as caught:
        write(path, [first, tensor], {})
    check_message(caught.value, path)
    assert reason in str(caught.value)
    assert caught.value.tensor == str(tensor.name)
    assert not isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": None}, {"a": "\ud800"}, {"\udfff": "a"}], ids=ascii)
def test_metadata_is_text(metadata: dict[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="metadata"):
        write(tmp_path / "model.safetensors", [], metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_no_reader_accepts_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimitError, match="readers accept no more"):
        write(tmp_path / "model.safetensors", [], {"a": "x" * 100_000_001})
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_and_of_the_caller_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    def fail() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, [Outgoing("a", "uint8", (64,), lambda: bytes(64)), Outgoing("b", "uint8", (1,), fail)], {})
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write(path, [], {})
    assert path.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "no" / "model.safetensors", [], {})
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            safetensors_write._write_piece(fd, memoryview(b"x"))
        assert not isinstance(caught.value, PretrainedError)
    finally:
        os.close(fd)


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        path = tmp_path / f"{mask}.safetensors"
        before = os.umask(mask)
        try:
            write(path, [], {})
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
