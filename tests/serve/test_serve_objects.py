"""Names that git gives, as git itself gave them, and which names clients may choose."""

from __future__ import annotations

import pytest

from pretrained.serve.ignoring import is_ignored
from pretrained.serve.names import is_path, is_ref_name, is_repo_id
from pretrained.serve.objects import EMPTY_TREE, blob_id, commit_id, is_large, pointer, tree_ids

FILES = {"a-b": b"y", "a.txt": b"x", "a/b/c.txt": b"hello\n"}


def test_names_of_blobs_trees_and_commits_are_git_s() -> None:
    blobs = {path: blob_id(content) for path, content in FILES.items()}
    assert blobs == {
        "a-b": "e25f1814e51579d5f55c0f1fe0135ddb28a47f4a",
        "a.txt": "c1b0730e0133447badcfd47fd144e254807b06e1",
        "a/b/c.txt": "ce013625030ba8dba906f756967f9e9ca394464a",
    }
    trees = tree_ids(blobs)
    assert trees == {
        "": "7b2ca2485017793948eafa3f049845e1b6d9eb9b",
        "a": "91942592790b66ae4bec319bf951d1c7692c5e85",
        "a/b": "2bcada35da78a7011b5497fcf851bb11e2353a39",
    }
    assert tree_ids({}) == {"": EMPTY_TREE}
    assert (
        commit_id(trees[""], (), "pretrained", 0, "The files of the folder")
        == "2ec0c290d744a8edd14002ae576c03d51ca8a8ae"
    )


def test_a_pointer_is_that_of_git_lfs() -> None:
    text = pointer("4d7a" * 16, 12345).decode()
    assert text == f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


@pytest.mark.parametrize(
    ("path", "size", "sample", "expected"),
    [
        ("model.safetensors", 10, b"{}", True),
        ("a/b/X.BIN", 10, b"", True),
        ("config.json", 10, b"{}", False),
        ("config.json", 11 << 20, b"{}", True),
        ("unknown", 10, b"a\0b", True),
        ("notes.txt", 10, "ü".encode(), False),
    ],
)
def test_what_is_large(path: str, size: int, sample: bytes, expected: bool) -> None:
    assert is_large(path, size, sample) is expected


@pytest.mark.parametrize("text", ["bert", "acme/bert", "A.c-m_e/b3.1", "a/b"])
def test_names_of_repositories(text: str) -> None:
    assert is_repo_id(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/b", "a/b/c", "..", "../x", "a/..", "a..b", "-a", "a--b", "a/b.git", "a b", "ü", "a/tree"),
        *("api/x", "datasets/x", "x" * 97, "a\n", "a/b\0", "models", None, 3, "a%2fb", "a.lock", "C:"),
    ],
)
def test_what_no_repository_can_be_called(text: object) -> None:
    assert not is_repo_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "..", "../x", "/etc", "a/../b", "a//b", ".git/config", "a/.GIT/x", "a\\b", "C:/x", "a\0", "a\n", "x" * 2000],
)
def test_what_no_file_can_be_called(text: str) -> None:
    assert not is_path(text)
    assert is_path("a/b c/ü.txt")


@pytest.mark.parametrize(
    "text", ["", "a..b", "-a", "a.lock", "a/", "refs/heads/x", "a b", "a~1", "0" * 40, "a@{1}", "/a"]
)
def test_what_no_branch_can_be_called(text: str) -> None:
    assert not is_ref_name(text)
    assert is_ref_name("v1.0")
    assert is_ref_name("feature/x")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.tmp", "a/b.tmp", True),
        ("*.tmp", "a/b.tmpx", False),
        ("/a", "a", True),
        ("/a", "b/a", False),
        ("build/", "build/x/y", True),
        ("build/", "build", False),
        ("a/**/z", "a/b/c/z", True),
        ("a/*/z", "a/b/c/z", False),
        ("*.log\n!keep.log", "keep.log", False),
        ("# *.txt", "a.txt", False),
        ("[ab].txt", "a.txt", True),
        ("[!ab].txt", "a.txt", False),
        ("?.txt", "a.txt", True),
        ("a*b*c*d*e*f*g", "a" * 5000, False),
    ],
)
def test_gitignore(pattern: str, path: str, expected: bool) -> None:
    assert is_ignored(path, pattern) is expected
