"""PyTorch's zip files: what torch.save writes is read as torch reads it; whatever else a file asks for is refused."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrained.checkpoint.formats import torch_globals, torch_pickle, torch_records, torch_zip
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.formats.torch_pickle import read_pickle
from pretrained.checkpoint.formats.torch_zip import TorchFile, read_torch
from pretrained.checkpoint.tensors import Container
from pretrained.errors import (
    CheckpointChangedError,
    PretrainedError,
    ResourceLimitError,
    SourceError,
    TensorError,
    UntrustedPathError,
    WeightsFormatError,
)

BERT = Path(__file__).parents[1] / "reference" / "bert"
FDS = Path("/proc/self/fd")
DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16"),
    *("float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"),
]


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def opened(tmp_path: Path, value: Any, **options: Any) -> TorchFile:
    path = tmp_path / "pytorch_model.bin"
    torch.save(value, path, **options)
    return read_torch(path)


def raw_of(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    return bytes(flat.view(torch.uint8).numpy())


def check_same(file: TorchFile, tensors: dict[str, torch.Tensor]) -> None:
    """Every tensor is there, reads as torch has it, and lies in the file where its entry says."""
    assert list(file.entries) == list(tensors)
    content = file.path.read_bytes()
    for name, tensor in tensors.items():
        entry = file.entries[name]
        assert (entry.name, entry.file) == (name, file.path)
        assert (entry.dtype, entry.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        array = file.read(entry)
        assert array.dtype.name == entry.dtype and array.shape == entry.shape
        assert array.flags.c_contiguous and array.flags.writeable
        assert array.nbytes == entry.nbytes
        assert array.tobytes() == raw_of(tensor)
        assert (entry.offset >= 0) == tensor.is_contiguous()
        if entry.offset >= 0:
            assert content[entry.offset : entry.offset + entry.nbytes] == raw_of(tensor)


def make(dtype: str, *shape: int) -> torch.Tensor:
    count = int(np.prod(shape)) * getattr(torch, dtype).itemsize
    raw = torch.randint(0, 2 if dtype == "bool" else 256, (count,), dtype=torch.uint8)
    return raw.view(getattr(torch, dtype)).reshape(shape)


# What is read


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_and_shape(tmp_path: Path, dtype: str) -> None:
    tensors = {str(shape): make(dtype, *shape) for shape in [(), (1,), (7,), (3, 4), (2, 1, 5)]}
    tensors["empty"] = torch.empty(0, 3, dtype=getattr(torch, dtype))
    tensors["t"] = make(dtype, 3, 4).t()
    check_same(opened(tmp_path, tensors), tensors)


def test_views_ties_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(5, 12)
    parameter = torch.nn.Parameter(base)
    tensors = {
        "base": base,
        "tied": base,
        "parameter": parameter,
        "buffer": torch.nn.Buffer(torch.ones(3)),
        "row": base[2],
        "column": base[:, 3],
        "inner": base[1:3, 2:9],
        "steps": base[::2, ::3],
        "swapped": base.t(),
        "ones": base[1:2, 3:4].t(),
        "empty": base[5:],
        "diagonal": base.as_strided((5,), (13,), 0),
    }
    file = opened(tmp_path, tensors)
    check_same(file, tensors)
    assert file.entries["base"].offset == file.entries["tied"].offset == file.entries["parameter"].offset
    assert file.entries["row"].offset == file.entries["base"].offset + 2 * 12 * 4
    assert file.entries["ones"].offset >= 0
    assert file.metadata == {"format": "pt"}
    assert isinstance(file.stamp.size, int)
    container: Container = file
    assert container.path == tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_state_dict_with_its_metadata(tmp_path: Path, protocol: int) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = module.state_dict()
    assert state._metadata
    check_same(opened(tmp_path, state, pickle_protocol=protocol), dict(state))


@pytest.mark.parametrize("key", ["state_dict", "model", "anything"])
def test_a_nested_checkpoint(tmp_path: Path, key: str) -> None:
    state = torch.nn.Linear(3, 4).state_dict()
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]}
    file = opened(tmp_path, {key: state, "optimizer": optimizer, "epoch": 3, "shape": torch.Size([1]), "done": False})
    check_same(file, dict(state))


def test_what_stands_beside_tensors_is_named(tmp_path: Path) -> None:
    more = {"step": 7, "dtype": torch.float16, "on": torch.device("cpu"), "none": None, "rate": 0.5, "big": 2**70}
    file = opened(tmp_path, {"w": torch.ones(2), **more})
    assert list(file.entries) == ["w"]
    assert file.skipped == tuple(more)


def test_an_empty_state_dict(tmp_path: Path) -> None:
    assert opened(tmp_path, {}).entries == {}
    assert opened(tmp_path, OrderedDict()).entries == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a tensor"),
        (3, "holds a int"),
        ({"a": 1, "b": {"c": 2}}, "no dict of tensors by name; its keys are 'a', 'b'"),
        ({"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, "several dicts of tensors by name"),
        ({"w": torch.ones(1), 3: torch.ones(1)}, "a tensor has the key 3"),
    ],
)
def test_no_mapping_of_tensors(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(WeightsFormatError, match=words):
        opened(tmp_path, value)


def test_checksums_may_be_off(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        tensors = {"w": torch.arange(5.0), "v": torch.arange(6.0)[::2]}
        check_same(opened(tmp_path, tensors), tensors)
    finally:
        torch.serialization.set_crc32_options(True)


def test_an_archive_packed_anew(tmp_path: Path) -> None:
    source = zipfile.ZipFile(io.BytesIO(saved({"w": torch.arange(5.0)})))
    path = tmp_path / "again.bin"
    with zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    check_same(read_torch(path), {"w": torch.arange(5.0)})


def test_reference_files() -> None:
    for name in ("torch-bin", "torch-bin-sharded"):
        plain = read_header(BERT / "torch-safetensors" / "model.safetensors")
        seen: dict[str, Any] = {}
        for path in sorted((BERT / name).glob("*.bin")):
            file = read_torch(path)
            seen.update({key: (file, entry) for key, entry in file.entries.items()})
        assert set(plain.entries) <= set(seen)
        for key, entry in plain.entries.items():
            file, other = seen[key]
            assert (other.dtype, other.shape, other.nbytes) == (entry.dtype, entry.shape, entry.nbytes)
            np.testing.assert_array_equal(file.read(other), plain.read(entry))


def test_reference_files_of_half_precision() -> None:
    (path,) = (BERT / "torch-bin-fp16").glob("*.bin")
    expected = torch.load(path, weights_only=True)
    check_same(read_torch(path), dict(expected))
    assert {entry.dtype for entry in read_torch(path).entries.values()} >= {"float16"}


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from pretrained.checkpoint.formats.torch_zip import read_torch;"
        "f = read_torch(sys.argv[1]); [f.read(e) for e in f.entries.values()]; assert f.entries;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, BERT / "torch-bin" / "pytorch_model.bin"], check=True)


# Hostile pickles


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "torch\nFloatStorage", key: str = "0", numel: int = 4) -> bytes:
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(
    where: bytes | None = None, offset: int = 0, shape: Any = (4,), strides: Any = (1,), tail: bytes = b""
) -> bytes:
    where = storage() if where is None else where
    hooks = b"ccollections\nOrderedDict\n)R"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + where + number(offset) + numbers(*shape) + numbers(*strides) + b"\x89" + hooks + tail + b"tR"


def state(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(f"w{i}") + item for i, item in enumerate(items)) + b"u."


def archive(pickled: bytes, records: dict[str, bytes] | None = None, root: str = "archive") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two records with one name
        with zipfile.ZipFile(buffer, "w") as target:
            target.writestr(f"{root}/data.pkl", pickled)
            for name, raw in ({"data/0": bytes(16)} if records is None else records).items():
                target.writestr(f"{root}/{name}", raw)
    return buffer.getvalue()


def refuse(tmp_path: Path, raw: bytes, kind: type[PretrainedError] = WeightsFormatError) -> PretrainedError:
    """The error that a file of these bytes raises, checked for what every error must have."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        read_torch(path)
    error = caught.value
    assert type(error) is kind
    assert path.name in str(error) and error.path == str(path) and error.reason
    assert len(str(error).encode()) <= 2048
    return error


def test_the_pickles_built_here_are_right(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(archive(state(tensor()), {"data/0": np.arange(4, dtype="<f4").tobytes()}))
    file = read_torch(path)
    assert file.read(file.entries["w0"]).tolist() == [0, 1, 2, 3]


COMMAND = "touch MARKER"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (b"cos\nsystem\n(" + text(COMMAND) + b"tR", "os.system"),
        (b"cposix\nsystem\n(" + text(COMMAND) + b"tR", "posix.system"),
        (b"cbuiltins\neval\n(" + text("open('MARKER', 'w')") + b"tR", "builtins.eval"),
        (b"cbuiltins\nexec\n(" + text("open('MARKER', 'w')") + b"tR", "builtins.exec"),
        (b"cbuiltins\ngetattr\n(ctorch\nTensor\n" + text("x") + b"tR", "builtins.getattr"),
        (b"c__builtin__\ngetattr\n)R", "__builtin__.getattr"),
        (text("os") + text("system") + b"\x93(" + text(COMMAND) + b"tR", "os.system"),
        (text("torch") + text("serialization.os.system") + b"\x93", "torch.serialization.os.system"),
        (b"ctorch\nserialization.os.system\n(" + text(COMMAND) + b"tR", "torch.serialization.os.system"),
        (b"ctorch\n_utils._rebuild_tensor_v2\n", "torch._utils._rebuild_tensor_v2"),
        (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "_rebuild_sparse_tensor"),
        (b"ctorch\nfloat8_e4m3fnuz\n", "float8_e4m3fnuz"),
        (b"(" + text(COMMAND) + b"ios\nsystem\n", "os.system"),
        (b"(cos\nsystem\n" + text(COMMAND) + b"o", "os.system"),
        (b"(" + text(COMMAND) + b"o", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"ctorch\nTensor\n)\x81", "NEWOBJ"),
        (b"ctorch\nTensor\n)}\x92", "NEWOBJ_EX"),
        (b"P0\n", "PERSID"),
        (b"\xff", "0xff"),
        (b"I01\n", "0x49"),
        (b"ctorch\nTensor\n)R", "calls 'torch.Tensor'"),
        (b"ctorch\nFloatStorage\n)R", "calls 'torch.FloatStorage'"),
        (b"ccollections\nOrderedDict\n(}tR", "calls 'collections.OrderedDict'"),
        (b"ccollections\nOrderedDict\n(](K\x01etR", "something else than pairs"),
        (b"ctorch._utils\n_rebuild_parameter\n(K\x01tR", "calls 'torch._utils._rebuild_parameter'"),
        (text("x") + b")R", "calls a str"),
        (b"ctorch\nSize\n]R", "calls a torch.Size"),
        (b"}}b", "sets the state of a dict"),
        (b"ctorch\nTensor\n}b", "sets the state of a torch.Tensor"),
        (b"ccollections\nOrderedDict\n)R" + text("x") + b"b", "sets the state of a dict"),
        (b"K\x01K\x02\x93", "something else than text"),
        (b"c" + b"a" * 300 + b"\nx\n", "has no end"),
        (b"h\x07", "never remembered"),
        (b"t", "takes a mark"),
        (b"0" * 9, "takes a value"),
        (b"(q\x00", "takes a value"),
        (b"K\x01K\x02a", "no list"),
        (b"K\x01K\x02K\x03s", "no dict"),
        (b"}(K\x01u", "half an item"),
        (b"}]K\x01s", "key that is no text or number but a list"),
        (b"}(K\x01K\x01K\x01K\x01u", "key '1' twice"),
        (b"X\x01\x00\x00\x00\xff", "not UTF-8"),
        (b"X\xff\xff\xff\x7fabc", "cut off"),
        (b"\x8b\xff\xff\xff\x7f", "number of 2147483647 bytes"),
        (b"\x8a\x20" + bytes(32), "number of 32 bytes"),
        (b"Q", "not one of PyTorch's storages"),
        (b"K\x01Q", "not one of PyTorch's storages"),
        (b"(" + text("module") + b"tQ", "not one of PyTorch's storages"),
        (b"(" + text("storage") + text("cos") + text("0") + text("cpu") + b"K\x01tQ", "not one of PyTorch's storages"),
        (b"(" + text("storage") + b"ctorch\nTensor\n" + text("0") + text("cpu") + b"K\x01tQ", "not one of PyTorch"),
        (
            b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"\x88tQ",
            "not one of PyTorch",
        ),
        (b".", "does not end"),
        (b"(.", "does not end"),
    ],
)
def test_a_hostile_pickle_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: bytes, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refuse(tmp_path, archive(state(tensor(), item)))
    assert words in str(error.reason) and words in str(error)
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


def test_what_would_run_does_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = archive(state(b"cos\nsystem\n(" + text(COMMAND) + b"tR"), {"version": b"3\n"})
    torch.load(io.BytesIO(raw), weights_only=False)
    assert Path("MARKER").exists()  # so its absence in the other tests means something


@pytest.mark.parametrize("stop", range(60))
def test_a_pickle_cut_off(tmp_path: Path, stop: int) -> None:
    whole = state(tensor())
    refuse(tmp_path, archive(whole[: stop * len(whole) // 60]))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (tensor(storage(numel=2**40)), "the record has 16 bytes"),
        (tensor(storage(numel=2**100)), "the record has 16 bytes"),
        (tensor(storage(numel=-1)), "the record has 16 bytes"),
        (tensor(storage(numel=3)), "the record has 16 bytes"),
        (tensor(storage(key="9")), "is not in the file"),
        (tensor(storage(key="../data.pkl")), "is not in the file"),
        (tensor(offset=-1), "negative"),
        (tensor(offset=1), "reaches to element 4 of a storage of 4"),
        (tensor(offset=2**70), "reaches to element"),
        (tensor(shape=(-4,)), "negative"),
        (tensor(strides=(-1,)), "negative"),
        (tensor(shape=(5,)), "reaches to element 4"),
        (tensor(strides=(2,)), "reaches to element 6"),
        (tensor(shape=(2**40,), strides=(0,)), "repeats elements"),
        (tensor(shape=(2, 2, 2), strides=(1, 1, 1)), "repeats elements"),
        (tensor(shape=(2**62, 4), strides=(0, 1)), "impossible shape"),
        (tensor(shape=(2**64, 0), strides=(0, 1)), "impossible shape"),
        (tensor(shape=(2, 2), strides=(1,)), "2 dimensions and 1 strides"),
        (tensor(tail=b"}" + text("conj") + b"\x88s"), "by a flag"),
    ],
)
def test_an_impossible_tensor(tmp_path: Path, item: bytes, words: str) -> None:
    error = refuse(tmp_path, archive(state(item)), TensorError)
    assert error.tensor == "w0" and words in str(error.reason)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (tensor(b"K\x01"), "arguments that PyTorch never gives"),
        (tensor(storage("torch.storage\nUntypedStorage", numel=16)), "arguments that PyTorch never gives"),
        (tensor().replace(numbers(4), b"]"), "whole numbers"),
        (tensor().replace(numbers(4), b"(\x88t"), "whole numbers"),
        (tensor(storage()) + b"0" + tensor(storage("torch\nIntStorage")), "described in two ways"),
    ],
)
def test_a_tensor_of_the_wrong_things(tmp_path: Path, item: bytes, words: str) -> None:
    assert words in str(refuse(tmp_path, archive(state(item))).reason)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(tmp_path, archive(state(tensor(shape=(1,) * 65, strides=(1,) * 65))), ResourceLimitError)
    for item in (b"N" * 200_001, b"(" * 200_001):
        refuse(tmp_path, archive(state(item)), ResourceLimitError)
    monkeypatch.setattr(torch_pickle, "MAX_OBJECTS", 50)
    refuse(tmp_path, archive(state(b"](" + b"}" * 60 + b"e")), ResourceLimitError)
    refuse(tmp_path, archive(state(b"".join(b"Nq" + bytes([i]) + b"0" for i in range(60)))), ResourceLimitError)
    monkeypatch.setattr(torch_pickle, "MAX_OPS", 10)
    refuse(tmp_path, archive(state(b"N0" * 9)), ResourceLimitError)
    monkeypatch.setattr(torch_zip, "MAX_PICKLE", 10)
    refuse(tmp_path, archive(state(tensor())), ResourceLimitError)
    monkeypatch.setattr(torch_records, "MAX_RECORDS", 1)
    refuse(tmp_path, archive(state(tensor())), ResourceLimitError)


def test_too_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_zip, "MAX_TENSORS", 1)
    refuse(tmp_path, saved({"a": torch.ones(1), "b": torch.ones(1)}), ResourceLimitError)


def test_a_dict_that_holds_itself_and_a_deep_one() -> None:
    looped = read_pickle(b"\x80\x02}q\x00" + text("a") + b"h\x00s.")
    assert looped["a"] is looped
    assert read_pickle(b"\x80\x02" + b")" + b"\x85" * 100_000 + b".") is not None


def test_a_name_with_control_characters(tmp_path: Path) -> None:
    refuse(tmp_path, saved({"a\x1b[2Jb": torch.ones(1)}), TensorError)


def test_the_table_has_nothing_that_acts() -> None:
    modules = {module for module, _ in torch_globals.GLOBALS}
    assert modules == {
        *("collections", "torch", "torch.cuda", "torch._utils", "torch._tensor", "torch.nn.parameter", "torch.storage")
    }
    assert {found.kind for found in torch_globals.GLOBALS.values()} == {
        *("dict", "tensor", "tensor_v3", "parameter", "typed", "class", "size", "device", "storage", "dtype")
    }


# Archives that are not what they should be


def test_truncated_at_many_lengths(tmp_path: Path) -> None:
    raw = saved({"w": torch.arange(10.0), "v": torch.ones(3).half()})
    for stop in {*range(0, len(raw), 7), *range(len(raw) - 120, len(raw))}:
        refuse(tmp_path, raw[:stop])


@pytest.mark.parametrize("change", [lambda raw: raw + b"\0", lambda raw: b"\0" + raw, lambda raw: raw + raw])
def test_junk_before_and_after(tmp_path: Path, change: Any) -> None:
    refuse(tmp_path, change(saved({"w": torch.arange(10.0)})))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "data//0", "./x", "a\\b", "x\x1b", "data/"])
def test_a_slip_name(tmp_path: Path, name: str) -> None:
    error = refuse(tmp_path, archive(state(tensor()), {"data/0": bytes(16), name: b""}), UntrustedPathError)
    assert "impossible name" in str(error)


@pytest.mark.parametrize("root", ["/abs", "..", "C:/x"])
def test_a_root_that_leads_elsewhere(tmp_path: Path, root: str) -> None:
    refuse(tmp_path, archive(state(tensor()), root=root), UntrustedPathError)


def edited(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert old in raw and len(old) == len(new)
    return raw.replace(old, new)


def test_duplicate_names_and_two_roots(tmp_path: Path) -> None:
    good = archive(state(tensor()), {"data/0": bytes(16), "data/1": bytes(16)})
    assert "two records named" in str(refuse(tmp_path, edited(good, b"archive/data/1", b"archive/data/0")))
    assert "several roots" in str(refuse(tmp_path, edited(good, b"archive/data/1", b"brchive/data/1")))


def test_local_and_central_headers_that_differ(tmp_path: Path) -> None:
    good = archive(state(tensor()), {"data/0": bytes(16), "data/1": bytes(16)})
    at = good.index(b"archive/data/1")
    assert "another one" in str(refuse(tmp_path, good[:at] + b"archive/data/2" + good[at + 14 :]))
    header = at - 30
    for offset in (6, 8, 14, 18, 22):
        changed = bytearray(good)
        changed[header + offset] ^= 1
        refuse(tmp_path, bytes(changed))


def test_records_that_overlap(tmp_path: Path) -> None:
    good = bytearray(archive(state(tensor()), {"data/0": bytes(100)}))
    inner = archive(state(tensor()), {"data/0": bytes(16)})
    first = good.rindex(b"PK\x01\x02")
    good[first + 42 : first + 46] = (5).to_bytes(4, "little")
    refuse(tmp_path, bytes(good))
    # A record whose local header lies in the bytes of another one.
    local = inner[inner.index(b"archive/data/0") - 30 :][: 30 + 14 + 16]
    outer = bytearray(archive(state(tensor()), {"data/0": bytes(16), "data/x": local}))
    at = bytes(outer).rindex(local)
    central = bytes(outer).rindex(b"archive/data/0") - 46
    outer[central + 42 : central + 46] = at.to_bytes(4, "little")
    assert "overlap" in str(refuse(tmp_path, bytes(outer)))


def test_compressed_and_encrypted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", state(tensor()))
        target.writestr("archive/data/0", bytes(16))
    assert "is compressed" in str(refuse(tmp_path, buffer.getvalue()))
    good = bytearray(archive(state(tensor())))
    good[good.rindex(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted" in str(refuse(tmp_path, bytes(good)))


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"byteorder": b"big"}, "big-endian"),
        ({"byteorder": b"middle"}, "unknown byte order"),
        ({"constants.pkl": b"x"}, "TorchScript"),
        ({"code/__torch__.py": b"x"}, "TorchScript"),
    ],
)
def test_other_archives(tmp_path: Path, records: dict[str, bytes], words: str) -> None:
    assert words in str(refuse(tmp_path, archive(state(tensor()), {"data/0": bytes(16), **records})))


def test_a_comment_and_a_zip_of_something_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("model.weights.h5", b"x")
    assert "data.pkl" in str(refuse(tmp_path, buffer.getvalue()))
    with zipfile.ZipFile(buffer, "a") as target:
        target.comment = b"hello"
    refuse(tmp_path, buffer.getvalue())


def test_wrong_checksums(tmp_path: Path) -> None:
    raw = saved({"w": torch.full((64,), 3.0), "part": torch.full((64,), 5.0)[3:9]})
    broken = bytearray(raw)
    broken[raw.index(b"_rebuild_tensor_v2")] ^= 1
    assert "checksum" in str(refuse(tmp_path, bytes(broken)))
    broken = bytearray(raw)
    broken[raw.index(struct.pack("<f", 3) * 8)] ^= 1
    broken[raw.index(struct.pack("<f", 5) * 8)] ^= 1  # before the part that is viewed
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(broken)
    file = read_torch(path)
    for entry in [*file.entries.values()] * 2:
        with pytest.raises(WeightsFormatError, match="checksum") as caught:
            file.read(entry)
        assert caught.value.tensor == entry.name


def test_a_bool_that_is_none(tmp_path: Path) -> None:
    kind = "torch\nBoolStorage"
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(archive(state(tensor(storage(kind))), {"data/0": b"\0\1\2\3"}))
    file = read_torch(path)
    with pytest.raises(TensorError, match="neither 0 nor 1"):
        file.read(file.entries["w0"])


def other_files() -> list[tuple[bytes, str]]:
    return [
        (b"archive" + b"\0" * 250 + b"ustar" + b"\0" * 300, "checksum"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!doctype html><html></html>", "an HTML page"),
        (b"GGUF" + bytes(100), "a GGUF file"),
        (b"\x08\0\0\0\0\0\0\0{}      ", "a safetensors file"),
        (b"", "is empty"),
        (b"\x80\x04N.", "looks like a pickle"),
        (b"\xa7\xb8\xc9" * 90, "do not begin as one does"),
    ]


@pytest.mark.parametrize(("raw", "words"), other_files())
def test_other_files_are_named(tmp_path: Path, raw: bytes, words: str) -> None:
    error = refuse(tmp_path, raw)
    assert words in str(error)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        read_torch(tmp_path / "none.bin")
    with pytest.raises(WeightsFormatError, match="a folder"):
        read_torch(tmp_path)


# Reading


def test_a_file_that_changed(tmp_path: Path) -> None:
    file = opened(tmp_path, {"w": torch.ones(3)})
    (entry,) = file.entries.values()
    with pytest.raises(TensorError, match="no such entry"):
        file.read(entry._replace(nbytes=8))
    torch.save({"w": torch.ones(300)}, file.path)
    with pytest.raises(CheckpointChangedError, match="changed"):
        file.read(entry)
    file.path.unlink()
    with pytest.raises(CheckpointChangedError):
        file.read(entry)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(list(FDS.iterdir()))
    file = opened(tmp_path, {"w": torch.ones(3), "t": torch.ones(3, 2).t()})
    for entry in file.entries.values():
        file.read(entry)
    for raw in (b"PK\x03\x04", archive(state(b"cos\nsystem\n"))):
        refuse(tmp_path, raw)
    assert len(list(FDS.iterdir())) == before


def test_flipped_bytes(tmp_path: Path) -> None:
    """Whatever is flipped: an error of ours, or tensors that are described and read as before."""
    raw = saved({"w": torch.arange(12.0).reshape(3, 4), "t": torch.ones(4, 2, dtype=torch.bfloat16).t()})
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(raw)
    good = read_torch(path)
    expected = {name: (entry, good.read(entry).tobytes()) for name, entry in good.entries.items()}
    source = random.Random(0)
    for at in range(source.randrange(3), len(raw), 3):
        flipped = bytearray(raw)
        flipped[at] ^= source.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        path.write_bytes(flipped)
        try:
            file = read_torch(path)
            found = {name: (entry, file.read(entry).tobytes()) for name, entry in file.entries.items()}
        except PretrainedError:
            continue
        assert found == expected


def test_flipped_pickles(tmp_path: Path) -> None:
    """The same where no checksum protects the pickle: an error of ours, or tensors within their records."""
    whole = state(tensor(), tensor(offset=1, shape=(1, 2), strides=(2, 1)))
    source = random.Random(1)
    path = tmp_path / "pytorch_model.bin"
    for _ in range(500):
        flipped = bytearray(whole)
        for _ in range(source.choice([1, 1, 2, 5])):
            flipped[source.randrange(len(whole))] = source.randrange(256)
        path.write_bytes(archive(bytes(flipped)))
        try:
            file = read_torch(path)
        except PretrainedError:
            continue
        assert all(file.read(entry).nbytes == entry.nbytes <= 16 for entry in file.entries.values())
