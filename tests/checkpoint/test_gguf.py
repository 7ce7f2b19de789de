"""GGUF files: heads right and wrong, plain numbers, blocks, parts, names, and the config in the metadata."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf as peer
import ml_dtypes
import numpy as np
import pytest
from gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I8,
    I32,
    I64,
    LLAMA,
    STRING,
    U8,
    U16,
    U32,
    U64,
    array,
    field,
    gguf,
    llama,
    tensor,
    text,
)  # fmt: skip

from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats import gguf as reader
from pretrained.checkpoint.formats import gguf_header
from pretrained.checkpoint.formats.gguf import GgufFile, open_gguf, read_gguf
from pretrained.checkpoint.formats.gguf_config import config_of
from pretrained.checkpoint.formats.gguf_names import torch_place
from pretrained.checkpoint.formats.gguf_types import TYPES
from pretrained.checkpoint.rules import apply_ops, shape_after
from pretrained.checkpoint.windows import windows
from pretrained.errors import (
    CheckpointChangedError,
    ConfigError,
    MissingFrameworkError,
    OptionError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    SourceError,
    TensorError,
    UntrustedPathError,
    WeightsFormatError,
)
from pretrained.hub.snapshot import FolderSnapshot, LazySnapshot
from pretrained.options import WeightOptions

RNG = np.random.default_rng(0)
QUANTIZED = [blocks for blocks in TYPES.values() if blocks.dtype is None]
PLAIN = [blocks for blocks in TYPES.values() if blocks.dtype is not None]
UNREADABLE = {"Q8_1", "Q8_K", "Q1_0"}  # gguf has no code for these
KIND_OF = {blocks.name: kind for kind, blocks in TYPES.items()}


def put(folder: Path, content: bytes, name: str = "x.gguf") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_bytes(content)
    return path


def refuse(
    path: Path, kind: type[PretrainedError], words: str, read: Callable[[Path], Any] = read_gguf
) -> PretrainedError:
    with pytest.raises(kind, match=words) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.encode()) <= 2048
    assert message.isprintable()
    assert caught.value.reason
    return caught.value


def blocks_of(name: str, rows: int = 3, blocks: int = 2) -> tuple[bytes, tuple[int, int]]:
    """Random blocks of a type, and the shape of what they hold. Half precision numbers in them stay finite."""
    form = TYPES[KIND_OF[name]]
    raw = RNG.integers(0, 256, (rows * blocks, form.nbytes), np.uint8)
    raw &= np.uint8(0x7B) if name not in ("IQ1_M",) else np.uint8(0x3B)
    return raw.tobytes(), (rows, blocks * form.size)


# Types


def test_the_table_of_types_is_ggufs() -> None:
    known = {kind.value: (kind.name, *peer.GGML_QUANT_SIZES[kind]) for kind in peer.GGMLQuantizationType}
    assert {kind: tuple(blocks[:3]) for kind, blocks in TYPES.items() if kind in known} == known


@pytest.mark.parametrize("blocks", PLAIN, ids=lambda blocks: blocks.name)
@pytest.mark.parametrize("version", [2, 3])
def test_plain_numbers(blocks: Any, version: int, tmp_path: Path) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16) if blocks.dtype == "bfloat16" else np.dtype(blocks.dtype)
    values = RNG.integers(-50, 50, (2, 3)).astype(dtype)
    kind = KIND_OF[blocks.name]
    content = gguf([], [tensor("a", (3, 2), kind, 32), tensor("b", (), kind)], bytes(32) + values.tobytes())
    file = read_gguf(put(tmp_path, content.replace(b"GGUF\3", b"GGUF" + bytes([version]))))
    entry = file.entries["a"]
    assert (entry.dtype, entry.shape, entry.nbytes) == (blocks.dtype, (2, 3), values.nbytes)
    assert content[entry.offset : entry.offset + entry.nbytes] == values.tobytes()
    np.testing.assert_array_equal(file.read(entry), values)
    np.testing.assert_array_equal(np.concatenate([w.copy() for w in windows(file, entry)]), values.reshape(-1))
    assert file.read(file.entries["b"]).shape == ()


@pytest.mark.parametrize("name", [b.name for b in QUANTIZED if b.name not in UNREADABLE])
def test_blocks_become_what_gguf_makes_of_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, shape = blocks_of(name, rows=5, blocks=4)
    path = put(tmp_path, gguf([], [tensor("w", shape[::-1], KIND_OF[name])], raw))
    rows = np.frombuffer(raw, np.uint8).reshape(5, -1)
    with np.errstate(all="ignore"):
        expected = peer.quants.dequantize(rows, peer.GGMLQuantizationType[name])
    file = read_gguf(path)
    entry = file.entries["w"]
    assert (entry.dtype, entry.shape, entry.offset, entry.nbytes) == ("float32", shape, -1, expected.nbytes)
    found = file.read(entry)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    # Blocks are independent: pieces of any size give the same.
    form = TYPES[KIND_OF[name]]
    monkeypatch.setattr(reader, "_PIECE", 3 * form.size)
    monkeypatch.setattr(reader, "_SCRATCH", 7 * form.nbytes + 1)
    np.testing.assert_array_equal(file.read(entry), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "BF16"])
def test_what_gguf_wrote(name: str, tmp_path: Path) -> None:
    values = RNG.standard_normal((4, 512)).astype(np.float32)
    kind = peer.GGMLQuantizationType[name]
    written = peer.GGUFWriter(tmp_path / "x.gguf", "llama")
    written.add_tensor("w", peer.quants.quantize(values, kind), raw_dtype=kind)
    written.add_array("tokens", ["a"] * 100)
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    file = read_gguf(tmp_path / "x.gguf")
    found = np.asarray(file.read(file.entries["w"]), np.float32)
    expected = peer.quants.dequantize(peer.quants.quantize(values, kind), kind).reshape(values.shape)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - values).mean() < (0.9 if name.startswith("TQ") else 0.1)
    assert file.metadata["tensor_types"] == f"1 {name}"


def test_two_types_by_their_definition(tmp_path: Path) -> None:
    scales = np.array([0.5, -2.0], np.float16)
    eight = RNG.integers(-128, 128, (2, 32), np.int8)
    raw = b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, eight, strict=True))
    file = read_gguf(put(tmp_path, gguf([], [tensor("w", (64,), KIND_OF["Q8_0"])], raw)))
    expected = (scales.astype(np.float32)[:, None] * eight).reshape(-1)
    np.testing.assert_array_equal(file.read(file.entries["w"]), expected)
    four = RNG.integers(0, 16, (2, 32), np.uint8)
    packed = four[:, :16] | four[:, 16:] << 4
    raw = b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, packed, strict=True))
    file = read_gguf(put(tmp_path, gguf([], [tensor("w", (64,), KIND_OF["Q4_0"])], raw)))
    expected = (scales.astype(np.float32)[:, None] * (four.astype(np.int8) - 8)).reshape(-1)
    np.testing.assert_array_equal(file.read(file.entries["w"]), expected)


def test_a_tensor_without_elements(tmp_path: Path) -> None:
    content = gguf([], [tensor("w", (32, 0), KIND_OF["Q4_0"]), tensor("v", (0, 3), 0)])
    file = read_gguf(put(tmp_path, content))
    assert file.read(file.entries["w"]).shape == (0, 32)
    assert file.read(file.entries["v"]).shape == (3, 0)


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_blocks_that_gguf_has_no_code_for(name: str, tmp_path: Path) -> None:
    raw, shape = blocks_of(name)
    file = read_gguf(put(tmp_path, gguf([], [tensor("w", shape[::-1], KIND_OF[name])], raw)))
    error = refuse(file.path, TensorError, f"'w': .*{name}", lambda path: file.read(file.entries["w"]))
    assert error.tensor == "w"


def test_blocks_of_a_type_newer_than_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, shape = blocks_of("Q4_0")
    file = read_gguf(put(tmp_path, gguf([], [tensor("w", shape[::-1], 2)], raw)))
    older = type("Older", (), {"__members__": {}})
    monkeypatch.setattr(peer, "GGMLQuantizationType", older)
    refuse(file.path, TensorError, "does not know the type Q4_0: pip install", lambda p: file.read(file.entries["w"]))


def test_without_gguf_plain_numbers_are_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, shape = blocks_of("Q4_0")
    tensors = [tensor("w", shape[::-1], 2), tensor("v", (2,), 0, 128)]
    file = read_gguf(put(tmp_path, gguf([], tensors, raw + bytes(128))))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        MissingFrameworkError, match=r"'w' is quantized \(Q4_0\).*pip install 'pretrained\[gguf\]'"
    ) as e:
        file.read(file.entries["w"])
    assert (e.value.key, e.value.tensor) == ("gguf", "w")
    assert file.read(file.entries["v"]).tolist() == [0, 0]


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    raw, shape = blocks_of("Q4_0")
    path = put(tmp_path, gguf([], [tensor("w", shape[::-1], 2), tensor("v", (2,), 0, 128)], raw + bytes(128)))
    file = read_gguf(path)
    foreign = file.entries["w"]._replace(shape=(1,))
    refuse(path, TensorError, "no such entry", lambda _: file.read(foreign))
    path.write_bytes(path.read_bytes() + b"\0")
    for entry in file.entries.values():
        refuse_changed(file, entry)
    path.unlink()
    refuse_changed(file, file.entries["w"])


def refuse_changed(file: GgufFile, entry: Any) -> None:
    with pytest.raises(CheckpointChangedError, match=r"x\.gguf"):
        file.read(entry)


# Metadata


def test_values_of_every_kind(tmp_path: Path) -> None:
    told = {
        "a": (U8, 200), "b": (I8, -3), "c": (U16, 60000), "d": (U32, 2**32 - 1), "e": (I32, -5), "f": (F32, 1e-5),
        "g": (BOOL, True), "h": (STRING, "ä\n"), "i": (U64, 2**63), "j": (I64, -(2**62)), "k": (F64, 0.1),
        "l": (ARRAY, array(U32, [1, 2])), "m": (ARRAY, array(BOOL, [True, False])), "n": (ARRAY, array(F32, [0.5])),
    }  # fmt: skip
    file = read_gguf(put(tmp_path, gguf([field(key, *value) for key, value in told.items()])))
    expected = {key: value for key, (_, value) in told.items()} | {"l": [1, 2], "m": [True, False], "n": [0.5]}
    assert file.fields == expected
    assert [type(file.fields[key]) for key in "agk"] == [int, bool, float]
    assert file.metadata["format"] == "gguf"
    assert file.metadata["m"] == "[True, False]"


@pytest.mark.parametrize("value", [1e-5, 1e-6, 500000.0, 1 / 3, 3.4028234663852886e38, 1e-45, 0.0, -1.5, np.inf])
def test_a_float_of_32_bits_becomes_the_shortest_that_means_it(value: float, tmp_path: Path) -> None:
    found = read_gguf(put(tmp_path, gguf([field("a", F32, value)]))).fields["a"]
    assert struct.pack("<f", found) == struct.pack("<f", value)
    assert len(repr(found)) <= len(repr(float(np.float32(value))))


def test_what_is_long_is_not_kept(tmp_path: Path) -> None:
    nested = array(ARRAY, [array(U8, [1, 2]), array(STRING, ["x"])])
    fields = [
        field("s", STRING, "x" * 5000),
        field("n", ARRAY, array(F32, [0.0] * 65)),
        field("t", ARRAY, array(STRING, ["x"] * 3)),
        field("d", ARRAY, nested),
        field("o", STRING, b"\2\0\0\0\0\0\0\0\xff\xfe"),
        field("end", U8, 7),
    ]
    file = read_gguf(put(tmp_path, gguf(fields)))
    assert file.metadata["s"] == "(5000 bytes)"
    assert file.metadata["n"] == "(65 numbers)"
    assert file.metadata["t"] == "(3 strings)"
    assert file.metadata["d"] == "(2 arrays)"
    assert file.fields["o"] == "\ufffd\ufffd"
    assert file.fields["end"] == 7


TOKENS: list[Sequence[bytes]] = [
    [],
    [b""],
    [b"a"],
    [b"", b"", b""],
    [b"\0" * n for n in range(20)],
    [b"x" * 255, b"y" * 256, b"z" * 257, b"w" * 100_000, b"a"],
    [b"\1\0\0\0\0\0\0\0", b"\7\0\0\0\0\0\0\0abcdefg", b"b"],
    [bytes([n % 256]) * (n % 40) for n in range(5000)],
    [random.Random(n).randbytes(n % 300) for n in range(3000)],
    [b"token%d" % n for n in range(20_000)],
]


@pytest.mark.parametrize("tokens", TOKENS, ids=range(len(TOKENS)))
@pytest.mark.parametrize("window", [1 << 20, 64, 1000])
def test_any_strings_are_walked_over(
    tokens: Sequence[bytes], window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_header, "WINDOW", window)
    monkeypatch.setattr(gguf_header, "_SLICE", min(window, 1 << 16))
    fields = [field("tokens", ARRAY, array(STRING, tokens)), field("after", U32, 12345)]
    file = read_gguf(put(tmp_path, gguf(fields, [tensor("w", (2,))], bytes(32))))
    assert file.fields == {"tokens": (len(tokens), "strings"), "after": 12345}
    assert list(file.entries) == ["w"]


# What is wrong


W = tensor("w", (8,))
DATA = bytes(32)
BAD, BAD_TENSOR, ALIGN = WeightsFormatError, TensorError, "general.alignment"
WRONG: dict[str, tuple[bytes, type[PretrainedError], str, str | None]] = {
    "empty": (b"", BAD, "is no GGUF file: it is empty", None),
    "html": (b"<html><body>", BAD, "looks like an HTML page", None),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", BAD, "looks like a Git LFS pointer", None),
    "zip": (b"PK\3\4" + bytes(99), BAD, "looks like a zip archive", None),
    "other": (b"GGML" + bytes(99), BAD, "does not begin with GGUF", None),
    "version 1": (gguf(version=1), BAD, "GGUF version 1, and 2 and 3 are known", None),
    "version 4": (gguf(version=4), BAD, "GGUF version 4", None),
    "version 0": (gguf(version=0), BAD, "GGUF version 0", None),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), BAD, "numbers are big-endian", None),
    "cut in the counts": (gguf()[:15], BAD, "cut off", None),
    "2^62 tensors": (gguf(num_tensors=2**62), BAD, f"{2**62} tensors are claimed", None),
    "2^62 keys": (gguf(num_fields=2**62), BAD, f"{2**62} metadata keys are claimed", None),
    "one key too many": (gguf([field("a", U8, 1)], num_fields=2), BAD, "keys are claimed|without characters", None),
    "key of 2^62": (gguf([text("a", 2**62) + bytes(99)]), BAD, f"key of {2**62} bytes", None),
    "key of 2000": (gguf([field("k" * 2000, U8, 1)]), BAD, "key of 2000 bytes", None),
    "key not UTF-8": (gguf([field(b"\xff\xff", U8, 1)]), BAD, "key is not UTF-8", None),
    "key with a line": (gguf([field("a\nb", U8, 1)]), BAD, "holds a control character", None),
    "key of 0": (gguf([field("", U8, 1)]), BAD, "a metadata key without characters", None),
    "name of 0": (gguf([], [tensor("", (8,))], DATA), BAD, "the name of a tensor without characters", None),
    "key twice": (gguf([field("a", U8, 1)] * 2), BAD, "a: the metadata key appears twice", "a"),
    "string of 2^62": (gguf([field("a", STRING, text("x", 2**62))]), BAD, "a string of 4611", "a"),
    "array of 2^62": (gguf([field("a", ARRAY, array(U8, [], 2**62))]), BAD, "an array of 4611", "a"),
    "strings of 2^62": (gguf([field("a", ARRAY, array(STRING, [], 2**62))]), BAD, "an array of", "a"),
    "a string in an array of 2^62": (
        gguf([field("a", ARRAY, array(STRING, [], 2) + text("x", 2**62) + text("y"))], [W], DATA),
        BAD, "bytes are claimed, and the file has", "a",
    ),
    "array of no kind": (gguf([field("a", ARRAY, b"\x63" + array(U8, [1])[1:])]), BAD, "unknown type", "a"),
    "value of no kind": (gguf([field("a", 99, b"")], [W], DATA), BAD, "value of the unknown type", "a"),
    "alignment 0": (gguf([field(ALIGN, U32, 0)], [W], DATA), BAD, "alignment is 0", ALIGN),
    "alignment 3": (gguf([field(ALIGN, U32, 3)], [W], DATA), BAD, "alignment is 3", ALIGN),
    "alignment text": (gguf([field(ALIGN, STRING, "32")], [W], DATA), BAD, "alignment is '32'", ALIGN),
    "alignment huge": (gguf([field(ALIGN, U64, 2**62)], [W], DATA), BAD, "no power of two up to", ALIGN),
    "name twice": (gguf([], [W, W], DATA), BAD_TENSOR, "'w': the name appears twice", "w"),
    "name of 2^62": (gguf([], [text("w", 2**62) + bytes(99)]), BAD, "name of a tensor of 4611", None),
    "name with a bell": (gguf([], [tensor("\7", (8,))], DATA), BAD, "holds a control character", None),
    "5 dimensions": (gguf([], [tensor("w", (1, 1, 1, 1, 8))], DATA), BAD_TENSOR, "5 dimensions", "w"),
    "2^31 dimensions": (gguf([], [tensor("w", (8,), num_dims=2**31)], DATA), BAD_TENSOR, "2147483648 dimensions", "w"),
    "dims overflow": (gguf([], [tensor("w", (2**32, 2**32))], DATA), BAD_TENSOR, "larger than any memory", "w"),
    "dims overflow to 0": (gguf([], [tensor("w", (2**63, 2, 0))], DATA), BAD_TENSOR, "larger than any memory", "w"),
    "dim of 2^63": (gguf([], [tensor("w", (2**63 + 8,))], DATA), BAD_TENSOR, "larger than any memory", "w"),
    "no such type": (gguf([], [tensor("w", (8,), 99)], DATA), BAD_TENSOR, "the type 99 is unknown", "w"),
    "given up type": (gguf([], [tensor("w", (32,), 4)], DATA), BAD_TENSOR, "the type 4 is unknown", "w"),
    "half a block": (gguf([], [tensor("w", (33,), 2)], DATA), BAD_TENSOR, "33 elements are not whole blocks", "w"),
    "offset at the end": (gguf([], [tensor("w", (8,), 0, 32)], DATA), BAD_TENSOR, "reaches to byte", "w"),
    "offset of u64": (gguf([], [tensor("w", (8,), 0, 2**64 - 32)], DATA), BAD_TENSOR, "reaches to byte", "w"),
    "misaligned": (gguf([], [tensor("w", (2,), 0, 4)], DATA), BAD_TENSOR, "4 is no multiple of the alignment 32", "w"),
    "overlap": (gguf([], [tensor("w", (16,)), tensor("v", (8,), 0, 32)], DATA * 2), BAD_TENSOR, "overlaps .*'w'", "v"),
    "same place": (gguf([], [tensor("w", (8,)), tensor("v", (4,))], DATA), BAD_TENSOR, "overlaps the tensor 'v'", "w"),
    "data cut": (gguf([], [W], DATA)[:-1], BAD_TENSOR, "reaches to byte", "w"),
    "no data": (gguf([], [W]), BAD_TENSOR, "reaches to byte", "w"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str, tmp_path: Path) -> None:
    content, kind, words, blamed = WRONG[case]
    error = refuse(put(tmp_path, content), kind, words)
    assert type(error) is kind
    assert (error.tensor if kind is TensorError else error.key) == blamed


def test_more_of_anything_than_any_file_has(tmp_path: Path) -> None:
    many = gguf_header.MAX_ITEMS + 1
    strings = array(STRING, [], many) + bytes(8 * many)
    cases = {
        "more than 16384 metadata keys": gguf(num_fields=16385) + bytes(13 * 16385),
        "more than 100000 tensors": gguf(num_tensors=100_001) + bytes(24 * 100_001),
        f"more than {gguf_header.MAX_ITEMS} strings": gguf([field("a", ARRAY, strings)]),
        "or too many arrays": gguf([field("a", ARRAY, array(ARRAY, [], many // 10) + bytes(12 * many))]),
    }  # fmt: skip
    for words, content in cases.items():
        error = refuse(put(tmp_path, content), ResourceLimitError, words)
        assert isinstance(error, ResourceLimitError)
        assert error.limit


def test_arrays_in_arrays_have_a_bottom(tmp_path: Path) -> None:
    value = array(U8, [1])
    for depth in range(1, 200):
        fields = [field("a", ARRAY, value)]
        if depth <= 4:
            assert "a" in read_gguf(put(tmp_path, gguf(fields))).fields
        value = array(ARRAY, [value])
    error = refuse(put(tmp_path, gguf([field("a", ARRAY, value)])), WeightsFormatError, "arrays in arrays, more than 4")
    assert error.key == "a"


def test_what_is_no_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.gguf", SourceError, "no such file|not there|nothing|exist")
    (tmp_path / "d.gguf").mkdir()
    refuse(tmp_path / "d.gguf", WeightsFormatError, "a folder")


def test_every_cut_and_every_flipped_byte_is_a_clean_error_or_a_file(tmp_path: Path) -> None:
    whole = llama({"x": (ARRAY, array(ARRAY, [array(F32, [1.0])])), "general.alignment": (U32, 32)})
    path = put(tmp_path, whole)
    end = read_gguf(path).entries["token_embd.weight"].offset
    for length in [*range(0, end, 2), *range(end, len(whole), 16)]:
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsFormatError, match=r"x\.gguf"):
            read_gguf(path)
    chance, seen = random.Random(1), set()
    for position in range(4, end, 2):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            opened = open_gguf(path, path.name)
            config_of(opened)
        except PretrainedError as error:
            seen.add(str(path) in str(error))
    assert seen == {True}


# Parts


def parts(folder: Path, changes: dict[int, dict[str, tuple[int, Any] | None]] | None = None, count: int = 2) -> Path:
    names = [("token_embd.weight", (8, 3)), ("output_norm.weight", (8,)), ("output.weight", (8, 3))]
    for number in range(count):
        told: dict[str, tuple[int, Any] | None] = dict(LLAMA) if number == 0 else dict.fromkeys(LLAMA)
        told |= {"split.no": (U16, number), "split.count": (U16, count), "split.tensors.count": (I32, count)}
        told |= (changes or {}).get(number, {})
        put(folder, llama(told, names[number]), f"m-{number + 1:05}-of-{count:05}.gguf")
    return folder / f"m-00001-of-{count:05}.gguf"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_parts_are_one_model_whichever_is_named(number: int, tmp_path: Path) -> None:
    first = parts(tmp_path, count=3)
    named = tmp_path / f"m-0000{number}-of-00003.gguf"
    opened = open_gguf(named, named.name)
    assert [part.path for part in opened] == [first, *(tmp_path / f"m-0000{n}-of-00003.gguf" for n in (2, 3))]
    assert [list(part.entries) for part in opened] == [["token_embd.weight"], ["output_norm.weight"], ["output.weight"]]
    assert {part.metadata["general.architecture"] for part in opened} == {"llama"}
    assert config_of(opened)["tie_word_embeddings"] is False
    weights = find(tmp_path)
    assert list(weights.entries) == ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({1: {"split.no": (U16, 0)}}, "split.no", r"split.no and split.count are \(0, 2\), not \(1, 2\)"),
        ({1: {"split.count": (U16, 3)}}, "split.no", r"are \(1, 3\), not \(1, 2\)"),
        ({1: {"split.no": None}}, "split.no", r"are \(None, 2\)"),
        ({0: {"split.count": (U16, 7)}}, "split.count", "one of 7 parts, and its name is not"),
        ({0: {"split.count": (STRING, "two")}}, "split.count", "one of 'two' parts"),
        ({0: {"split.count": None}}, "split.count", "called one of several parts, and does not say so"),
        ({0: {"split.tensors.count": (I32, 9)}}, "split.tensors.count", "is 9, and the 2 parts hold 2"),
    ],
)
def test_parts_that_contradict_each_other(
    changes: dict[int, dict[str, Any]], key: str, words: str, tmp_path: Path
) -> None:
    first = parts(tmp_path, changes)
    with pytest.raises(ShardIndexError, match=words) as caught:
        open_gguf(first, first.name)
    assert caught.value.key == key


def test_a_missing_part_and_a_tensor_in_two(tmp_path: Path) -> None:
    first = parts(tmp_path)
    second = tmp_path / "m-00002-of-00002.gguf"
    told = {**dict.fromkeys(LLAMA), "split.no": (U16, 1), "split.count": (U16, 2)}
    put(tmp_path, llama(told, ("token_embd.weight", (8, 3))), second.name)
    with pytest.raises(ShardIndexError, match=r"'token_embd.weight' is in another part too") as caught:
        open_gguf(first, first.name)
    assert (caught.value.tensor, caught.value.path) == ("token_embd.weight", str(second))
    second.unlink()
    with pytest.raises(ShardIndexError, match=r"the part 'm-00002-of-00002\.gguf' is missing"):
        open_gguf(first, first.name)
    second.symlink_to("/dev/zero")
    with pytest.raises(UntrustedPathError, match="out of its folder"):
        find(tmp_path)
    second.unlink()
    second.write_bytes(b"GGUF")
    with pytest.raises(WeightsFormatError, match=r"m-00002-of-00002\.gguf: cut off"):
        open_gguf(first, first.name)


# Finding


def find(folder: Path, only: str | None = None, **options: Any) -> Weights:
    return find_checkpoint(FolderSnapshot(folder, str(folder), only=only), WeightOptions(**options))


def test_where_a_gguf_is_found(tmp_path: Path) -> None:
    path = put(tmp_path, llama())
    assert list(find(tmp_path).containers) == [path]
    assert list(find(tmp_path, only="x.gguf").containers) == [path]
    assert list(find(tmp_path, gguf_file="x.gguf").containers) == [path]
    assert list(find(tmp_path, only="x.gguf", gguf_file="x.gguf").containers) == [path]
    inner = put(tmp_path / "sub", llama(), "y.gguf")
    assert list(find(tmp_path, gguf_file="sub/y.gguf").containers) == [inner]
    parts(tmp_path / "sub")
    assert len(find(tmp_path, gguf_file="sub/m-00001-of-00002.gguf").containers) == 2


def test_beside_other_weights_a_gguf_has_to_be_named(tmp_path: Path) -> None:
    path = put(tmp_path, llama())
    put(tmp_path, b"not read", "pytorch_model.bin")
    with pytest.raises(WeightsFormatError, match=r"pytorch_model\.bin"):
        find(tmp_path)
    assert list(find(tmp_path, gguf_file="x.gguf").containers) == [path]
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "y.gguf")
    with pytest.raises(SourceError, match=r"there is x\.gguf, y\.gguf; gguf_file= says which"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("none.gguf", SourceError, r"no 'none\.gguf' in .*; there is x\.gguf"),
        ("sub/none.gguf", SourceError, r"no 'sub/none\.gguf'"),
        ("../x.gguf", UntrustedPathError, "has an empty part, '.' or '..'"),
        ("/etc/passwd", UntrustedPathError, "is absolute"),
        ("", UntrustedPathError, "is empty"),
        ("a\0b", UntrustedPathError, "control character"),
        ("link.gguf", UntrustedPathError, "link out of its folder"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, kind: type[PretrainedError], words: str, tmp_path: Path) -> None:
    put(tmp_path / "in", llama())
    if name == "link.gguf":
        (tmp_path / "in" / name).symlink_to("/etc/passwd")
    with pytest.raises(kind, match=words):
        find(tmp_path / "in", gguf_file=name)


def test_of_a_hub_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    parts(tmp_path)
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    fetched = []

    class Shelf:
        def path(self, name: str) -> Path:
            fetched.append(name)
            return tmp_path / Path(name).name

        def fetch(self, names: list[str]) -> None:
            """`path` does it."""

        def source(self, name: str) -> None:
            """It is not streamed."""

    def snapshot(folder: str = "") -> LazySnapshot:
        files = [folder + name for name in names] + ["sub/other.gguf"]
        return LazySnapshot("org/name", "0" * 40, dict(zip(files, files, strict=True)), Shelf())

    assert len(find_checkpoint(snapshot(), WeightOptions()).containers) == 2
    assert sorted(set(fetched)) == names
    fetched.clear()
    assert len(find_checkpoint(snapshot("q4/"), WeightOptions(gguf_file=f"q4/{names[1]}")).containers) == 2
    assert sorted(set(fetched)) == [f"q4/{name}" for name in names]
    with pytest.raises(SourceError, match="no weights in org/name"):
        find_checkpoint(snapshot("q4/"), WeightOptions())


def test_a_file_and_another_gguf(tmp_path: Path) -> None:
    put(tmp_path, llama())
    with pytest.raises(OptionError, match=r"gguf_file='y\.gguf' beside another file"):
        find(tmp_path, only="x.gguf", gguf_file="y.gguf")


# Names and layouts


HEADS = {"llama.attention.head_count": "4", "llama.attention.head_count_kv": "2"}


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        ("llama", "token_embd.weight", "model.embed_tokens.weight"),
        ("llama", "output_norm.weight", "model.norm.weight"),
        ("llama", "output.weight", "lm_head.weight"),
        ("llama", "blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
        ("llama", "blk.12.attn_v.bias", "model.layers.12.self_attn.v_proj.bias"),
        ("llama", "blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"),
        ("llama", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ("llama", "blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight"),
        ("llama", "blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"),
        ("llama", "blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ("qwen2", "blk.3.attn_q.bias", "model.layers.3.self_attn.q_proj.bias"),
        ("qwen3", "blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight"),
        ("qwen3", "blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
        ("llama", "rope_freqs.weight", None),
        ("llama", "blk.0.attn_rot_embd.weight", None),
        ("llama", "blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate_exps.weight"),
        ("llama", "strange", "strange"),
        ("mamba", "token_embd.weight", "token_embd.weight"),
        ("", "token_embd.weight", "token_embd.weight"),
    ],
)
def test_names(architecture: str, name: str, expected: str | None) -> None:
    found = torch_place(name, (8, 8), {"general.architecture": architecture, **HEADS})
    assert found == (None if expected is None else (expected, ()))


def interleave(weight: Any, heads: int) -> Any:
    """As llama.cpp's converter stores queries and keys: channel i of a head, then channel i + half."""
    return np.concatenate([np.stack(np.split(head, 2), 1).reshape(head.shape) for head in np.split(weight, heads)])


@pytest.mark.parametrize(("module", "heads"), [("attn_q", 4), ("attn_k", 2)])
@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_rows_of_queries_and_keys_are_put_back(module: str, heads: int, leaf: str) -> None:
    original = RNG.standard_normal((24, 5) if leaf == "weight" else (24,))
    stored = interleave(original, heads)
    assert not np.array_equal(stored, original)
    found = torch_place(f"blk.0.{module}.{leaf}", original.shape, {"general.architecture": "llama", **HEADS})
    assert found is not None
    np.testing.assert_array_equal(apply_ops(found[1], stored), original)
    assert shape_after(found[1], original.shape) == original.shape
    back = [op.inverse for op in reversed(found[1])]
    np.testing.assert_array_equal(apply_ops(back, original), stored)
    assert torch_place(f"blk.0.{module}.{leaf}", original.shape, {"general.architecture": "qwen2"}) is not None


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"llama.attention.head_count": None}, "llama.attention.head_count", "one positive number, and is None"),
        ({"llama.attention.head_count": (U32, 0)}, "llama.attention.head_count", "and is '0'"),
        ({"llama.attention.head_count": (ARRAY, array(U32, [2, 4]))}, "llama.attention.head_count", r"is '\[2, 4\]'"),
        ({"llama.attention.head_count_kv": (STRING, "x")}, "llama.attention.head_count_kv", "is 'x'"),
        ({"llama.attention.head_count_kv": (U32, 3)}, None, "no 3 heads of an even size"),
    ],
)
def test_heads_that_are_none(changes: dict[str, Any], key: str | None, words: str, tmp_path: Path) -> None:
    path = put(tmp_path, llama(changes, ("blk.0.attn_k.weight", (8, 4))))
    error = refuse(path, WeightsFormatError, words, lambda path: open_gguf(path, path.name))
    assert error.key == key
    assert error.tensor == (None if key else "blk.0.attn_k.weight")


# The config


def config(folder: Path, changes: dict[str, Any] | None = None, *tensors: tuple[str, Sequence[int]]) -> dict[str, Any]:
    path = put(folder, llama(changes, *tensors))
    return config_of(open_gguf(path, path.name))


def test_the_config_of_a_llama(tmp_path: Path) -> None:
    assert config(tmp_path) == {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 3,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "float32",
        "attention_bias": False,
        "mlp_bias": False,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"llama.attention.head_count_kv": None}, {"num_key_value_heads": 2}),
        ({"llama.attention.key_length": (U32, 6)}, {"head_dim": 6}),
        ({"llama.vocab_size": (U32, 9)}, {"vocab_size": 9}),
        ({"tokenizer.ggml.tokens": None}, {"vocab_size": 3}),
        ({"llama.rope.freq_base": (F32, 5e5)}, {"rope_theta": 5e5}),
        (
            {"tokenizer.ggml.bos_token_id": (U32, 1), "tokenizer.ggml.eos_token_id": (U32, 2),
             "tokenizer.ggml.padding_token_id": (U32, 0)},
            {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        ),
        ({"llama.expert_count": (U32, 0), "llama.rope.dimension_count": (U32, 4)}, {}),
        ({"llama.rope.scaling.type": (STRING, "none"), "llama.rope.scaling.factor": (F32, 4.0)}, {}),
        ({"llama.rope.scaling.factor": (F32, 0.0)}, {"rope_scaling": None}),
        ({"llama.rope.scaling.factor": (F32, 2.0)}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ({"llama.rope.scale_linear": (F32, 4.0)}, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
        (
            {"llama.rope.scaling.type": (STRING, "linear"), "llama.rope.scaling.factor": (F32, 8.0)},
            {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        (
            {"llama.rope.scaling.type": (STRING, "yarn"), "llama.rope.scaling.factor": (F32, 4.0),
             "llama.rope.scaling.original_context_length": (U32, 16)},
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
        ),
        (
            {"llama.rope.scaling.type": (STRING, "yarn"), "llama.rope.scaling.factor": (F32, 1.0),
             "llama.rope.scaling.attn_factor": (F32, 1.5), "llama.rope.scaling.yarn_beta_fast": (F32, 30.0)},
            {"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 64,
                              "beta_fast": 30.0, "attention_factor": 1.5}},
        ),
    ],
)  # fmt: skip
def test_what_the_keys_say(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert config(tmp_path, changes) == config(tmp_path) | expected


def test_what_the_tensors_say(tmp_path: Path) -> None:
    embedding = ("token_embd.weight", (8, 3))
    assert config(tmp_path, {}, embedding, ("output.weight", (8, 3)))["tie_word_embeddings"] is False
    found = config(tmp_path, {}, embedding, ("blk.0.attn_q.bias", (8,)), ("blk.0.ffn_down.bias", (8,)))
    assert (found["attention_bias"], found["mlp_bias"]) == (True, True)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_the_config_of_a_qwen(architecture: str, tmp_path: Path) -> None:
    told: dict[str, Any] = dict.fromkeys(LLAMA)
    told |= {key.replace("llama.", f"{architecture}."): value for key, value in LLAMA.items()}
    told["general.architecture"] = (STRING, architecture)
    expected = config(tmp_path) | {"model_type": architecture, "architectures": [f"Q{architecture[1:]}ForCausalLM"]}
    del expected["mlp_bias"]
    if architecture == "qwen2":
        del expected["attention_bias"]
    assert config(tmp_path, told) == expected


# The key without the architecture, its value, what is said; and the key that is blamed where it is another.
BAD_CONFIG: list[tuple[str, Any, str, str | None]] = [
    ("general.architecture", None, "is missing; known: llama, qwen2", None),
    ("general.architecture", (STRING, "mamba"), "is 'mamba'; known: llama", None),
    ("general.architecture", (U32, 5), "is 5; known", None),
    ("general.architecture", (ARRAY, array(U8, [1])), r"is \[1\]; known", None),
    ("general.type", (STRING, "adapter"), "is 'adapter': this is no model", None),
    ("block_count", None, "is missing", None),
    ("block_count", (U32, 0), "positive whole number, and is 0", None),
    ("block_count", (U32, 10**9), "is 1000000000, and there are 1 tensors", None),
    ("block_count", (U64, 2**63), "and there are 1 tensors", None),
    ("embedding_length", (BOOL, True), "and is True", None),
    ("embedding_length", (STRING, "8"), "and is '8'", None),
    ("embedding_length", (F32, 8.0), "and is 8.0", None),
    ("feed_forward_length", (I32, -5), "and is -5", None),
    ("feed_forward_length", (ARRAY, array(U32, [8, 9])), r"is \[8, 9\]", None),
    ("context_length", None, "is missing", None),
    ("attention.head_count", (U32, 9), "and is 0", "attention.key_length"),
    ("attention.value_length", (U32, 5), "the length of a key, 4", None),
    ("rope.dimension_count", (U32, 2), "the length of a key, 4", None),
    ("attention.layer_norm_rms_epsilon", (F32, np.nan), "positive number, and is nan", None),
    ("attention.layer_norm_rms_epsilon", (F32, 0.0), "and is 0.0", None),
    ("attention.layer_norm_rms_epsilon", None, "is missing", None),
    ("rope.freq_base", (F32, np.inf), "and is inf", None),
    ("rope.freq_base", (STRING, "1"), "and is '1'", None),
    ("rope.scaling.type", (STRING, "longrope"), "known: none, linear, yarn", None),
    ("rope.scaling.factor", (F32, -2.0), "and is -2.0", None),
    ("rope.scaling.attn_factor", (F32, 2.0), "needs the scaling type yarn", None),
    ("expert_count", (U32, 8), "is missing", "expert_used_count"),
    ("expert_shared_count", (U32, 8), "is 8, which is not supported", None),
    ("logit_scale", (F32, 0.5), "is 0.5, which is not supported", None),
    ("attention.causal", (BOOL, False), "is False", None),
    ("tokenizer.ggml.bos_token_id", (I32, -1), "number of a token, and is -1", None),
    ("tokenizer.ggml.eos_token_id", (STRING, "2"), "and is '2'", None),
    ("vocab_size", (I32, -3), "and is -3", None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "words", "blamed"), BAD_CONFIG)
def test_a_config_that_cannot_be(key: str, value: Any, words: str, blamed: str | None, tmp_path: Path) -> None:
    key, blamed = (
        name if name.startswith(("general", "tokenizer")) else f"llama.{name}" for name in (key, blamed or key)
    )
    path = put(tmp_path, llama({key: value}))
    error = refuse(path, ConfigError, words, lambda path: config_of(open_gguf(path, path.name)))
    assert error.key == blamed


def test_ids_that_say_there_is_none(tmp_path: Path) -> None:
    assert config(tmp_path, {"tokenizer.ggml.bos_token_id": (U32, 2**32 - 1)}) == config(tmp_path)


def test_a_window_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config(tmp_path, {"llama.attention.sliding_window": (U32, 64)})
    assert not caplog.records
    config(tmp_path, {"llama.attention.sliding_window": (U32, 16)})
    assert "attends to the last 16 positions only" in caplog.text


# The table of frequencies


def with_factors(folder: Path, factors: Sequence[float], changes: dict[str, Any] | None = None) -> Any:
    facts = {**LLAMA, "llama.embedding_length": (U32, 256), **(changes or {})}
    data = np.asarray(factors, np.float32).tobytes()
    described = [tensor("rope_freqs.weight", (len(factors),)), tensor("token_embd.weight", (8, 1), 0, len(data))]
    content = gguf([field(key, *told) for key, told in facts.items()], described, data + bytes(64))
    path = put(folder, content)
    return config_of(open_gguf(path, path.name))["rope_scaling"]


def llama3_factors(factor: float, theta: float, dim: int = 128) -> Any:
    """As "The Llama 3 Herd of Models" stretches frequencies."""
    wavelengths = 2 * np.pi * theta ** (np.arange(0, dim, 2) / dim)
    kept = (8192 / wavelengths - 1) / 3
    blended = 1 / ((1 - kept) / factor + kept)
    return np.where(wavelengths < 8192 / 4, 1, np.where(wavelengths > 8192, factor, blended))


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_factors_of_llama_3_are_recognised(factor: float, tmp_path: Path) -> None:
    factors = llama3_factors(factor, 5e5)
    assert with_factors(tmp_path, factors, {"llama.rope.freq_base": (F32, 5e5)}) == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_other_factors_are_kept_as_they_are(tmp_path: Path) -> None:
    factors = llama3_factors(8.0, 1e6).astype(np.float32)  # of another base: not those of this model
    found = with_factors(tmp_path, factors)
    assert found["rope_type"] == "longrope"
    assert found["attention_factor"] == 1.0
    assert found["short_factor"] == found["long_factor"] == factors.tolist()
    assert with_factors(tmp_path, [1.0] * 64) is None


@pytest.mark.parametrize(
    ("factors", "changes", "words"),
    [
        ([1.0] * 32, {}, r"rope_freqs.weight has the shape \[32\], where 64 are expected"),
        ([1.0] * 63 + [0.0], {}, "holds a factor that is not positive"),
        ([1.0] * 63 + [np.nan], {}, "holds a factor that is not positive"),
        (
            [2.0] * 64,
            {"llama.rope.scaling.type": (STRING, "yarn"), "llama.rope.scaling.factor": (F32, 2.0)},
            "is there beside a scaling of type yarn",
        ),
    ],
)
def test_factors_that_cannot_be(factors: list[float], changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        with_factors(tmp_path, factors, changes)
    assert caught.value.key == "rope_freqs.weight"


def test_tensors_of_longrope_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rope_factors_long\.weight is a tensor of longrope"):
        config(tmp_path, {}, ("token_embd.weight", (8, 3)), ("rope_factors_long.weight", (2,)))
