"""Writing a checkpoint anew: from any container, to the bit, in the memory of one tensor, all or nothing."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint.convert import cast, convert
from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats.memory import MEMORY, StateDict
from pretrained.checkpoint.formats.safetensors import Outgoing, read_header, write
from pretrained.checkpoint.windows import numpy_dtype
from pretrained.errors import CheckpointChangedError, InvalidOptionError, SaveError
from pretrained.hub.snapshot import FolderSnapshot
from pretrained.options import WeightOptions

FLOATS = ["float16", "bfloat16", "float32", "float64"]
BITS = {2: (np.uint16, torch.int16), 4: (np.uint32, torch.int32), 8: (np.uint64, torch.int64)}


def opened(folder: Path) -> Weights:
    return find_checkpoint(FolderSnapshot(folder, str(folder)), WeightOptions())


def in_memory(**arrays: Any) -> Weights:
    container = StateDict(arrays, lambda x: (x.shape, x.dtype.name))
    return Weights({MEMORY: container}, container.entries)


def write_folder(folder: Path, metadata: dict[str, str] | None = None, **arrays: np.ndarray) -> Weights:
    folder.mkdir()
    outgoing = [
        Outgoing(name, a.dtype.name, a.shape, lambda a=a: np.ascontiguousarray(a)) for name, a in arrays.items()
    ]
    write(folder / "model.safetensors", outgoing, metadata or {})
    return opened(folder)


def to_torch(array: np.ndarray) -> torch.Tensor:
    bits, _ = BITS[array.dtype.itemsize]
    return torch.from_numpy(array.view(bits).copy()).view(getattr(torch, array.dtype.name))


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", FLOATS)
def test_a_cast_is_torch_s_to_the_bit(source: str, target: str) -> None:
    """On every finite 16-bit value, and on random wider ones of every magnitude."""
    if source in ("float16", "bfloat16"):
        values = np.arange(2**16, dtype=np.uint16).view(numpy_dtype(source))
        values = values[np.isfinite(values.astype(np.float32))]
    else:
        rng = np.random.default_rng(0)
        values = (rng.standard_normal(200_000) * np.exp(rng.uniform(-85, 85, 200_000))).astype(source)
        halves = rng.standard_normal(100_000).astype(np.float32).astype(np.float64)
        near = (halves * (1 + 2.0 ** -rng.integers(8, 52, 100_000))).astype(source)  # close to a tie between two values
        values = np.concatenate([values, near, np.array([0.0, -0.0, np.inf, -np.inf], source)])
    expected = to_torch(values).to(getattr(torch, target))
    found = np.empty(values.size, numpy_dtype(target))
    lost = cast(values, found)
    bits, torch_bits = BITS[found.dtype.itemsize]
    assert np.array_equal(found.view(bits), expected.view(torch_bits).numpy().view(bits))
    assert lost == int((torch.isfinite(to_torch(values)) & ~torch.isfinite(expected)).sum())


@settings(deadline=None)
@given(st.lists(st.floats(width=64), max_size=50))
def test_nan_stays_nan(values: list[float]) -> None:
    source = np.array(values)
    found = np.empty(source.size, ml_dtypes.bfloat16)
    cast(source, found)
    assert np.array_equal(np.isnan(found), np.isnan(source))


def test_windows_of_one_tensor_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((7, 11)).astype(np.float32)
    weights = write_folder(tmp_path / "a", x=array)
    from pretrained.checkpoint import convert as module
    from pretrained.checkpoint import windows as source

    monkeypatch.setattr(module, "windows", lambda container, entry: source.windows(container, entry, 12))
    convert(weights, tmp_path / "b", dtype="bfloat16")
    found = opened(tmp_path / "b")
    (container,) = found.containers.values()
    assert np.array_equal(container.read(found.entries["x"]), array.astype(ml_dtypes.bfloat16))


def test_from_a_container_that_is_no_file(tmp_path: Path) -> None:
    arrays = {
        "w": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "big_endian": np.arange(3, dtype=">f4"),
        "ids": np.array([1, 2]),
        "flag": np.array(True),
        "none": np.zeros((0, 4), np.float32),
        "bf": np.ones(3, ml_dtypes.bfloat16),
    }
    report = convert(in_memory(**arrays), tmp_path / "out")
    weights = opened(tmp_path / "out")
    for name, array in arrays.items():
        entry = weights.entries[name]
        found = weights.containers[entry.file].read(entry)
        assert found.shape == array.shape
        assert np.array_equal(found, array)
    assert (report.num_tensors, report.num_cast, report.renamed) == (6, 0, {})
    assert report.files.keys() == {"model.safetensors"}
    report = convert(in_memory(**arrays), tmp_path / "half", dtype=np.float16)
    assert report.num_cast == 4
    dtypes = {name: entry.dtype for name, entry in opened(tmp_path / "half").entries.items()}
    assert dtypes == dict.fromkeys(arrays, "float16") | {"ids": "int64", "flag": "bool"}


def test_packed_types_and_scales_are_not_cast(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    raw = np.array([0x21, 0x43], np.uint8)
    outgoing = [
        Outgoing("packed", "float4_e2m1fn_x2", (4,), lambda: raw),
        Outgoing("scale", "float8_e8m0fnu", (2,), lambda: raw),
        Outgoing("w", "float32", (1,), lambda: np.ones(1, np.float32)),
    ]
    write(tmp_path / "a/model.safetensors", outgoing, {})
    report = convert(opened(tmp_path / "a"), tmp_path / "b", dtype="float16")
    assert report.not_cast == ["packed", "scale"]
    container = read_header(tmp_path / "b/model.safetensors")
    assert {name: entry.dtype for name, entry in container.entries.items()} == {
        "packed": "float4_e2m1fn_x2",
        "scale": "float8_e8m0fnu",
        "w": "float16",
    }
    before = read_header(tmp_path / "a/model.safetensors")
    assert (container.read(container.entries["packed"]) == before.read(before.entries["packed"])).all()


def test_notes_go_with_their_tensor(tmp_path: Path) -> None:
    notes = {"format": "mlx", "made_by": "me", "head.weight": "emb.weight"}
    weights = write_folder(tmp_path / "a", notes, **{"emb.weight": np.zeros(8, "f4"), "x": np.zeros(8, "f4")})
    convert(weights, tmp_path / "b", max_shard_size=32, key_mapping={"^emb": "embed"})
    found = {c.path.name: dict(c.metadata) for c in opened(tmp_path / "b").containers.values()}
    assert found == {
        "model-00001-of-00002.safetensors": {"format": "mlx", "made_by": "me", "head.weight": "embed.weight"},
        "model-00002-of-00002.safetensors": {"format": "mlx", "made_by": "me"},
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8_e4m3fn"}, "needs scales, which is quantisation"),
        ({"dtype": "int8"}, "floating tensors can be converted to"),
        ({"dtype": "nothing"}, "is no dtype"),
        ({"max_shard_size": 0}, "must be positive"),
        ({"key_mapping": {"^.": "x"}}, "makes 'x' of two tensors, 'a' and 'b'"),
        ({"key_mapping": {"a": r"\1"}}, "invalid group reference"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    weights = in_memory(a=np.zeros(1, "f4"), b=np.zeros(1, "f4"))
    with pytest.raises(InvalidOptionError, match=words.replace("(", r"\(")):
        convert(weights, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_fails_on_the_way_leaves_the_target_alone(tmp_path: Path) -> None:
    weights = write_folder(tmp_path / "a", x=np.zeros(100, "f4"), y=np.ones(100, "f4"))
    target = tmp_path / "b"
    convert(weights, target, files={"config.json": b"{}"})
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def change(_: int) -> None:
        with (tmp_path / "a/model.safetensors").open("ab") as file:
            file.write(b"x")

    with pytest.raises(CheckpointChangedError, match=r"model\.safetensors: tensor 'y'"):
        convert(weights, target, max_shard_size=400, progress=change)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="it is a file, not a folder"):
        convert(in_memory(x=np.zeros(1)), tmp_path / "file")


def test_in_place_and_removals(tmp_path: Path) -> None:
    weights = write_folder(tmp_path / "a", x=np.arange(100, dtype="f4"), y=np.ones(100, "f4"))
    (tmp_path / "a/SHA256SUMS").write_text("")
    report = convert(weights, tmp_path / "a", max_shard_size=400, remove=["SHA256SUMS", "not-there"])
    assert report.removed == ["SHA256SUMS", "model.safetensors"]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    weights = opened(tmp_path / "a")
    entry = weights.entries["x"]
    assert np.array_equal(weights.containers[entry.file].read(entry), np.arange(100, dtype="f4"))


def test_progress_comes_to_all_bytes(tmp_path: Path) -> None:
    counts: list[int] = []
    convert(in_memory(x=np.zeros(3), y=np.zeros(5, "f4")), tmp_path / "out", progress=counts.append)
    assert sorted(counts) == [20, 24]


MEASURE = """
import resource
import sys
from pathlib import Path
import ml_dtypes, numpy
from pretrained.checkpoint.convert import convert
from pretrained.checkpoint.find import find_checkpoint
from pretrained.hub.snapshot import FolderSnapshot
from pretrained.options import WeightOptions
weights = find_checkpoint(FolderSnapshot(Path(sys.argv[1]), "a"), WeightOptions())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(weights, sys.argv[2], dtype=sys.argv[3] or None, max_shard_size="60MB", durable=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_memory_is_that_of_one_tensor(dtype: str, tmp_path: Path) -> None:
    """200 MB in tensors of 25: one of them, a window and what numpy wants for it stay below 100 MB."""
    arrays = {f"x{i}": np.full((1250, 5000), i, np.float32) for i in range(8)}
    write_folder(tmp_path / "a", **arrays)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "a"), str(tmp_path / "b"), dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    assert int(done.stdout) * unit < 100e6
    assert sum(entry.nbytes for entry in opened(tmp_path / "b").entries.values()) == (100e6 if dtype else 200e6)


def test_one_huge_tensor_is_not_held_twice(tmp_path: Path) -> None:
    """A cast holds the result and windows, never the source: 100 MB become 50 MB plus a few windows."""
    weights = write_folder(tmp_path / "a", x=np.ones((5000, 5000), np.float32))
    tracemalloc.start()
    convert(weights, tmp_path / "b", dtype="bfloat16", durable=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6 + 3 * (16 << 20)
