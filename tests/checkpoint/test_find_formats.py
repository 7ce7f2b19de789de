"""Which format is read where a folder holds several, and what is said of weights that are elsewhere or are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pretrained.checkpoint.find import Weights, find_checkpoint
from pretrained.checkpoint.formats import FORMATS, format_of
from pretrained.checkpoint.formats.readers import open_containers
from pretrained.checkpoint.rules import apply_ops
from pretrained.errors import PretrainedError, ShardIndexError, SourceError, TensorError, WeightsFormatError
from pretrained.hub.ref import resolve
from pretrained.hub.snapshot import FolderSnapshot
from pretrained.options import SourceOptions, WeightOptions, split_load_options

REFERENCE = Path(__file__).parents[1] / "reference"
BERT = REFERENCE / "bert"
SAFE, BIN, FLAX = "model.safetensors", "pytorch_model.bin", "flax_model.msgpack"
SOURCES = {SAFE: BERT / "torch-safetensors", BIN: BERT / "torch-bin", FLAX: BERT / "flax-msgpack"}
SHARDED = {
    SAFE: BERT / "torch-safetensors-sharded",
    BIN: BERT / "torch-bin-sharded",
    FLAX: BERT / "flax-msgpack-sharded",
}
KERNEL = "bert.encoder.layer.0.output.dense.weight"


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        shutil.copy(SOURCES[name] / name, folder)
    return folder


def find(folder: Path, **keywords: object) -> Weights:
    options, rest = split_load_options(keywords)
    assert not rest
    return find_checkpoint(resolve(folder, options.source), options.weights)


def opened(weights: Weights) -> str:
    (path,) = weights.containers
    return path.name


def refuse(folder: Path, kind: type[PretrainedError], **keywords: object) -> PretrainedError:
    with pytest.raises(kind) as caught:
        find(folder, **keywords)
    assert len(str(caught.value).encode()) <= 2048
    return caught.value


def test_the_order_of_formats() -> None:
    known = ["safetensors", "torch", "hdf5", "msgpack", "tf_bundle", "gguf"]
    assert list(FORMATS) == [key for key in known if key in FORMATS]
    assert format_of("a/flax_model-00001-of-00002.msgpack") == "msgpack"
    assert format_of("x.bin") == format_of("x.pth") == "torch"


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, SAFE),
        ({"use_safetensors": True}, SAFE),
        ({"use_safetensors": False}, BIN),
        ({"from_flax": True}, FLAX),
        ({"from_flax": False}, SAFE),
        ({"from_tf": True}, SAFE),  # there is none of TensorFlow's
        ({"from_pt": True}, SAFE),
        ({"from_flax": True, "use_safetensors": True}, SAFE),
        ({"from_flax": True, "use_safetensors": False}, FLAX),
    ],
)
def test_which_format_of_several(tmp_path: Path, keywords: dict[str, object], expected: str) -> None:
    assert opened(find(fill(tmp_path, SAFE, BIN, FLAX), **keywords)) == expected


@pytest.mark.parametrize(
    ("present", "keywords", "expected"),
    [
        ((BIN, FLAX), {}, BIN),
        ((BIN, FLAX), {"use_safetensors": False}, BIN),
        ((BIN, FLAX), {"from_flax": True}, FLAX),
        ((FLAX,), {}, FLAX),
        ((FLAX,), {"from_tf": True}, FLAX),
        ((SAFE,), {"from_flax": True}, SAFE),
        ((SAFE, FLAX), {"use_safetensors": False}, FLAX),
    ],
)
def test_what_is_there_is_read(
    tmp_path: Path, present: tuple[str, ...], keywords: dict[str, object], expected: str
) -> None:
    assert opened(find(fill(tmp_path, *present), **keywords)) == expected


@pytest.mark.parametrize("first", [SAFE, BIN, FLAX])
def test_whatever_is_read_has_torchs_names_and_layouts(tmp_path: Path, first: str) -> None:
    expected = find(BERT / "torch-safetensors")
    weights = find(fill(tmp_path, first))
    assert set(expected.entries) <= set(weights.entries)
    entry = weights.entries[KERNEL]
    found = apply_ops(weights.layouts.get(KERNEL, ()), weights.containers[entry.file].read(entry))
    (container,) = expected.containers.values()
    np.testing.assert_array_equal(found, container.read(expected.entries[KERNEL]))


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
def test_an_index_comes_before_what_is_less_preferred(tmp_path: Path, name: str) -> None:
    shutil.copytree(SHARDED[name], tmp_path, dirs_exist_ok=True)
    later = [other for other in (SAFE, BIN, FLAX) if list(SOURCES).index(other) > list(SOURCES).index(name)]
    weights = find(fill(tmp_path, *later))
    assert weights.index is not None and weights.index.path.name == f"{name}.index.json"
    assert len(weights.containers) > 1
    fill(tmp_path, name)
    assert "two checkpoints in one folder" in str(refuse(tmp_path, ShardIndexError))


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
def test_one_file_by_its_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, SAFE, BIN, FLAX)
    assert opened(find(tmp_path / name)) == name
    (container,) = open_containers(tmp_path / name)
    assert container.path == tmp_path / name


# Messages


@pytest.mark.parametrize("name", [form.single for form in FORMATS.values() if not form.single.startswith("*")])
def test_a_pointer_of_git_lfs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    error = refuse(tmp_path, WeightsFormatError)
    assert "Git LFS pointer (run 'git lfs pull')" in str(error) and error.path == str(tmp_path / name)


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
def test_a_shard_that_is_a_pointer_of_git_lfs(tmp_path: Path, name: str) -> None:
    shutil.copytree(SHARDED[name], tmp_path, dirs_exist_ok=True)
    shard = sorted(tmp_path.glob(f"*-of-*.{name.rpartition('.')[2]}"))[1]
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    error = refuse(tmp_path, WeightsFormatError)
    assert "Git LFS pointer" in str(error) and error.path == str(shard)


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
@pytest.mark.parametrize("content", [SAFE, BIN, FLAX])
def test_one_format_under_the_name_of_another(tmp_path: Path, name: str, content: str) -> None:
    shutil.copy(SOURCES[content] / content, tmp_path / name)
    if name == content:
        assert find(tmp_path).entries
        return
    words = {SAFE: "a safetensors file", BIN: "a PyTorch zip archive", FLAX: "a msgpack file"}[content]
    assert f"looks like {words}" in str(refuse(tmp_path, WeightsFormatError))


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
def test_only_another_variant(tmp_path: Path, name: str) -> None:
    stem, _, suffix = name.rpartition(".")
    shutil.copy(SOURCES[name] / name, tmp_path / f"{stem}.fp16.{suffix}")
    error = refuse(tmp_path, SourceError)
    assert f"there is {stem}.fp16.{suffix} (variant='fp16')" in str(error)
    assert opened(find(tmp_path, variant="fp16")) == f"{stem}.fp16.{suffix}"
    error = refuse(tmp_path, SourceError, variant="fp61")
    assert f"looked for model.fp61.safetensors or model.safetensors.index.fp61.json or {BIN[:-4]}.fp61.bin" in str(
        error
    )
    assert "(variant='fp16')" in str(error)


@pytest.mark.parametrize("name", [SAFE, BIN, FLAX])
def test_a_format_that_was_ruled_out(tmp_path: Path, name: str) -> None:
    error = refuse(fill(tmp_path, name), SourceError, use_safetensors=name != SAFE)
    assert f"leaves out the rest; there is {name} (no variant)" in str(error)


def test_only_in_a_subfolder(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "other").mkdir()
    fill(tmp_path / "text", FLAX)
    error = refuse(tmp_path, SourceError)
    assert "there are weights in text; name one with subfolder='text'" in str(error)
    assert opened(find(tmp_path, subfolder="text")) == FLAX
    assert "folders there: other, text" in str(refuse(tmp_path, SourceError, subfolder="test"))
    assert "there is nothing" in str(refuse(tmp_path / "other", SourceError))


def test_only_in_a_subfolder_of_a_repository() -> None:
    class Remote:
        name, commit, folder = "org/name", "0" * 40, None

        def names(self) -> list[str]:
            return ["README.md", "a/b/model.safetensors", "unet/model.fp16.safetensors", "vae/config.json"]

        def path(self, name: str) -> Path:
            raise AssertionError(name)

        fetch = source = path

    with pytest.raises(SourceError, match="there are weights in unet; name one with subfolder='unet'"):
        find_checkpoint(Remote(), WeightOptions())


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = FolderSnapshot(tmp_path, "x")
    monkeypatch.setattr(FolderSnapshot, "names", lambda self: ["README.md"])
    tmp_path.rmdir()
    with pytest.raises(SourceError, match=r"there is README\.md"):
        find_checkpoint(snapshot, WeightOptions())


def test_a_damaged_tensor_of_a_shard_is_named(tmp_path: Path) -> None:
    shutil.copytree(SHARDED[FLAX], tmp_path, dirs_exist_ok=True)
    shard = sorted(tmp_path.glob("*.msgpack"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    error = refuse(tmp_path, TensorError)
    assert error.path == str(shard) and "is cut off" in str(error)
    weights = find_checkpoint(resolve(SHARDED[FLAX], SourceOptions()), WeightOptions())
    assert error.tensor in {entry.name for entry in weights.entries.values() if entry.file.name == shard.name}
