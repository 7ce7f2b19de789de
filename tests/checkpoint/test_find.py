"""Which files are the weights, from names and headers; and what is said when there are none."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrained.checkpoint.commit import Stage
from pretrained.checkpoint.find import Weights, find_checkpoint, is_weight_file, settle, single_name, variant_name
from pretrained.checkpoint.formats.safetensors import Outgoing, read_header, write
from pretrained.checkpoint.index import dump_index
from pretrained.errors import (
    PretrainedError,
    ShardIndexError,
    SourceError,
    TensorError,
    UntrustedPathError,
    WeightsFormatError,
)
from pretrained.hub.snapshot import FolderSnapshot
from pretrained.options import WeightOptions

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
ANY = WeightOptions()


def put(folder: Path, name: str, *tensors: str, metadata: dict[str, str] | None = None) -> None:
    outgoing = [Outgoing(tensor, "float32", (2,), lambda: np.zeros(2, np.float32)) for tensor in tensors]
    folder.mkdir(exist_ok=True, parents=True)
    write(folder / name, outgoing, metadata or {})


def put_shards(folder: Path, index: str = INDEX, shards: Sequence[str] = SHARDS) -> None:
    put(folder, shards[0], "a", "b")
    put(folder, shards[1], "c")
    (folder / index).write_bytes(dump_index({"a": shards[0], "b": shards[0], "c": shards[1]}, {"total_size": 24}))


def find(folder: Path, options: WeightOptions = ANY, only: str | None = None) -> Weights:
    return find_checkpoint(FolderSnapshot(folder, str(folder), only=only), options)


def refuse(
    folder: Path, kind: type[PretrainedError], options: WeightOptions = ANY, only: str | None = None
) -> PretrainedError:
    with pytest.raises(kind) as caught:
        find(folder, options, only)
    assert len(str(caught.value).encode()) <= 2048
    return caught.value


def test_a_single_file(tmp_path: Path) -> None:
    put(tmp_path, SINGLE, "a", "b")
    weights = find(tmp_path)
    assert list(weights.entries) == ["a", "b"]
    assert list(weights.containers) == [tmp_path / SINGLE]
    assert (weights.index, weights.unlisted, weights.nbytes) == (None, [], 16)


def test_shards(tmp_path: Path) -> None:
    put_shards(tmp_path)
    weights = find(tmp_path)
    assert {name: entry.file.name for name, entry in weights.entries.items()} == {
        "a": SHARDS[0],
        "b": SHARDS[0],
        "c": SHARDS[1],
    }
    assert weights.index is not None
    assert sorted(path.name for path in weights.containers) == sorted(SHARDS)


def test_variants(tmp_path: Path) -> None:
    put(tmp_path, SINGLE, "plain")
    put(tmp_path, "model.fp16.safetensors", "half")
    put_shards(
        tmp_path, "model.safetensors.index.8bit.json", [f"model.8bit-0000{i}-of-00002.safetensors" for i in (1, 2)]
    )
    assert list(find(tmp_path).entries) == ["plain"]
    assert list(find(tmp_path, WeightOptions(variant="fp16")).entries) == ["half"]
    assert list(find(tmp_path, WeightOptions(variant="8bit")).entries) == ["a", "b", "c"]
    assert single_name("fp16") == "model.fp16.safetensors"
    assert variant_name(INDEX, "fp16") == "model.safetensors.index.fp16.json"
    assert is_weight_file("model.fp16.safetensors", "fp16")
    assert not is_weight_file("model.fp16.safetensors")


@pytest.mark.parametrize(
    "variant", ["..", "../x", "/etc", "a/b", "a\\b", "", "a b", ".x", "a\0", "a\n", "x" * 5000, "a..b", "日本"]
)
def test_a_variant_stays_a_word(variant: str, tmp_path: Path) -> None:
    put(tmp_path, SINGLE, "a")
    error = refuse(tmp_path, UntrustedPathError, WeightOptions(variant=variant))
    assert error.key == "variant"


# Messages


@pytest.mark.parametrize(
    ("present", "options", "expected"),
    [
        ([], ANY, "looked for model.safetensors or model.safetensors.index.json or pytorch_model.bin or"),
        (["README.md", "x.txt"], ANY, "there is README.md, x.txt"),
        (["weights.h5", "config.json"], ANY, "there is weights.h5, which is another format or name"),
        (
            ["weights.h5", "weights.msgpack"],
            ANY,
            "there is weights.h5, weights.msgpack, which is another format",
        ),
        (["a.gguf", "b.gguf"], ANY, "or *.gguf; there is a.gguf, b.gguf; gguf_file= says which of them"),
        (["a.gguf"], WeightOptions(variant="fp16"), "there is a.gguf, which is another format or name"),
        (["a.gguf"], WeightOptions(use_safetensors=True), "there is a.gguf, which is another format or name"),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
            WeightOptions(use_safetensors=True),
            "there is pytorch_model-00001-of-00002.bin, pytorch_model.bin.index.json (no variant)",
        ),
        (["other.safetensors"], ANY, "there is other.safetensors, which is another format or name"),
        (["model.fp16.safetensors"], ANY, "there is model.fp16.safetensors (variant='fp16')"),
        (["model.safetensors.index.bf16.json"], ANY, "(variant='bf16')"),
        (["model.fp16-00001-of-00002.safetensors"], ANY, "(variant='fp16')"),
        (
            [SINGLE],
            WeightOptions(variant="fp16"),
            "looked for model.fp16.safetensors or model.safetensors.index.fp16.json",
        ),
        ([SINGLE], WeightOptions(variant="fp16"), "there is model.safetensors (no variant)"),
        (["model.fp16.safetensors", "model.8bit.safetensors"], WeightOptions(variant="fp61"), "(variant='fp16')"),
        (
            [SINGLE],
            WeightOptions(use_safetensors=False),
            "use_safetensors=False leaves out the rest; there is model.safetensors (no variant)",
        ),
    ],
)
def test_what_was_looked_for_and_what_is_there(
    present: list[str], options: WeightOptions, expected: str, tmp_path: Path
) -> None:
    for name in present:
        (tmp_path / name).write_bytes(b"")
    error = refuse(tmp_path, SourceError, options)
    assert expected in str(error)
    assert str(tmp_path) in str(error)
    assert error.path == str(tmp_path)
    assert isinstance(error, OSError)


def test_many_long_names_fit_into_the_message(tmp_path: Path) -> None:
    for i in range(50):
        (tmp_path / f"{i:02}{'x' * 200}").write_bytes(b"")
    refuse(tmp_path, SourceError)


def test_use_safetensors_decides_between_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_containers(path: Path, name: str, sibling: Any) -> Any:
        opened.append(name)
        return [read_header(tmp_path / SINGLE)]

    monkeypatch.setattr("pretrained.checkpoint.opening.open_containers", open_containers)
    put(tmp_path, SINGLE, "a")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for use_safetensors in (None, True, False):
        find(tmp_path, WeightOptions(use_safetensors=use_safetensors))
    assert opened == [SINGLE, SINGLE, "pytorch_model.bin"]
    (tmp_path / "pytorch_model.bin").unlink()
    refuse(tmp_path, SourceError, WeightOptions(use_safetensors=False))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"", "empty"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"PK\x03\x04" + b"x" * 40, "zip"),
    ],
)
def test_another_kind_of_file_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(content)
    error = refuse(tmp_path, WeightsFormatError)
    assert what in str(error)
    assert error.path == str(tmp_path / SINGLE)


# Index and shards


def test_a_single_file_beside_an_index_that_does_not_list_it(tmp_path: Path) -> None:
    put_shards(tmp_path)
    put(tmp_path, SINGLE, "old")
    error = refuse(tmp_path, ShardIndexError)
    assert "two checkpoints in one folder" in str(error)
    assert error.key == SINGLE
    assert list(find(tmp_path, only=SINGLE).entries) == ["old"]
    assert list(find(tmp_path, only=INDEX).entries) == ["a", "b", "c"]
    put(tmp_path / "other", "model.fp16.safetensors", "half")
    put_shards(tmp_path / "other")
    assert list(find(tmp_path / "other").entries) == ["a", "b", "c"]  # another variant is no conflict


def test_an_index_that_lists_the_single_file(tmp_path: Path) -> None:
    put(tmp_path, SINGLE, "a")
    (tmp_path / INDEX).write_bytes(dump_index({"a": SINGLE}, {}))
    assert list(find(tmp_path).entries) == ["a"]


def test_a_missing_shard_is_named_with_a_tensor(tmp_path: Path) -> None:
    put_shards(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    error = refuse(tmp_path, ShardIndexError)
    assert f"1 of 2 shards are missing, {SHARDS[1]} with c among them" in str(error)
    assert (error.tensor, error.key) == ("c", SHARDS[1])


def test_unlisted_tensors_are_loaded_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_shards(tmp_path)
    (tmp_path / INDEX).write_bytes(dump_index({"a": SHARDS[0], "c": SHARDS[1]}, {}))
    with caplog.at_level(logging.WARNING):
        weights = find(tmp_path)
    assert weights.unlisted == ["b"]
    assert list(weights.entries) == ["a", "b", "c"]
    assert "does not list 1 tensors of its shards: b" in caplog.text


def test_a_listed_tensor_that_no_shard_has(tmp_path: Path) -> None:
    put_shards(tmp_path)
    (tmp_path / INDEX).write_bytes(dump_index({"a": SHARDS[0], "zz": SHARDS[1]}, {}))
    assert refuse(tmp_path, ShardIndexError).tensor == "zz"


def test_a_damaged_shard(tmp_path: Path) -> None:
    put_shards(tmp_path)
    content = (tmp_path / SHARDS[1]).read_bytes()
    (tmp_path / SHARDS[1]).write_bytes(content[:-1])
    error = refuse(tmp_path, TensorError)
    assert (error.tensor, error.path) == ("c", str(tmp_path / SHARDS[1]))


@pytest.mark.parametrize(
    "shard", ["../model-00001-of-00002.safetensors", "/etc/passwd", "https://x/y.safetensors", "a\\b", ""]
)
def test_an_index_that_points_out_of_its_folder(shard: str, tmp_path: Path) -> None:
    put_shards(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    refuse(tmp_path, UntrustedPathError)


@pytest.mark.parametrize("name", [SINGLE, INDEX, SHARDS[0]])
def test_a_link_out_of_the_folder(name: str, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    put_shards(outside)
    put(outside, SINGLE, "a")
    inside.mkdir()
    if name != SINGLE:
        put_shards(inside)
        (inside / name).unlink()
    (inside / name).symlink_to(outside / name)
    refuse(inside, UntrustedPathError)


def test_a_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    put(tmp_path / "real", SINGLE, "a")
    put(tmp_path, "stored.safetensors", "a")
    (tmp_path / SINGLE).symlink_to("stored.safetensors")
    assert list(find(tmp_path).entries) == ["a"]


# A file by its name


def test_one_file_by_its_name(tmp_path: Path) -> None:
    put(tmp_path, "mine.safetensors", "x")
    put(tmp_path, SINGLE, "a")
    assert list(find(tmp_path, only="mine.safetensors").entries) == ["x"]
    put_shards(tmp_path, "model.safetensors.index.fp16.json")
    assert list(find(tmp_path, only="model.safetensors.index.fp16.json").entries) == ["a", "b", "c"]
    (tmp_path / "config.json").write_text("{}")
    assert refuse(tmp_path, WeightsFormatError, only="config.json").path == str(tmp_path / "config.json")


# Second names in the metadata


def test_second_names_of_a_file(tmp_path: Path) -> None:
    notes = {"format": "pt", "tied": "a", "gone": "absent", "b": "a", "note": "anything"}
    put(tmp_path, SINGLE, "a", "b", metadata=notes)
    assert find(tmp_path).aliases == {"tied": "a"}


def test_second_names_of_shards_stay_within_the_file(tmp_path: Path) -> None:
    put(tmp_path, SHARDS[0], "a", "b", metadata={"x": "a", "y": "c", "c": "b"})
    put(tmp_path, SHARDS[1], "c", metadata={"z": "c", "x": "c"})
    (tmp_path / INDEX).write_bytes(dump_index({"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]}, {}))
    aliases = dict(find(tmp_path).aliases)
    assert aliases.pop("x") in ("a", "c")
    assert aliases == {"z": "c"}


# Snapshots


class Remote:
    """A snapshot without a folder."""

    name, commit, folder = "org/name", "0" * 40, None

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.fetched: list[str] = []

    def names(self) -> list[str]:
        return sorted(self.files)

    def path(self, name: str) -> Path:
        self.fetched.append(name)
        return self.files[name]

    def fetch(self, names: list[str]) -> None:
        raise AssertionError(names)

    def source(self, name: str) -> None:
        """It is not streamed."""


def test_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    put(tmp_path, "blob", "a")
    (tmp_path / "bin").write_bytes(b"x")
    remote: Any = Remote({SINGLE: tmp_path / "blob", "pytorch_model.bin": tmp_path / "bin"})
    assert list(find_checkpoint(remote, ANY).entries) == ["a"]
    assert remote.fetched == [SINGLE]
    empty: Any = Remote({"weights.h5": tmp_path / "bin"})
    with pytest.raises(SourceError, match="no weights in org/name"):
        find_checkpoint(empty, ANY)
    assert empty.fetched == []
    assert settle(empty) is empty


def test_a_cache_may_call_a_file_as_it_likes(tmp_path: Path) -> None:
    """The reader is the one that the name in the repository asks for."""
    put(tmp_path, "0123abc", "a")
    remote: Any = Remote({"pytorch_model.bin": tmp_path / "0123abc"})
    with pytest.raises(WeightsFormatError, match="no PyTorch file: it looks like a safetensors file"):
        find_checkpoint(remote, ANY)


def test_a_folder_without_a_save_half_done_is_itself(tmp_path: Path) -> None:
    put(tmp_path, SINGLE, "a")
    snapshot = FolderSnapshot(tmp_path, "x")
    assert settle(snapshot) is snapshot


def test_a_recorded_save_is_seen_as_if_it_were_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `recover` can only read, it says which files stand for which."""
    put(tmp_path, SINGLE, "old")
    put(tmp_path / "stage", "new.safetensors", "new")
    overlay = {SINGLE: None, "mine.safetensors": tmp_path / "stage" / "new.safetensors"}
    monkeypatch.setattr("pretrained.checkpoint.find.recover", lambda folder: overlay)
    seen = settle(FolderSnapshot(tmp_path, "x", commit="c", only="mine.safetensors"))
    assert seen.names() == ["mine.safetensors"]
    assert seen.path("mine.safetensors") == tmp_path / "stage" / "new.safetensors"
    assert seen.path("other") == tmp_path / "other"
    assert (seen.name, seen.commit, seen.folder) == ("x", "c", tmp_path)
    assert list(find_checkpoint(seen, ANY).entries) == ["new"]  # the file that was named, not whatever there is


def test_saved_and_found(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        put(tmp_path / "made", SINGLE, "a")
        os.replace(tmp_path / "made" / SINGLE, stage.path(SINGLE))
        stage.commit()
    assert list(find(tmp_path).entries) == ["a"]
