"""Lists of checksums, and the names of a cache's blobs."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from pretrained.checkpoint.checksums import (
    Recorded,
    digest,
    dump_sums,
    is_sums_file,
    read_sums,
    recorded_by_cache,
)
from pretrained.errors import ResourceLimitError, SourceError, UntrustedPathError, WeightsFormatError

A, B = "a" * 64, "B" * 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SHA256SUMS", True),
        ("sha256sum.txt", True),
        ("SHA256SUMS.txt", True),
        ("model.safetensors.sha256", True),
        ("x.sha256sum", True),
        ("config.json", False),
        (".sha256", False),
        ("sha256.json", False),
    ],
)
def test_names_of_lists(name: str, expected: bool) -> None:
    assert is_sums_file(name) is expected


def test_all_kinds_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "SHA256SUMS"
    path.write_text(f"\ufeff# note\n\n{A}  a b\n{B} *c\nSHA256 (d (1)) = {A}\n{A}  ./e\n{A}  a b\n", encoding="utf-8")
    assert read_sums(path) == {"a b": A, "c": B.lower(), "d (1)": A, "e": A}
    alone = tmp_path / "model.bin.sha256"
    alone.write_text(A)
    assert read_sums(alone) == {"model.bin": A}


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (f"{A}  ../x", UntrustedPathError, "'.' or '..'"),
        (f"{A}  /x", UntrustedPathError, "is absolute"),
        (f"\\{A}  a\\nb", WeightsFormatError, "line 1 is no line of sha256sum"),
        (f"\n{A[:-1]}  x", WeightsFormatError, "line 2 is no line of sha256sum"),
        (A, WeightsFormatError, "has a checksum and no file name"),
        (f"{A}  x\n{B}  x", WeightsFormatError, "line 2: 'x' is listed before, with another checksum"),
        ("\0" * 100, WeightsFormatError, "line 1"),
    ],
)
def test_other_lines_are_refused(text: str, kind: type[Exception], words: str, tmp_path: Path) -> None:
    path = tmp_path / "SHA256SUMS"
    path.write_text(text)
    with pytest.raises(kind) as caught:
        read_sums(path)
    assert words in str(caught.value)
    assert "SHA256SUMS" in str(caught.value)
    assert all(char.isprintable() for char in str(caught.value))


def test_a_list_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "SHA256SUMS"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ResourceLimitError, match="SHA256SUMS"):
        read_sums(path)


def test_digests_are_those_of_the_tools(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 40_000)
    counts: list[int] = []
    found = digest(path, ["sha256", "git"], counts.append)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    git = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)
    assert found["git"] == git.stdout.strip()
    assert sum(counts) == path.stat().st_size
    with pytest.raises(SourceError, match="does not exist"):
        digest(tmp_path / "y", ["sha256"])
    with pytest.raises(WeightsFormatError, match="is a folder"):
        digest(tmp_path, ["sha256"])


def test_dump_is_what_read_reads(tmp_path: Path) -> None:
    path = tmp_path / "SHA256SUMS"
    sums = {"b/c": A, "a": B.lower()}
    path.write_bytes(dump_sums(sums))
    assert read_sums(path) == sums
    assert path.read_text().splitlines()[0].endswith(" *a")


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("blobs", "0" * 64, Recorded("sha256", "0" * 64, "the cache's blob name")),
        ("blobs", "0" * 40, Recorded("git", "0" * 40, "the cache's blob name")),
        ("blobs", "0" * 41, None),
        ("elsewhere", "0" * 64, None),
    ],
)
def test_names_of_blobs(folder: str, name: str, expected: Recorded | None, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_bytes(b"")
    link = tmp_path / "model.safetensors"
    link.symlink_to(Path(folder) / name)
    assert recorded_by_cache(link) == expected
    assert recorded_by_cache(tmp_path / folder / name) is None
