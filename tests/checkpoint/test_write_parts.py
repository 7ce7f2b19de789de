"""Tensors written in parts, by one process or by several: the file is the one that a single writer makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.numpy_backend import bytes_of

from pretrained import saving, saving_together
from pretrained.checkpoint import write_parts
from pretrained.checkpoint.boxes import Box, slices_of, whole
from pretrained.checkpoint.commit import Stage
from pretrained.checkpoint.formats import safetensors
from pretrained.checkpoint.formats.safetensors import Outgoing, read_header
from pretrained.checkpoint.group import MAX_MESSAGE, agree
from pretrained.checkpoint.plan_save import Stored
from pretrained.checkpoint.rules import Permute, Reshape
from pretrained.checkpoint.write_parts import Part, Parts, assembled, runs
from pretrained.errors import CheckpointBusyError, InvalidOptionError, SaveError
from pretrained.options import SaveOptions
from pretrained.report import SaveReport

Array = np.ndarray[Any, Any]


def cut(array: Array, edges: list[list[int]]) -> list[Part]:
    """The array in a grid of parts, cut along each axis at these places."""
    boxes: list[Box] = [()]
    for dim, places in zip(array.shape, edges, strict=True):
        ends = sorted({0, *(place % (dim + 1) for place in places), dim})
        boxes = [(*box, span) for box in boxes for span in pairwise(ends)]
    return [Part(box, array[slices_of(box)].copy()) for box in boxes]


@st.composite
def grids(draw: st.DrawFn) -> tuple[Array, list[Part]]:
    shape = draw(st.lists(st.integers(1, 6), min_size=0, max_size=4))
    edges = [draw(st.lists(st.integers(0, dim), max_size=2)) for dim in shape]
    array = np.arange(int(np.prod(shape)), dtype=np.int16).reshape(shape)
    return array, draw(st.permutations(cut(array, edges)))


def filled(parts: Parts, like: Array) -> bytes:
    buffer = bytearray(like.nbytes)
    for offset, piece in runs(parts, like.itemsize):
        buffer[offset : offset + len(piece)] = piece
    return bytes(buffer)


@settings(deadline=None)
@given(grids(), st.sampled_from([2, 14, 2**20]), st.data())
def test_runs_are_the_bytes_of_the_parts(case: tuple[Array, list[Part]], window: int, data: st.DataObject) -> None:
    array, parts = case
    chosen = data.draw(st.lists(st.sampled_from(parts), unique_by=id))
    expected = np.zeros_like(array)
    for part in chosen:
        expected[slices_of(part.box)] = part.array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_parts, "WINDOW", window)
        assert filled(Parts(array.shape, parts), array) == array.tobytes()
        assert filled(Parts(array.shape, chosen), array) == expected.tobytes()
        assert all(len(piece) <= max(window, 2) for _, piece in runs(Parts(array.shape, parts), 2))
    assert np.array_equal(assembled(Parts(array.shape, parts)), array)


@settings(deadline=None)
@given(grids(), st.data())
def test_layouts_are_changed_part_by_part(case: tuple[Array, list[Part]], data: st.DataObject) -> None:
    array, parts = case
    ops: list[Any] = [Permute(tuple(data.draw(st.permutations(range(array.ndim)))))]
    turned = ops[0].apply(array)
    if data.draw(st.booleans()):
        ops.append(Reshape(turned.shape, (turned.size,)))
    if data.draw(st.booleans()):
        ops = [Reshape(array.shape, (1, *array.shape)), Reshape((1, *array.shape), array.shape), *ops]
    assert filled(Parts(array.shape, parts).after(ops), array) == turned.tobytes()


def test_a_reshape_in_the_middle_needs_the_whole() -> None:
    array = np.arange(24).reshape(4, 6)
    ops = [Reshape((4, 6), (2, 2, 6)), Permute((1, 0, 2))]
    parts = cut(array, [[2], []])
    assert filled(Parts((4, 6), parts).after(ops), array) == array.reshape(2, 2, 6).transpose(1, 0, 2).tobytes()
    with pytest.raises(SaveError, match=r"a tensor \[4, 6\] that is spread over processes cannot be laid out by"):
        Parts((4, 6), parts[:1]).after(ops)
    assert Parts((4, 6), []).after(ops).parts == []


ARRAYS: dict[str, Array] = {
    "rows": np.arange(7 * 5, dtype=np.float32).reshape(7, 5),
    "wide": np.arange(32 * 48, dtype=np.float16).reshape(32, 48),
    "brain": np.arange(64).reshape(8, 8).astype(ml_dtypes.bfloat16),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 4), np.float32),
}


def stored() -> list[Stored]:
    return [Stored(name, array.dtype.name, array.shape) for name, array in ARRAYS.items()]


def save(folder: Path, **keywords: Any) -> SaveReport:
    return saving.save(folder, stored(), lambda name: bytes_of(ARRAYS[name]), **keywords)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def all_parts(name: str) -> list[Part]:
    array = ARRAYS[name]
    return cut(array, [[1, 3], [2, 16]][: array.ndim])


@pytest.mark.parametrize("size", ["5GB", "500"])
def test_one_process_writes_parts(size: str, tmp_path: Path) -> None:
    options = SaveOptions(max_shard_size=size)
    save(tmp_path / "whole", options=options)
    parts = {name: lambda name=name: Parts(ARRAYS[name].shape, all_parts(name)) for name in ARRAYS}
    save(tmp_path / "parts", options=options, parts_of=parts)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_parts_that_are_not_all(tmp_path: Path) -> None:
    parts = {"rows": lambda: Parts((7, 5), all_parts("rows")[1:])}
    with pytest.raises(InvalidOptionError, match="tensor 'rows': its parts are 132 bytes of 140"):
        save(tmp_path / "f", options=SaveOptions(), parts_of=parts)
    assert not (tmp_path / "f").exists()


# Several processes; here they are threads


class Threads:
    """The Group protocol for threads."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.said: list[bytes] = [b""] * size
        self.size = size


class Member:
    def __init__(self, threads: Threads, index: int) -> None:
        self.threads, self.index, self.size = threads, index, threads.size

    def gather(self, message: bytes) -> list[bytes]:
        assert len(message) <= MAX_MESSAGE
        try:
            self.threads.said[self.index] = message
            self.threads.barrier.wait()
            said = list(self.threads.said)
            self.threads.barrier.wait()
        except threading.BrokenBarrierError:
            raise SaveError("cannot save together: another is gone") from None
        return said


def together(size: int, work: Callable[[Member], Any]) -> list[Any]:
    """What `work` returns or raises in each of `size` threads."""
    threads, results = Threads(size), [None] * size

    def go(index: int) -> None:
        try:
            results[index] = work(Member(threads, index))
        except BaseException as error:
            results[index] = error

    started = [threading.Thread(target=go, args=(index,)) for index in range(size)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(30)
    return results


def parts_for(member: Member) -> Mapping[str, Callable[[], Parts]]:
    """Every tensor's parts dealt out in turn."""
    return {
        name: lambda name=name: Parts(ARRAYS[name].shape, all_parts(name)[member.index :: member.size])
        for name in ARRAYS
    }


def save_in(folder: Path, **keywords: Any) -> Callable[[Member], SaveReport]:
    def work(member: Member) -> SaveReport:
        given = {"parts_of": parts_for(member), "texts": {"config.json": "{}"}, **keywords}
        return save(folder, options=SaveOptions(max_shard_size=given.pop("size", "5GB")), group=member, **given)

    return work


@pytest.mark.parametrize("size", ["5GB", "500"])
@pytest.mark.parametrize("num", [1, 2, 3])
def test_several_write_what_each_has(num: int, size: str, tmp_path: Path) -> None:
    save(tmp_path / "whole", options=SaveOptions(max_shard_size=size), texts={"config.json": "{}"})
    (tmp_path / "together").mkdir()
    (tmp_path / "together" / "model-00001-of-00099.safetensors").write_bytes(b"old")
    reports = together(num, save_in(tmp_path / "together", size=size))
    assert contents(tmp_path / "together") == contents(tmp_path / "whole")
    assert all(report.files == reports[0].files for report in reports)
    assert reports[0].files == {name: len(text) for name, text in contents(tmp_path / "whole").items()}
    assert reports[0].removed == ["model-00001-of-00099.safetensors"]
    assert read_header(next((tmp_path / "together").glob("*.safetensors"))).metadata["format"] == "pt"


def fails_in(index: int, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes one member's part of the save raise what a full disk raises."""
    full = OSError(28, "No space left on device")
    if where == "write":
        real, threads = safetensors.write_into, iter(range(100))

        def write_into(path: Any, planned: Any, **options: Any) -> int:
            if next(threads) == index:
                raise full
            return real(path, planned, **options)

        monkeypatch.setattr(safetensors, "write_into", write_into)
    else:
        monkeypatch.setattr(
            safetensors if where == "create" else saving_together, where, lambda *args: (_ for _ in ()).throw(full)
        )


@pytest.mark.parametrize(("index", "where"), [(0, "create"), (0, "write"), (1, "write"), (0, "finish")])
def test_what_one_cannot_do_none_has_done(
    index: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, options=SaveOptions())
    before = contents(tmp_path)
    fails_in(index, where, monkeypatch)
    results = together(2, save_in(tmp_path))
    assert all(isinstance(result, SaveError) for result in results), results
    assert all("No space left on device" in str(result) for result in results)
    assert any(isinstance(result, SaveError) and "of 2: " in str(result) for result in results)
    assert contents(tmp_path) == before


def test_one_that_dies_leaves_the_old(tmp_path: Path) -> None:
    save(tmp_path, options=SaveOptions())
    before = contents(tmp_path)

    def work(member: Member) -> Any:
        if member.index == 1:
            member.threads.barrier.abort()
            return None
        return save_in(tmp_path)(member)

    results = together(2, work)
    assert isinstance(results[0], SaveError)
    assert contents(tmp_path) == before


def test_after_the_commit_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = saving_together.finish

    def work(member: Member) -> Any:
        if member.index == 0:

            def then_alone(*args: Any) -> SaveReport:
                report = finish(*args)
                member.threads.barrier.abort()
                return report

            monkeypatch.setattr(saving_together, "finish", then_alone)
        return save_in(tmp_path)(member)

    results = together(2, work)
    assert results[0].committed is True
    assert "the new checkpoint is committed to" in str(results[0])
    assert "model.safetensors" in contents(tmp_path)


def test_a_folder_that_is_not_shared(tmp_path: Path) -> None:
    def work(member: Member) -> SaveReport:
        return save_in(tmp_path / ("here" if member.index == 0 else "elsewhere"))(member)

    results = together(2, work)
    assert all("must be on a file system that all share" in str(result) for result in results)
    assert list(tmp_path.iterdir()) == []


def test_two_that_save_different_models(tmp_path: Path) -> None:
    def work(member: Member) -> SaveReport:
        return save_in(tmp_path, metadata={"mine": str(member.index)})(member)

    assert all("was made by another process for other tensors" in str(result) for result in together(2, work))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_somebody_else_saves_to(tmp_path: Path) -> None:
    with Stage(tmp_path):
        results = together(2, save_in(tmp_path))
    assert isinstance(results[0], CheckpointBusyError)
    assert isinstance(results[1], SaveError)
    assert str(results[1]).startswith("process 0 of 2: another process or thread is saving")


def test_what_is_said_is_heard_by_all() -> None:
    assert together(3, lambda member: agree(member, lambda: f"{member.index}")) == [["0", "1", "2"]] * 3
    assert together(1, lambda member: agree(member, lambda: None)) == [[""]]
    long = "é" * 5000

    def work() -> None:
        raise ValueError(long)

    found = together(2, lambda member: agree(member, work if member.index else lambda: None))
    assert isinstance(found[0], SaveError) and "process 1 of 2: é" in str(found[0])
    assert isinstance(found[1], ValueError)


def test_a_file_that_is_there_before(tmp_path: Path) -> None:
    planned = safetensors.layout(tmp_path / "f", [Outgoing("x", "float32", (4,), lambda: b"")], {})
    safetensors.create(tmp_path / "f", planned)
    assert (tmp_path / "f").stat().st_size == planned.size
    with pytest.raises(FileExistsError):
        safetensors.create(tmp_path / "f", planned)
    assert safetensors.write_into(tmp_path / "f", planned, durable=True) == 0
    array = np.arange(4, dtype=np.float32)
    mine = Outgoing("x", "float32", (4,), lambda: b"", lambda: Parts((4,), [Part(whole((4,)), array)]))
    planned = safetensors.layout(tmp_path / "f", [mine], {})
    assert safetensors.write_into(tmp_path / "f", planned, durable=True) == 16
    header = read_header(tmp_path / "f")
    assert np.array_equal(header.read(header.entries["x"]), array)
    assert json.dumps(dict(header.metadata)) == '{"format": "pt"}'
