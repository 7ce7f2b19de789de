"""`pretrained verify`: what is damaged is found, what was recorded is compared, and what is well is left alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pretrained.errors import HubError
from pretrained.hub.snapshot import LazySnapshot

ALL = [
    f"{family}/torch-{kind}"
    for family in ("bert", "llama")
    for kind in ("safetensors", "safetensors-sharded", "safetensors-bf16", "safetensors-variant-bf16", "base-only")
]


def rows(document: Any) -> dict[str, Any]:
    return {item["name"]: item for item in document["files"]}


@pytest.mark.parametrize("name", ALL)
def test_reference_folders_are_well(name: str, reference: Path, run: Any, run_json: Any) -> None:
    code, document = run_json("verify", reference / name, "--data")
    assert (code, document["ok"], document["content_recorded"]) == (0, True, False)
    for path in (reference / name).iterdir():
        assert rows(document)[path.name]["bytes"] == path.stat().st_size
        assert rows(document)[path.name]["checked"]
    result = run("verify", reference / name)
    assert "nothing was recorded to check content against" in result.stdout
    assert result.stdout.endswith(": ok\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def drop(path: Path) -> None:
    path.unlink()


def flip_header(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[20] ^= 0x80
    path.write_bytes(raw)


def swap_shards(path: Path) -> None:
    other = path.with_name("model-00003-of-00003.safetensors")
    raw = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(raw)


def no_json(path: Path) -> None:
    path.write_text("<html></html>")


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("model-00001-of-00003.safetensors", cut, "model-00001-of-00003.safetensors: "),
        ("model-00001-of-00003.safetensors", drop, "1 of 3 shards are missing, model-00001-of-00003.safetensors"),
        ("model-00002-of-00003.safetensors", flip_header, "model-00002-of-00003.safetensors: "),
        ("model-00002-of-00003.safetensors", swap_shards, "should be in the shard"),
        ("model.safetensors.index.json", no_json, "model.safetensors.index.json: is an HTML page, not JSON"),
        ("config.json", no_json, "config.json: is an HTML page, not JSON"),
    ],
)
def test_damage_is_found(
    name: str, harm: Callable[[Path], None], words: str, copy: Any, run: Any, run_json: Any
) -> None:
    folder = copy("bert/torch-safetensors-sharded")
    harm(folder / name)
    code, document = run_json("verify", folder)
    assert (code, document["ok"]) == (1, False)
    assert any(words in text for item in document["files"] for text in item["bad"])
    result = run("verify", folder)
    assert result.exit_code == 1
    assert words in result.stdout
    assert result.stdout.rstrip().endswith("bad")


def test_a_single_file_and_an_index_with_its_shards(copy: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors-sharded")
    cut(folder / "model-00001-of-00003.safetensors")
    code, document = run_json("verify", folder / "model-00002-of-00003.safetensors")
    assert (code, "model-00001-of-00003.safetensors" in rows(document)) == (0, False)
    code, document = run_json("verify", folder / "model-00001-of-00003.safetensors")
    assert (code, document["ok"]) == (1, False)
    code, document = run_json("verify", folder / "model.safetensors.index.json")
    assert (code, document["ok"]) == (1, False)


def test_two_checkpoints_in_one_folder(copy: Any, reference: Path, run: Any) -> None:
    folder = copy("bert/torch-safetensors-sharded")
    (folder / "model.safetensors").write_bytes((reference / "bert/torch-base-only/model.safetensors").read_bytes())
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "two checkpoints in one folder" in result.stdout


def test_what_is_odd_is_a_note(copy: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors-sharded")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["total_size"] += 1
    del index["weight_map"]["cls.seq_relationship.bias"]
    path.write_text(json.dumps(index))
    (folder / "model-00001-of-00009.safetensors").write_bytes(
        (folder / "model-00001-of-00003.safetensors").read_bytes()
    )
    code, document = run_json("verify", folder)
    assert code == 0
    notes = rows(document)["model.safetensors.index.json"]["notes"]
    assert any("total_size is" in note for note in notes)
    assert any("1 tensor of the shards not listed" in note for note in notes)
    assert rows(document)["model-00001-of-00009.safetensors"]["notes"] == ["no index lists it"]


def test_nothing_to_verify_is_unreadable(tmp_path: Path, run: Any, reference: Path) -> None:
    assert run("verify", tmp_path / "nowhere").exit_code == 2
    (tmp_path / "weights.h5").write_bytes(b"x")
    result = run("verify", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "weights.h5, which is another format" in result.stderr
    result = run("verify", reference / "bert/torch-safetensors", "--variant", "fp16")
    assert result.exit_code == 2
    assert "model.fp16.safetensors" in result.stderr


def test_a_list_is_followed_where_nothing_can_be_opened(tmp_path: Path, run_json: Any) -> None:
    (tmp_path / "weights.h5").write_bytes(b"x")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'x').hexdigest()}  weights.h5\n")
    code, document = run_json("verify", tmp_path)
    assert (code, rows(document)["weights.h5"]["content"]) == (0, ["SHA256SUMS"])


@pytest.mark.parametrize(
    ("folder", "checked"), [("tf-h5", 0), ("tf-h5-sharded", 0), ("tf1-ckpt", 1), ("torch-bin-sharded", 0)]
)
def test_other_formats(folder: str, checked: int, reference: Path, run_json: Any) -> None:
    code, document = run_json("verify", reference / "bert" / folder)
    assert code == 0
    weights = [row for name, row in rows(document).items() if name not in ("config.json", "(the checkpoint)")]
    assert len(weights) == len(list((reference / "bert" / folder).iterdir())) - 1
    assert [row["content"] for row in weights if row["content"]] == [["its index"]] * checked


def test_checksums_of_tensors(copy: Any, run_json: Any) -> None:
    folder = copy("bert/tf1-ckpt")
    name = "model.ckpt.data-00000-of-00001"
    content = bytearray((folder / name).read_bytes())
    content[5000] ^= 1
    (folder / name).write_bytes(content)
    code, document = run_json("verify", folder)
    assert code == 1
    (bad,) = rows(document)[name]["bad"]
    assert "its bytes do not have the recorded checksum (crc32c)" in bad


def test_nan_and_infinity_are_found_only_in_data(copy: Any, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    arrays = load_file(folder / "model.safetensors")
    arrays["bert.pooler.dense.bias"][3:5] = np.nan
    arrays["bert.pooler.dense.weight"][0, 0] = -np.inf
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    assert run("verify", folder).exit_code == 0
    result = run("verify", folder, "--data")
    assert result.exit_code == 1
    assert "bert.pooler.dense.bias (2 NaN)" in result.stdout
    assert "bert.pooler.dense.weight (1 infinite)" in result.stdout


def test_checksums_are_written_and_checked(copy: Any, run: Any, run_json: Any) -> None:
    folder = copy("llama/torch-safetensors-sharded")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, document = run_json("verify", folder, "--write-checksums")
    assert (code, document["checksums_written"]) == (0, len(before))
    listed = dict(reversed(line.split(" *")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert listed == {name: hashlib.sha256(raw).hexdigest() for name, raw in before.items()}
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert checked.returncode == 0
    assert sorted(os.listdir(folder)) == sorted([*before, "SHA256SUMS"])
    result = run("verify", folder)
    assert result.exit_code == 0
    assert f"content of {len(before)} of {len(before) + 1} files checked" in result.stdout
    # One bit of data: no header can tell.
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(before[path.name][:-1] + bytes([before[path.name][-1] ^ 1]))
    result = run("verify", folder, "--write-checksums")
    assert result.exit_code == 1
    assert (
        f"bad: {path.name}: the content is not what SHA256SUMS recorded: expected {listed[path.name]}" in result.stdout
    )
    assert "SHA256SUMS was not written" in result.stdout
    assert dict(reversed(line.split(" *")) for line in (folder / "SHA256SUMS").read_text().splitlines()) == listed
    path.unlink()
    result = run("verify", folder)
    assert f"bad: {path.name}: listed in SHA256SUMS, and not there" in result.stdout


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sha256sum.txt", "{0}  ./model.safetensors\n"),
        ("model.safetensors.sha256", "{0}\n"),
        ("model.safetensors.sha256", "{0}  model.safetensors\n"),
        ("all.sha256", "SHA256 (model.safetensors) = {0}\n"),
        ("SHA256SUMS.txt", "# made by hand\n\n{0} *model.safetensors\r\n"),
    ],
)
def test_other_lists(name: str, line: str, copy: Any, run_json: Any) -> None:
    folder = copy("bert/torch-safetensors")
    path = folder / "model.safetensors"
    (folder / name).write_text(line.format(hashlib.sha256(path.read_bytes()).hexdigest().upper()))
    code, document = run_json("verify", folder)
    assert (code, rows(document)["model.safetensors"]["content"]) == (0, [name])
    code, document = run_json("verify", path)
    assert (code, rows(document)["model.safetensors"]["content"]) == (0, [name])
    (folder / name).write_text(line.format("0" * 64))
    code, document = run_json("verify", folder)
    assert (code, rows(document)["model.safetensors"]["ok"]) == (1, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0" * 64 + "  ../outside\n", "'.' or '..'"),
        ("0" * 64 + "  /etc/passwd\n", "is absolute"),
        ("no checksum\n", "line 1 is no line of sha256sum"),
        (f"{'0' * 64}  a\n{'1' * 64}  a\n", "line 2: 'a' is listed before"),
        ("0" * 64 + "\n", "line 1 has a checksum and no file name"),
    ],
)
def test_a_bad_list_is_bad(text: str, words: str, copy: Any, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    (folder / "SHA256SUMS").write_text(text)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert words in result.stdout


def make_cache(root: Path, source: Path) -> Path:
    """A cache as huggingface_hub lays it out: weights named by sha256, the rest by git's hash."""
    home = root / "models--org--tiny"
    snapshot = home / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c" * 40)
    for path in source.iterdir():
        raw = path.read_bytes()
        is_large = path.suffix == ".safetensors"
        git = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
        blob = home / "blobs" / (hashlib.sha256(raw).hexdigest() if is_large else git)
        blob.write_bytes(raw)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_hub_cache_has_checksums_of_its_own(
    tmp_path: Path, reference: Path, run: Any, run_json: Any, monkeypatch: Any
) -> None:
    snapshot = make_cache(tmp_path, reference / "llama/torch-safetensors")
    code, document = run_json("verify", snapshot)
    assert code == 0
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert rows(document)[name]["content"] == ["the cache's blob name"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, document = run_json("verify", "org/tiny", "--local-files-only")
    assert (code, document["commit"], document["content_recorded"]) == (0, "c" * 40, True)
    assert run_json("inspect", "org/tiny", "--local-files-only")[0] == 0
    for ref in (snapshot, "org/tiny"):
        result = run("verify", ref, "--local-files-only", "--write-checksums")
        assert result.exit_code == 2
        assert "is in a hub cache" in result.stderr
    for name in ("config.json", "model.safetensors"):
        blob = (snapshot / name).resolve()
        raw = blob.read_bytes()
        blob.write_bytes(raw[:-3] + b" }\n" if name == "config.json" else raw[:-1] + b"\x7f")
        result = run("verify", "org/tiny", "--local-files-only")
        assert result.exit_code == 1
        assert f"bad: {name}: the content is not what the cache's blob name recorded" in result.stdout
        blob.write_bytes(raw)


def test_checksums_are_of_a_whole_folder(copy: Any, run: Any) -> None:
    result = run("verify", copy("bert/torch-safetensors") / "model.safetensors", "--write-checksums")
    assert result.exit_code == 2
    assert "records a whole folder" in result.stderr


def test_links_out_of_the_folder_are_bad(copy: Any, tmp_path: Path, run: Any) -> None:
    folder = copy("bert/torch-safetensors")
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "is a link out of its folder" in result.stdout


def test_a_hub_repository_that_is_fetched_file_by_file(
    tmp_path: Path, reference: Path, run: Any, run_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_cache(tmp_path / "cache", reference / "llama/torch-safetensors-sharded")
    fetched: list[str] = []

    class Shelf:
        def path(self, name: str) -> Path:
            fetched.append(name)
            return folder / name

        def fetch(self, names: list[str]) -> None:
            """`path` does it."""

        def source(self, name: str) -> None:
            """It is not streamed."""

    names = {name: name for name in (*os.listdir(folder), "pytorch_model.bin", "onnx/model.onnx", "tokenizer.json")}

    def open_repository(repo_id: str, source: object, path: str = "") -> LazySnapshot:
        return LazySnapshot(repo_id, "c" * 40, names, Shelf())

    monkeypatch.setattr("pretrained.hub.repository.open_repository", open_repository)
    code, document = run_json("verify", "org/tiny", "--data")
    assert (code, document["ok"], document["commit"]) == (0, True, "c" * 40)
    assert set(fetched) == set(os.listdir(folder))
    assert all(item["content"] for item in document["files"] if item["name"] in fetched)
    assert run("inspect", "org/tiny").exit_code == 0
    assert run("plan", "org/tiny").exit_code == 0
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("x")
    assert run("convert", "org/tiny", tmp_path / "out", "--max-shard-size", "20kB").exit_code == 0
    assert run("diff", "org/tiny", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/tokenizer.json").exists()
    assert not (tmp_path / "out/pytorch_model.bin").exists()
    result = run("convert", "org/tiny", "--in-place")
    assert result.exit_code == 2
    assert "is in a hub cache" in result.stderr

    def unreachable(shelf: Shelf, name: str) -> Path:
        raise HubError(f"cannot load {name}", path=name)

    monkeypatch.setattr(Shelf, "path", unreachable)
    result = run("verify", "org/tiny")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: cannot load ")
