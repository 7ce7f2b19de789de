"""The index of shards: what is refused before a shard is opened, and what is refused once all are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrained.checkpoint.formats.safetensors import Outgoing, read_header, write
from pretrained.checkpoint.index import ShardIndex, check_shards, dump_index, read_index
from pretrained.checkpoint.tensors import Container
from pretrained.errors import (
    InvalidOptionError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    UntrustedPathError,
)

NAME = "model.safetensors.index.json"
REFERENCE = Path(__file__).parents[1] / "reference"


def check_message(error: PretrainedError, path: Path) -> None:
    assert len(str(error).encode()) <= 2048
    assert path.name in str(error)
    assert error.path == str(path)
    assert error.reason
    assert all(char.isprintable() or char == "\n" for char in str(error))


def refuse(path: Path, text: str | bytes, kind: type[PretrainedError] = ShardIndexError) -> PretrainedError:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(kind) as caught:
        read_index(path)
    assert type(caught.value) is kind
    check_message(caught.value, path)
    return caught.value


def mapping(shard: Any, *more: Any) -> str:
    return json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate((shard, *more))}})


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("model.safetensors.index.json", "model-00001-of-00002.safetensors"),
        ("model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"),
        ("tf_model.h5.index.json", "tf_model-00001-of-00002.h5"),
        ("my index.json", "tf_model.hdf5"),
        ("flax_model.msgpack.index.json", "sub/flax_model-00001-of-00002.msgpack"),
        ("my index.json", "moi🤗.pt"),
    ],
)
def test_an_index_is_read(name: str, shard: str, tmp_path: Path) -> None:
    path = tmp_path / name
    metadata = {"total_size": 10, "id": "x", "nested": {"a": [1]}}
    path.write_bytes(dump_index({"b": shard, "a": shard}, metadata))
    index = read_index(path)
    assert index == ShardIndex(path, {"a": shard, "b": shard}, metadata)
    assert index.shards == [shard]


@pytest.mark.parametrize("metadata", ["", '"metadata": null, ', '"metadata": {}, ', '"more": [1], '])
def test_metadata_is_optional(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("{" + metadata + '"weight_map": {"a": "b.safetensors"}}')
    assert read_index(path).metadata == {}


@pytest.mark.parametrize(
    "path", sorted(REFERENCE.glob("*/*/*.safetensors.index.json")), ids=lambda p: p.parent.parent.name
)
def test_reference_indexes(path: Path) -> None:
    index = read_index(path)
    containers: dict[str, Container] = {shard: read_header(path.parent / shard) for shard in index.shards}
    assert check_shards(index, containers) == []
    total = sum(entry.nbytes for container in containers.values() for entry in container.entries.values())
    assert index.metadata["total_size"] == total
    again = json.loads(dump_index(index.weight_map, index.metadata))
    assert again == json.loads(path.read_text())


MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "truncated": ('{"weight_map": {"a": "b.safe', "not valid JSON"),
    "html": ("<!DOCTYPE html><html>", "an HTML page"),
    "lfs": ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "a Git LFS pointer"),
    "array": ("[]", "must hold a JSON object"),
    "no map": ("{}", "weight_map is missing"),
    "map null": ('{"weight_map": null}', "weight_map is not an object"),
    "map list": ('{"weight_map": [["a", "b.safetensors"]]}', "weight_map is not an object"),
    "map string": ('{"weight_map": "b.safetensors"}', "weight_map is not an object"),
    "map empty": ('{"weight_map": {}}', "weight_map is empty"),
    "int": (mapping(1), "the shard of tensor 'w0' is not a string"),
    "null": (mapping("a.safetensors", None), "the shard of tensor 'w1' is not a string"),
    "list": (mapping(["a.safetensors"]), "the shard of tensor 'w0' is not a string"),
    "object": (mapping({"a": 1}), "the shard of tensor 'w0' is not a string"),
    "twice": ('{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}', "the key 'a' appears twice"),
    "map twice": ('{"weight_map": {"a": "b.safetensors"}, "weight_map": {}}', "the key 'weight_map' appears twice"),
    "metadata list": ('{"metadata": [], "weight_map": {"a": "b.safetensors"}}', "metadata is not an object"),
    "metadata string": ('{"metadata": "x", "weight_map": {"a": "b.safetensors"}}', "metadata is not an object"),
    "control": ('{"weight_map": {"a\\n": "b.safetensors"}}', "holds a control character"),
    "surrogate": ('{"weight_map": {"a\\ud800": "b.safetensors"}}', "half of a surrogate pair"),
    "itself": (mapping(NAME), "is not a weight file"),
    "config": (mapping("config.json"), "is not a weight file"),
    "code": (mapping("modeling_x.py"), "is not a weight file"),
    "no suffix": (mapping("model"), "is not a weight file"),
    "only a suffix": (mapping("safetensors"), "is not a weight file"),
    "bin": (mapping("pytorch_model.bin"), "is not a .safetensors file"),
    "mixed": (mapping("a.safetensors", "b.bin"), "is not a .safetensors file"),
    "100,000 shards": (mapping(*(f"{i}.safetensors" for i in range(100_000))), "more than 99999 shards"),
    "deep": ('{"weight_map": ' + '{"a":' * 100 + "1" + "}" * 101, "nested deeper"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_indexes_are_refused(name: str, tmp_path: Path) -> None:
    text, reason = MALFORMED[name]
    assert reason in str(refuse(tmp_path / NAME, text))


def test_one_suffix_where_the_name_of_the_index_says_nothing(tmp_path: Path) -> None:
    error = refuse(tmp_path / "index.json", mapping("a.bin", "b.safetensors"))
    assert "the shard 'b.safetensors' is not a .bin file" in str(error)


@pytest.mark.parametrize(
    "shard",
    ["", ".", "..", "../a.safetensors", "/etc/passwd", "a/../../b.safetensors", "http://host/a.safetensors",
     "C:\\a.safetensors", "a\\b.safetensors", "a\0.safetensors", "a\n.safetensors", "./a.safetensors",
     "file:///etc/passwd", "x" * 5000 + ".safetensors"],
    ids=lambda shard: ascii(shard)[:30],
)  # fmt: skip
def test_shards_out_of_the_folder_are_refused(shard: str, tmp_path: Path) -> None:
    error = refuse(tmp_path / NAME, mapping("ok.safetensors", shard), UntrustedPathError)
    assert "the shard of tensor 'w1'" in str(error)
    assert error.key == shard


def test_a_tensor_name_of_a_megabyte_makes_a_short_message(tmp_path: Path) -> None:
    error = refuse(tmp_path / NAME, json.dumps({"weight_map": {"w" * (1 << 20): 1}}))
    assert error.tensor is not None


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"{")
    os.truncate(path, 100_000_001)
    with pytest.raises(ResourceLimitError, match="at most 100000000 are read") as caught:
        read_index(path)
    check_message(caught.value, path)
    refuse(path, '{"weight_map": {"a": [' + "1," * 1_100_000 + "1]}}", ResourceLimitError)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: None])
def test_no_regular_file(make: Any, tmp_path: Path) -> None:
    path = tmp_path / NAME
    make(path)
    with pytest.raises(ShardIndexError) as caught:
        read_index(path)
    check_message(caught.value, path)


def test_dump() -> None:
    raw = dump_index({"b": "2.safetensors", "a": "1.safetensors"}, {"total_size": 12})
    assert raw.decode() == (
        '{\n  "metadata": {\n    "total_size": 12\n  },\n'
        '  "weight_map": {\n    "a": "1.safetensors",\n    "b": "2.safetensors"\n  }\n}\n'
    )
    assert json.loads(dump_index({}, {}))["metadata"] == {}


@pytest.mark.parametrize("total", [1.5, "1", True, None, -1, np.int64(3)])
def test_the_total_is_a_number_of_bytes(total: Any) -> None:
    with pytest.raises(InvalidOptionError, match="total_size must be a number of bytes") as caught:
        dump_index({}, {"total_size": total})
    assert caught.value.key == "total_size"


# -- the index and its shards -----------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Container]:
    contents = {"1.safetensors": ["a", "b"], "2.safetensors": ["c"]}
    containers: dict[str, Container] = {}
    for shard, names in contents.items():
        write(tmp_path / shard, [Outgoing(name, "uint8", (64,), lambda: bytes(64)) for name in names], {})
        containers[shard] = read_header(tmp_path / shard)
    return containers


GOOD = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}


def index_of(weight_map: dict[str, str], folder: Path) -> ShardIndex:
    return ShardIndex(folder / NAME, weight_map, {})


def test_shards_that_fit(shards: dict[str, Container], tmp_path: Path) -> None:
    assert check_shards(index_of(GOOD, tmp_path), shards) == []
    assert check_shards(index_of({"c": "2.safetensors", "b": "1.safetensors"}, tmp_path), shards) == ["a"]
    assert check_shards(index_of({"c": "2.safetensors"}, tmp_path), shards) == []


MISFITS = [
    ({**GOOD, "d": "1.safetensors"}, "d", "1.safetensors", "is in none of them"),
    ({**GOOD, "a": "2.safetensors"}, "a", "2.safetensors", "is in '1.safetensors'"),
    ({**GOOD, "d": "3.safetensors"}, None, "3.safetensors", "is missing"),
]


@pytest.mark.parametrize(("weight_map", "tensor", "shard", "reason"), MISFITS)
def test_shards_that_do_not_fit(
    weight_map: dict[str, str],
    tensor: str | None,
    shard: str,
    reason: str,
    shards: dict[str, Container],
    tmp_path: Path,
) -> None:
    with pytest.raises(ShardIndexError) as caught:
        check_shards(index_of(weight_map, tmp_path), shards)
    check_message(caught.value, tmp_path / NAME)
    assert reason in str(caught.value)
    assert repr(shard) in str(caught.value)
    assert caught.value.tensor == tensor
    assert caught.value.shard == shard  # type: ignore[attr-defined]


def test_a_tensor_in_two_shards(shards: dict[str, Container], tmp_path: Path) -> None:
    write(tmp_path / "3.safetensors", [Outgoing("a", "uint8", (64,), lambda: bytes(64))], {})
    shards["3.safetensors"] = read_header(tmp_path / "3.safetensors")
    for weight_map in ({**GOOD, "x": "3.safetensors"}, {**GOOD, "a": "3.safetensors"}):
        with pytest.raises(
            ShardIndexError, match=r"'a' is in two shards, '1.safetensors' and '3.safetensors'"
        ) as caught:
            check_shards(index_of(weight_map, tmp_path), shards)
        check_message(caught.value, tmp_path / NAME)
        assert caught.value.tensor == "a"
