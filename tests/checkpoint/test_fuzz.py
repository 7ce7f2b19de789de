"""Properties: what is written is read, what is damaged is refused or harmless, what the reference refuses we refuse."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint.files import parse_json, read_json, recognise, safe_join, safe_name
from pretrained.checkpoint.formats.safetensors import DTYPES, Outgoing, read_header, write
from pretrained.checkpoint.index import read_index
from pretrained.checkpoint.tensors import BITS, num_bytes
from pretrained.errors import PretrainedError, UntrustedPathError

# The same few examples in every run, so that a failure is always one of the change at hand.
few = settings(max_examples=100, deadline=None, database=None, derandomize=True)

CODES = sorted(DTYPES)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    names = draw(st.lists(NAMES.filter(lambda name: name != "__metadata__"), unique=True, max_size=8))
    made = []
    for name in names:
        dtype = DTYPES[draw(st.sampled_from(CODES))]
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        if BITS[dtype] < 8:
            shape = (*shape, 4)
        size = num_bytes(shape, dtype)
        raw = np.random.default_rng(size).integers(0, 2, size, np.uint8).tobytes()
        made.append((name, dtype, shape, raw))
    return made


@few
@given(given_tensors=tensors(), metadata=st.dictionaries(NAMES, NAMES, max_size=4))
def test_what_is_written_is_read(
    folder: Path, given_tensors: list[tuple[str, str, tuple[int, ...], bytes]], metadata: dict[str, str]
) -> None:
    path = folder / "written.safetensors"
    path.unlink(missing_ok=True)
    sent = [Outgoing(name, dtype, shape, lambda raw=raw: raw) for name, dtype, shape, raw in given_tensors]  # type: ignore[misc]
    written = write(path, sent, metadata)
    header = read_header(path)
    assert list(header.entries.values()) == written
    assert header.metadata == {"format": "pt", **metadata}
    content = path.read_bytes()
    assert len(given_tensors) == len(written)
    theirs = dict(safetensors.deserialize(content))
    for name, dtype, shape, raw in given_tensors:
        entry = header.entries[name]
        assert (entry.dtype, entry.shape) == (dtype, shape)
        assert content[entry.offset : entry.offset + entry.nbytes] == raw == bytes(theirs[name]["data"])
        if BITS[dtype] >= 8:
            assert header.read(entry).tobytes() == raw


def base_file() -> bytes:
    header = (
        b'{"__metadata__":{"format":"pt","a":"b"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
        b'"b.\\u00e9":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}, "e": {"dtype": "BF16", "shape": [0, 4], '
        b'"data_offsets": [11, 11]},"z":{"data_offsets":[11,13],"dtype":"F16","shape":[]}}  '
    )
    return len(header).to_bytes(8, "little") + header + bytes(range(13))


def compare(path: Path, raw: bytes) -> bool:
    """Whether we read these bytes; if so, the reference must too, and to the same tensors."""
    path.unlink(
        missing_ok=True
    )  # some file systems flush a file that is written over, and this runs thousands of times
    path.write_bytes(raw)
    complaint = None
    try:
        header = read_header(path)
    except PretrainedError as error:
        complaint = str(error)
    if complaint is not None:
        assert path.name in complaint
        assert len(complaint.encode()) <= 2048
        return False
    theirs = dict(safetensors.deserialize(raw))
    assert header.entries.keys() == theirs.keys()
    for name, entry in header.entries.items():
        assert DTYPES[theirs[name]["dtype"]] == entry.dtype
        assert tuple(theirs[name]["shape"]) == entry.shape
        assert bytes(theirs[name]["data"]) == raw[entry.offset : entry.offset + entry.nbytes]
    return True


def test_every_truncation_is_refused(folder: Path) -> None:
    raw = base_file()
    assert compare(folder / "cut.safetensors", raw)
    for size in range(len(raw)):
        assert not compare(folder / "cut.safetensors", raw[:size])


def test_every_flipped_bit_is_refused_or_read_as_the_reference_does(folder: Path) -> None:
    raw = base_file()
    for position in range(len(raw) - 13):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            compare(folder / "flipped.safetensors", bytes(flipped))


FRAGMENTS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"-", b"0", b"1", b"8", b"11", b".", b"e1", b"null",
    b"true", b"NaN", b"18446744073709551616", b"9223372036854775807", b"\\u0077", b"\\ud800", b"\\ud83d\\ude00",
    b"\xff", b"\0", b"\xc3\xa9", b'"w":', b'"__metadata__":{},', b'"dtype":"U8",', b'"shape":[0],', b"{}", b"[]",
    b'"data_offsets":[0,0]', b'"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', b"F64", b"F4", b"C64", b"-0",
    b"\xef\xbb\xbf", b"/**/",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The base file with pieces of its header replaced, its length made to fit again most of the time."""
    raw = base_file()
    header, data = bytearray(raw[8:-13]), raw[-13:]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(header)))
        end = draw(st.integers(start, min(len(header), start + draw(st.sampled_from([0, 1, 2, 8, 60])))))
        source = draw(st.integers(0, len(header)))
        piece = draw(st.one_of(st.sampled_from(FRAGMENTS), st.just(bytes(header[source : source + 60]))))
        header[start:end] = piece
    length = len(header) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 13, 2**40]))
    data = draw(st.sampled_from([data, data, data, data[:8], b"", data + b"\0"]))
    return max(0, length).to_bytes(8, "little") + bytes(header) + data


@settings(few, max_examples=400)
@given(raw=damaged())
def test_a_damaged_header_is_refused_or_read_as_the_reference_does(folder: Path, raw: bytes) -> None:
    compare(folder / "damaged.safetensors", raw)


VALUES = st.sampled_from(
    [0, 1, 2, 3, 8, 11, 13, -1, True, None, 1.0, "1", [], {}, [1], 2**31, 2**32, 2**62, 2**63, 2**64, 10**30]
)


@st.composite
def described(draw: st.DrawFn) -> bytes:
    """A file whose header is valid JSON of the right form with wrong values, in any spelling."""
    header: dict[str, Any] = {}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.one_of(VALUES, st.dictionaries(NAMES, st.one_of(NAMES, VALUES), max_size=3)))
    end = 0
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        code = draw(st.sampled_from(CODES))
        start, end = end, end + num_bytes(tuple(shape), DTYPES[code])
        field: dict[str, Any] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        match draw(st.integers(0, 9)):
            case 0:
                field[draw(st.sampled_from(sorted(field)))] = draw(VALUES)
            case 1:
                field["data_offsets"] = draw(st.lists(VALUES, min_size=1, max_size=3))
            case 2:
                field["shape"] = draw(st.lists(VALUES, max_size=3))
            case 3:
                field["dtype"] = draw(st.sampled_from([*CODES, "U7", "f32", ""]))
        if draw(st.booleans()):
            field = dict(draw(st.permutations(sorted(field.items()))))
        header[name] = field
    if draw(st.booleans()):
        header = dict(draw(st.permutations(list(header.items()))))
    text = json.dumps(
        header,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r\n: ")])),
        indent=draw(st.sampled_from([None, 1])),
    ).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@settings(few, max_examples=300)
@given(raw=described())
def test_a_wrong_header_is_refused_or_read_as_the_reference_does(folder: Path, raw: bytes) -> None:
    compare(folder / "described.safetensors", raw)


@few
@given(
    raw=st.binary(max_size=600),
    magic=st.sampled_from([b"", b"{", b"\x80", b"PK\3\4", b"<", b"GGUF", b" ", b"\xef\xbb\xbf{"]),
)
def test_any_bytes_at_all(folder: Path, raw: bytes, magic: bytes) -> None:
    path = folder / "any.safetensors"
    kind = recognise(magic + raw)
    assert kind is None or kind.isprintable()
    compare(path, magic + raw)
    with contextlib.suppress(PretrainedError):
        assert isinstance(read_json(path), dict)
    with pytest.raises(PretrainedError, match=r"any\.safetensors"):
        read_index(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@few
@given(value=st.dictionaries(NAMES, JSON, max_size=5), ascii_only=st.booleans(), cut=st.integers(1, 50))
def test_json_is_read_as_it_was_written(value: dict[str, Any], ascii_only: bool, cut: int) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_json(raw, path="x") == value
    with pytest.raises(PretrainedError):
        parse_json(raw[:-cut], path="x")


@few
@given(parts=st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", "C:", "link", "b", "\0", "~"]), max_size=5))
def test_no_name_leaves_the_folder(folder: Path, parts: list[str]) -> None:
    root = folder / "root"
    root.mkdir(exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("..")
    name = "/".join(parts)
    try:
        joined = safe_join(root, name)
    except UntrustedPathError:
        return
    assert safe_name(name) == name
    assert joined.resolve().is_relative_to(root.resolve())
    assert joined.resolve() != root.resolve()
