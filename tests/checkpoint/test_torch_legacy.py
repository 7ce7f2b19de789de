"""PyTorch's old files, streams and tar archives: read as torch reads them; whatever else they ask for is refused."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrained.checkpoint.formats import torch_legacy, torch_pickle
from pretrained.checkpoint.formats.safetensors import read_header
from pretrained.checkpoint.formats.torch_zip import TorchFile, read_torch
from pretrained.errors import PretrainedError, ResourceLimitError, TensorError, UntrustedPathError, WeightsFormatError

BERT = Path(__file__).parents[1] / "reference" / "bert"
FDS = Path("/proc/self/fd")
DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "float16", "bfloat16"),
    *("float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
]


def stream_of(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, **options)
    return buffer.getvalue()


def put(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(raw)
    return path


def check_same(file: TorchFile, tensors: dict[str, torch.Tensor]) -> None:
    """Every tensor is there, reads as torch has it, and lies in the file where its entry says."""
    assert list(file.entries) == list(tensors)
    content = file.path.read_bytes()
    for name, tensor in tensors.items():
        entry = file.entries[name]
        assert (entry.dtype, entry.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        expected = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        array = file.read(entry)
        assert array.dtype.name == entry.dtype and array.shape == entry.shape and array.flags.writeable
        assert array.tobytes() == expected
        assert (entry.offset >= 0) == tensor.is_contiguous()
        if entry.offset >= 0:
            assert content[entry.offset : entry.offset + entry.nbytes] == expected


def refuse(tmp_path: Path, raw: bytes, kind: type[PretrainedError] = WeightsFormatError) -> PretrainedError:
    """The error that a file of these bytes raises, checked for what every error must have."""
    path = put(tmp_path, raw)
    with pytest.raises(kind) as caught:
        read_torch(path)
    error = caught.value
    assert type(error) is kind
    assert path.name in str(error) and error.path == str(path) and error.reason
    assert len(str(error).encode()) <= 2048
    return error


# Streams


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype(tmp_path: Path, dtype: str) -> None:
    raw = torch.randint(0, 2, (96 * 2,), dtype=torch.uint8)
    values = raw.view(torch.bool) if dtype == "bool" else raw.view(getattr(torch, dtype))
    tensors = {"w": values, "m": values[:12].reshape(3, 4), "t": values[:12].reshape(3, 4).t(), "one": values[3]}
    check_same(read_torch(put(tmp_path, stream_of(tensors))), tensors)


def test_views_ties_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(5, 12)
    tensors = {
        "base": base,
        "tied": base,
        "parameter": torch.nn.Parameter(base),
        "row": base[2],
        "column": base[:, 3],
        "inner": base[1:3, 2:9],
        "swapped": base.t(),
        "empty": base[5:],
        "other": torch.ones(3, dtype=torch.int64),
    }
    file = read_torch(put(tmp_path, stream_of(tensors)))
    check_same(file, tensors)
    assert file.entries["base"].offset == file.entries["tied"].offset
    assert file.metadata == {"format": "pt"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_and_nesting(tmp_path: Path, protocol: int) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = module.state_dict()
    check_same(read_torch(put(tmp_path, stream_of(state, pickle_protocol=protocol))), dict(state))
    nested = {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    check_same(read_torch(put(tmp_path, stream_of(nested, pickle_protocol=protocol))), dict(state))


def test_a_pickle_longer_than_a_window(tmp_path: Path) -> None:
    tensors = {f"a.rather.long.name.of.a.tensor.{i}": torch.full((2,), float(i)) for i in range(2000)}
    raw = stream_of(tensors)
    check_same(read_torch(put(tmp_path, raw)), tensors)


def test_the_same_as_torch_reads(tmp_path: Path) -> None:
    state = torch.load(BERT / "torch-bin" / "pytorch_model.bin", weights_only=True)
    path = put(tmp_path, stream_of(state))
    file, plain = read_torch(path), read_header(BERT / "torch-safetensors" / "model.safetensors")
    assert set(plain.entries) <= set(file.entries)
    for name, entry in plain.entries.items():
        np.testing.assert_array_equal(file.read(file.entries[name]), plain.read(entry))


def test_a_stream_of_python_2(tmp_path: Path) -> None:
    """There, text is of the kind that BINSTRING stands for, and an OrderedDict is made of a list of lists."""
    hooks = b"ccollections\nOrderedDict\n]\x85R"
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x019U\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x02\x85K\x01\x85\x89" + hooks + b"tR"
    state = b"\x80\x02ccollections\nOrderedDict\n](](U\x01w" + tensor + b"e](T\x02\x00\x00\x00bb" + tensor + b"ee\x85R."
    parts = [pickle.dumps(torch_legacy.MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps({}, 2), state]
    raw = b"".join([*parts, pickle.dumps(["9"], 2), struct.pack("<q2f", 2, 1.5, -2.0)])
    assert list(torch.load(io.BytesIO(raw), weights_only=False)) == ["w", "bb"]
    check_same(read_torch(put(tmp_path, raw)), {"w": torch.tensor([1.5, -2.0]), "bb": torch.tensor([1.5, -2.0])})


def written(item: bytes, data: bytes = struct.pack("<q4f", 4, 0, 1, 2, 3), keys: Any = ("0",)) -> bytes:
    """A stream whose dict has `item` as its one value."""
    parts = [pickle.dumps(value, 2) for value in (torch_legacy.MAGIC, 1001, {"little_endian": True})]
    return b"".join([*parts, b"\x80\x02}X\x01\0\0\0w" + item + b"s.", pickle.dumps(list(keys), 2), data])


def tensor_of(storage: str, call: str = "K\0K\x02\x85K\x01\x85") -> bytes:
    return f"ctorch._utils\n_rebuild_tensor\n({storage}{call}tR".encode("latin1")


def storage_of(tail: str = "N", numel: str = "K\x04", name: str = "torch\nFloatStorage") -> str:
    return f"(X\x07\0\0\0storagec{name}\nX\x01\0\0\0" + f"0X\x03\0\0\0cpu{numel}{tail}tQ"


def test_a_part_of_a_storage(tmp_path: Path) -> None:
    """Files of the first releases name a part of a storage by (key, first element, number)."""
    raw = written(tensor_of(storage_of("(X\x01\0\0\0vK\x01K\x03t"), "K\x01K\x02\x85K\x01\x85"))
    assert torch.load(io.BytesIO(raw), weights_only=False)["w"].tolist() == [2, 3]
    file = read_torch(put(tmp_path, raw))
    assert file.read(file.entries["w"]).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (tensor_of(storage_of("(X\x01\0\0\0vK\x01K\x04t")), "its part of the storage"),
        (tensor_of(storage_of("(X\x01\0\0\0vJ\xff\xff\xff\xffK\x03t")), "its part of the storage"),
        (tensor_of(storage_of("(X\x01\0\0\0vK\x01J\xff\xff\xff\xfft")), "its part of the storage"),
        (tensor_of(storage_of("(X\x01\0\0\0vK\x03K\x01t")), "reaches to element 1 of a storage of 1"),
        (tensor_of(storage_of(), "K\x04K\x02\x85K\x01\x85"), "reaches to element 5 of a storage of 4"),
        (tensor_of(storage_of(), "K\x00K\x02\x85J\xff\xff\xff\xff\x85"), "negative"),
        (tensor_of(storage_of(numel="\x8a\x06\0\0\0\0\0\x01")), "should have 1099511627776 elements"),
        (tensor_of(storage_of(numel="J\xff\xff\xff\xff")), "should have -1 elements, and 4 are announced"),
        (tensor_of(storage_of(name="torch\nDoubleStorage")), "cut off: the storage '0' has 32 bytes, and 16 are left"),
    ],
)
def test_an_impossible_tensor(tmp_path: Path, item: bytes, words: str) -> None:
    error = refuse(tmp_path, written(item), TensorError)
    assert error.tensor == "w" and words in str(error.reason)


GOOD = tensor_of(storage_of())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (written(GOOD, keys=[]), "the file goes on for 24 bytes"),
        (written(GOOD, keys=["0", "0"]), "lists the storage '0' twice"),
        (written(GOOD, keys=["0", "1"]), "lists the storage '1' and has no tensor of it"),
        (written(GOOD, keys=[0]), "does not list its storages"),
        (written(GOOD, keys=[]).removesuffix(struct.pack("<q4f", 4, 0, 1, 2, 3)), "not in the file"),
        (written(GOOD) + b"\0", "goes on for 1 bytes after its last storage"),
        (written(GOOD).replace(pickle.dumps(1001, 2), pickle.dumps(1000, 2)), "another version"),
        (written(GOOD).replace(pickle.dumps({"little_endian": True}, 2), pickle.dumps(3, 2)), "the system"),
        (written(b"cos\nsystem\n(X\x0c\0\0\0touch MARKERtR"), "os.system"),
        (written(b"(X\x06\0\0\0moduleNNNtQ"), "not one of PyTorch's storages"),
        (written(tensor_of(storage_of("K\x01"))), "not one of PyTorch's storages"),
        (written(tensor_of(storage_of("(K\x01K\x01K\x01t"))), "not one of PyTorch's storages"),
        (written(GOOD).replace(pickle.dumps(1001, 2), b"\x80\x02" + b")" + b"\x85" * 3000 + b"."), "another version"),
    ],
)
def test_a_wrong_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, raw)
    with pytest.raises(WeightsFormatError) as caught:
        read_torch(path)
    assert words in str(caught.value) and caught.value.path == str(path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_storage_that_nothing_uses_is_checked_too(tmp_path: Path) -> None:
    raw = stream_of({"state_dict": {"w": torch.ones(2)}, "other": {0: torch.ones(900, dtype=torch.float64)}})
    check_same(read_torch(put(tmp_path, raw)), {"w": torch.ones(2)})
    refuse(tmp_path, raw[:-1] if raw.endswith(struct.pack("<d", 1)) else raw + b"x")


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_legacy, "MAX_PICKLE", 5000)
    refuse(tmp_path, stream_of({f"name.{i}": torch.ones(1) for i in range(100)}), ResourceLimitError)
    refuse(tmp_path, written(b"X\xff\xff\xff\x7fabc"))


def test_dicts_made_of_one_list_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is recalled takes two bytes, and a dict made of it as much memory as the list is long."""
    pairs = b"](" + b"".join(b"](X" + struct.pack("<I", 4) + b"%04d" % i + b"Ne" for i in range(500)) + b"e"
    item = b"](ccollections\nOrderedDict\nq\x00" + pairs + b"q\x01\x85R" + b"h\x00h\x01\x85R" * 2000 + b"e"
    monkeypatch.setattr(torch_pickle, "MAX_OBJECTS", 100_000)
    assert "objects" in str(refuse(tmp_path, written(item), ResourceLimitError))


def check_damaged(tmp_path: Path, raw: bytes, expected: dict[str, Any], *, may_differ: bool) -> bool:
    """Whether the bytes are read; then to the tensors there should be, or to other values of the same description."""
    path = put(tmp_path, raw)
    try:
        file = read_torch(path)
        found = {name: (entry, file.read(entry).tobytes()) for name, entry in file.entries.items()}
    except PretrainedError as error:
        message = str(error)
    else:
        assert may_differ or found == expected
        assert all(entry.nbytes == len(values) <= len(raw) for entry, values in found.values())
        return True
    assert path.name in message and len(message.encode()) <= 2048
    return False


def some_tensors() -> dict[str, torch.Tensor]:
    return {"w": torch.arange(12.0).reshape(3, 4), "t": torch.ones(4, 2, dtype=torch.bfloat16).t()}


def contents(path: Path) -> dict[str, Any]:
    file = read_torch(path)
    return {name: (entry, file.read(entry).tobytes()) for name, entry in file.entries.items()}


@pytest.mark.parametrize("form", ["stream", "tar"])
def test_truncated_at_every_length(tmp_path: Path, form: str) -> None:
    raw = stream_of(some_tensors()) if form == "stream" else archive(some_tensors())
    expected = contents(put(tmp_path, raw))
    for stop in range(0, len(raw), 1 if form == "stream" else 13):
        is_read = check_damaged(tmp_path, raw[:stop], expected, may_differ=False)
        assert not is_read or (form == "tar" and not raw[stop - 1024 :].strip(b"\0"))


@pytest.mark.parametrize("form", ["stream", "tar"])
def test_flipped_bytes(tmp_path: Path, form: str) -> None:
    """No checksum protects these: an error of ours, or tensors within the file."""
    raw = stream_of(some_tensors()) if form == "stream" else archive(some_tensors())
    put(tmp_path, raw)
    source = random.Random(0)
    for at in range(0, len(raw.rstrip(b"\0")), 1 if form == "stream" else 7):
        flipped = bytearray(raw)
        flipped[at] ^= source.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        check_damaged(tmp_path, bytes(flipped), {}, may_differ=True)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(list(FDS.iterdir()))
    for raw in (stream_of(some_tensors()), archive(some_tensors())):
        contents(put(tmp_path, raw))
        refuse(tmp_path, raw[:300])
    assert len(list(FDS.iterdir())) == before


# Tar archives


class Referring(pickle.Pickler):
    """Writes a tensor as the number under which the archive has it."""

    def persistent_id(self, thing: Any) -> str | None:
        return str(id(thing)) if isinstance(thing, torch.Tensor) else None


def members_of(tensors: dict[str, torch.Tensor], views: bool = False) -> dict[str, bytes]:
    """The members of an archive as releases before 0.1.10 wrote it: all numbers little-endian and of 64 bits."""
    kinds = {t.data_ptr(): t.untyped_storage() for t in tensors.values()}
    roots = {storage.data_ptr(): storage for storage in kinds.values()}
    storages = [pickle.dumps(len(roots), 2)]
    dtypes = {tensor.untyped_storage().data_ptr(): tensor.dtype for tensor in tensors.values()}
    for key, storage in roots.items():
        name = torch.empty(0, dtype=dtypes[key]).type().removeprefix("torch.").replace("Tensor", "Storage")
        numel = storage.nbytes() // dtypes[key].itemsize
        storages.append(pickle.dumps((key, "cpu", getattr(torch, name)), 2))
        storages.append(struct.pack("<q", numel) + bytes(storage))
    offsets = {tensor.data_ptr(): tensor.storage_offset() for tensor in tensors.values()} if views else {}
    listed = [
        (key + 1, tensor.untyped_storage().data_ptr(), offsets[key], tensor.numel())
        for key, tensor in {tensor.data_ptr(): tensor for tensor in tensors.values()}.items()
        if views
    ]
    storages.append(pickle.dumps(listed, 2))
    described = [pickle.dumps(len({id(tensor) for tensor in tensors.values()}), 2)]
    for tensor in {id(tensor): tensor for tensor in tensors.values()}.values():
        kind = getattr(torch, torch.empty(0, dtype=tensor.dtype).type().removeprefix("torch."))
        root = tensor.data_ptr() + 1 if views else tensor.untyped_storage().data_ptr()
        described.append(pickle.dumps((id(tensor), root, kind), 2))
        offset = 0 if views else tensor.storage_offset()
        described.append(struct.pack("<ii", tensor.dim(), 0))
        described.append(struct.pack(f"<{2 * tensor.dim() + 1}q", *tensor.shape, *tensor.stride(), offset))
    buffer = io.BytesIO()
    Referring(buffer, 2).dump(OrderedDict(tensors))
    info = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)
    parts = {"pickle": buffer.getvalue(), "tensors": b"".join(described), "storages": b"".join(storages)}
    return {"sys_info": info, **parts}


def pack(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as target:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            for field, value in fields.items():
                setattr(member, field, value)
            target.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def archive(tensors: dict[str, torch.Tensor]) -> bytes:
    return pack(members_of(tensors))


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_archive(tmp_path: Path, form: int, views: bool) -> None:
    base = torch.arange(24.0)
    shared = torch.ones(3, 2, dtype=torch.float16)
    tensors = {"w": base.reshape(4, 6), "tied": shared, "again": shared, "n": torch.arange(5)}
    if not views:
        tensors |= {"t": base.reshape(4, 6).t(), "part": base[3:9], "cut": base[::2]}
    raw = pack(members_of(tensors, views), form)
    path = put(tmp_path, raw)
    theirs = torch.load(path, weights_only=False)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in tensors.items())
    file = read_torch(path)
    check_same(file, tensors)
    assert file.entries["tied"].offset == file.entries["again"].offset


def test_times_and_owners_in_extended_headers(tmp_path: Path) -> None:
    """torch added files from a disk, and Python notes their times with fractions in a header of their own."""
    raw = pack(members_of(some_tensors()), mtime=1480000000.25, uid=2**40)
    assert b"mtime=1480000000.25\n" in raw and b" uid=" in raw
    check_same(read_torch(put(tmp_path, raw)), some_tensors())
    members = members_of(some_tensors())
    size = {"size": str(len(members["storages"]))}
    wide = pack({"storages": members["storages"]}, pax_headers=size)
    rest = pack({name: raw for name, raw in members.items() if name != "storages"})
    assert b" size=" in wide
    check_same(
        read_torch(put(tmp_path, wide[: 1536 + -(-len(members["storages"]) // 512) * 512] + rest)), some_tensors()
    )


@pytest.mark.parametrize("pax", [{"path": "storages"}, {"linkpath": "x"}, {"GNU.sparse.size": "9"}, {"size": "-1"}])
def test_an_extended_header_that_redirects(tmp_path: Path, pax: dict[str, str]) -> None:
    assert "never writes" in str(refuse(tmp_path, pack(members_of(some_tensors()), pax_headers=pax)))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../b", "./storages", "a\\b", "C:x", "x\n"])
def test_a_slip_name(tmp_path: Path, name: str) -> None:
    raw = pack({**members_of(some_tensors()), name: b"x"}, tarfile.USTAR_FORMAT)
    error = refuse(tmp_path, raw, UntrustedPathError)
    assert "member of the archive" in str(error)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.DIRTYPE, "a folder"),
        (b"S", "of the kind b'S'"),
    ],
)
def test_a_member_that_is_no_file(tmp_path: Path, kind: bytes, words: str) -> None:
    members = members_of(some_tensors())
    linked = pack({"storages": b""}, tarfile.USTAR_FORMAT, type=kind, linkname="/etc/passwd")
    raw = linked[:512] + pack({name: raw for name, raw in members.items() if name != "storages"})
    error = refuse(tmp_path, raw)
    assert words in str(error) and error.key.rstrip("/") == "storages"


def edited(name: str, edit: Any) -> bytes:
    members = members_of({"w": torch.arange(4.0)})
    members[name] = edit(members[name])
    return pack(members)


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (edited("storages", lambda raw: raw + b"\0"), "'storages' of the archive goes on for 1 bytes"),
        (edited("tensors", lambda raw: raw + b"\0"), "'tensors' of the archive goes on for 1 bytes"),
        (edited("pickle", lambda raw: raw + b"\0"), "'pickle' of the archive goes on for 1 bytes"),
        (edited("storages", lambda raw: raw.replace(number(1), number(2), 1)), "describes a storage"),
        (edited("storages", lambda raw: raw.replace(number(1), number(-1), 1)), "impossible number of entries"),
        (edited("storages", lambda raw: raw.replace(number(1), number(2**70), 1)), "impossible number of entries"),
        (edited("storages", lambda raw: raw.replace(b"FloatStorage", b"EvilStorage")), "torch.EvilStorage"),
        (edited("storages", lambda raw: raw.replace(b"FloatStorage", b"DoubleStorage")), "is cut off"),
        (edited("storages", lambda raw: raw.replace(struct.pack("<q", 4), struct.pack("<q", -4))), "announced"),
        (edited("storages", lambda raw: raw.replace(struct.pack("<q", 4), struct.pack("<q", 2**60))), "is cut off"),
        (edited("storages", lambda raw: raw[:-4] + pickle.dumps([(1, 2, 3, 4)], 2)), "describes a view"),
        (edited("storages", lambda raw: raw[:-4] + number(7)), "does not list the views"),
        (edited("storages", lambda raw: raw[:40]), "cut off"),
        (edited("tensors", lambda raw: raw[:-8]), "cut off"),
        (edited("tensors", lambda raw: raw.replace(struct.pack("<ii", 1, 0), struct.pack("<ii", -1, 0))), "-1 dim"),
        (edited("tensors", lambda raw: raw.replace(struct.pack("<ii", 1, 0), struct.pack("<ii", 65, 0))), "65 dim"),
        (edited("tensors", lambda raw: raw.replace(b"FloatTensor", b"EvilTensors")), "torch.EvilTensors"),
        (edited("pickle", lambda raw: raw.replace(b"collections", b"os\nsystem\nx")), "os.system"),
        (edited("pickle", lambda raw: b"\x80\x02}X\x01\0\0\0wX\x01\0\0\x007Qs."), "refers to '7'"),
        (edited("pickle", lambda raw: b"\x80\x02}X\x01\0\0\0w)Qs."), "refers to 'tuple'"),
        (pack({"storages": b""}), "no member 'tensors'"),
        (pack({"x": b""} | {f"m{i}": b"" for i in range(200)}), "more than 64 members"),
    ],
)
def test_a_wrong_archive(tmp_path: Path, raw: bytes, words: str) -> None:
    path = put(tmp_path, raw)
    with pytest.raises((WeightsFormatError, ResourceLimitError)) as caught:
        read_torch(path)
    assert words in str(caught.value) and caught.value.path == str(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (struct.pack("<3q", 4, 1, 0), struct.pack("<3q", 4, 1, 1), "reaches to element 4"),
        (struct.pack("<3q", 4, 1, 0), struct.pack("<3q", 4, -1, 0), "negative"),
        (struct.pack("<3q", 4, 1, 0), struct.pack("<3q", 2**62, 0, 0), "impossible shape"),
        (struct.pack("<3q", 4, 1, 0), struct.pack("<3q", 2**40, 0, 0), "repeats elements"),
    ],
)
def test_an_impossible_tensor_of_an_archive(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    error = refuse(tmp_path, edited("tensors", lambda raw: raw.replace(old, new)), TensorError)
    assert error.tensor == "w" and words in str(error)


def test_two_members_of_one_name_and_a_wrong_end(tmp_path: Path) -> None:
    raw = archive(some_tensors())
    body = raw.rstrip(b"\0")
    body = body.ljust(-(-len(body) // 512) * 512, b"\0")
    assert "two members named" in str(refuse(tmp_path, body + raw))
    assert "does not end as one should" in str(refuse(tmp_path, body + bytes(1024) + b"x"))
    assert "does not end as one should" in str(refuse(tmp_path, body + bytes(512)))
    assert "does not end as one should" in str(refuse(tmp_path, body + bytes(2 << 20)))
    assert "has no end" in str(refuse(tmp_path, body))
    assert "checksum" in str(refuse(tmp_path, b"X" + raw[1:]))


# Loaded


@pytest.mark.parametrize("form", ["stream", "tar"])
def test_a_model_is_loaded_from_an_old_file(tmp_path: Path, form: str) -> None:
    from pretrained import AutoModel

    state = torch.load(BERT / "torch-bin" / "pytorch_model.bin", weights_only=True)
    raw = stream_of(state) if form == "stream" else archive(state)
    folder = tmp_path / "bert"
    folder.mkdir()
    shutil.copy(BERT / "torch-bin" / "config.json", folder)
    put(folder, raw)
    model, expected = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(BERT / "torch-safetensors")
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_shards_of_both_kinds(tmp_path: Path) -> None:
    from pretrained import AutoModel

    folder = shutil.copytree(BERT / "torch-bin-sharded", tmp_path / "bert")
    for number, path in enumerate(sorted(folder.glob("*.bin"))):
        state = torch.load(path, weights_only=True)
        path.write_bytes(archive(state) if number % 2 else stream_of(state))
    ours = AutoModel.from_pretrained(folder).state_dict()
    theirs = AutoModel.from_pretrained(BERT / "torch-safetensors").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
