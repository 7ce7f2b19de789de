"""Git's names of things: what a blob, a tree and a commit are called, and the pointer that stands for a large file.

Source: git's object format (`git help hash-object`, gitformat-pack) and the specification of Git LFS, version 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

__all__ = ["EMPTY_TREE", "blob_id", "commit_id", "is_large", "pointer", "pointer_id", "tree_ids"]

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
MAX_REGULAR = 10 << 20  # bytes; a larger file is always a large file
SAMPLE = 512  # first bytes by which text is told from anything else

# What the Hub's own .gitattributes sends to LFS.
_LARGE = re.compile(
    r".+\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|lz4|mlmodel|model|msgpack|npy|npz|onnx|ot|parquet|pb|pickle|pkl"
    r"|pt|pth|rar|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)|.+\.tar\..+|.*tfevents.*|.+\.data-\d{5}-of-\d{5}",
    re.IGNORECASE,
)


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file belongs into LFS: by its name, its size, or because its first bytes are no text."""
    return size > MAX_REGULAR or _LARGE.fullmatch(path.rpartition("/")[2]) is not None or b"\0" in sample[:SAMPLE]


def blob_id(content: bytes) -> str:
    """Git's name of a file with this content."""
    return _named(b"blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """What git keeps in the place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def pointer_id(sha256: str, size: int) -> str:
    """Git's name of the pointer to a large file."""
    return blob_id(pointer(sha256, size))


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Path of every folder, "" for the outermost, → git's name of it.

    Args:
        blobs: path of every file → git's name of its content.
    """
    folders: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
    for path, oid in blobs.items():
        parent, _, name = path.rpartition("/")
        _folder(folders, parent)[name] = (b"100644", oid)
    found: dict[str, str] = {}
    for path in sorted(folders, key=lambda path: -path.count("/") if path else 1):
        found[path] = _named(b"tree", _tree(folders[path]))
        if path:
            parent, _, name = path.rpartition("/")
            _folder(folders, parent)[name] = (b"40000", found[path])
    return found


def _folder(folders: dict[str, dict[str, tuple[bytes, str]]], path: str) -> dict[str, tuple[bytes, str]]:
    """The content of a folder, which is made with those around it if it is new."""
    here = path
    while here not in folders:
        folders[here] = {}
        here = here.rpartition("/")[0]
    return folders[path]


def _tree(entries: Mapping[str, tuple[bytes, str]]) -> bytes:
    # A folder is sorted as if its name ended with a slash.
    keyed = sorted((name.encode() + (b"/" if mode == b"40000" else b""), name) for name, (mode, _) in entries.items())
    return b"".join(
        entries[name][0] + b" " + name.encode() + b"\0" + bytes.fromhex(entries[name][1]) for _, name in keyed
    )


def commit_id(tree: str, parents: Iterable[str], author: str, seconds: int, message: str) -> str:
    """Git's name of a commit; `seconds` since 1970, in UTC."""
    who = f"{author} <{author}> {seconds} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    return _named(b"commit", ("\n".join(lines) + f"\n\n{message}\n").encode())


def _named(kind: bytes, content: bytes) -> str:
    # git's identifiers are SHA-1; what protects content is the sha256 beside it.
    return hashlib.sha1(b"%s %d\0" % (kind, len(content)) + content, usedforsecurity=False).hexdigest()
