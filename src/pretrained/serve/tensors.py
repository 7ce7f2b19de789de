"""What the headers of safetensors files say, read without their data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..checkpoint.files import parse_json, read_up_to
from ..checkpoint.formats.safetensors_header import HeaderFlawError, parse_header
from ..checkpoint.tensors import Entry
from ..errors import PretrainedError
from .calls import Call
from .refusals import RefusedError
from .repository import HubFile, Repository, Tree

__all__ = ["entries_of", "header_of", "sharded_metadata"]

MAX_HEADER = 16 << 20  # bytes; a million tensors are not shown in a page, and clients have ranges
MAX_INDEX = 16 << 20
MAX_SHARDS = 1000
MAX_ANSWER = 64 << 20  # bytes of headers in one answer
MAX_SHOWN = 16 << 20  # bytes of headers for one page


def header_of(repo: Repository, oid: str, file: HubFile) -> dict[str, Any] | None:
    """The header of a safetensors file as it stands there; None if that is none."""
    try:
        fd = repo.open(oid, file)
    except OSError:
        return None
    try:
        length = int.from_bytes(read_up_to(fd, 8), "little")
        if not 2 <= length <= min(MAX_HEADER, file.size - 8):
            return None
        return parse_json(read_up_to(fd, length, 8), path=file.path)
    except (OSError, PretrainedError):
        return None
    finally:
        os.close(fd)


def entries_of(repo: Repository, oid: str, tree: Tree) -> list[Entry]:
    """The tensors of all safetensors files of a commit; headers that are damaged or beyond 16 MiB are left out."""
    found: list[Entry] = []
    budget = MAX_SHOWN
    for file in tree.files.values():
        if not file.path.endswith(".safetensors"):
            continue
        try:
            fd = repo.open(oid, file)
        except OSError:
            continue
        try:
            length = int.from_bytes(read_up_to(fd, 8), "little")
            if length > min(budget, file.size - 8):
                continue
            budget -= length
            text = read_up_to(fd, length, 8).decode("utf-8").rstrip()
            entries, _ = parse_header(text, Path(file.path), 8 + length, file.size)
            found += entries.values()
        except (OSError, UnicodeDecodeError, HeaderFlawError):
            continue
        finally:
            os.close(fd)
    return found


def sharded_metadata(call: Call, name: str) -> dict[str, Any]:
    """The index of a sharded checkpoint on main and the header of each shard. Raises RefusedError."""
    call.check_access()
    repo, oid = call.repo, call.commit_of("main")
    files = repo.tree(oid).files
    index = _index(repo, oid, files.get(name))
    if index is None:
        raise RefusedError(404, f"No index {name!r:.200}", "EntryNotFound", {"X-Repo-Commit": oid})
    folder = name.rpartition("/")[0]
    shards = sorted({shard for shard in index.get("weight_map", {}).values() if isinstance(shard, str)})[:MAX_SHARDS]
    headers = {}
    size = 0
    for shard in shards:
        file = files.get(f"{folder}/{shard}" if folder else shard)
        header = None if file is None else header_of(repo, oid, file)
        if header is None:
            raise RefusedError(404, f"{shard!r:.200} is no safetensors file", "EntryNotFound", {"X-Repo-Commit": oid})
        size += len(json.dumps(header))
        if size > MAX_ANSWER:
            raise RefusedError(413, "The headers are too large for one answer; read them by ranges")
        headers[shard] = header
    return {"index": {"metadata": index.get("metadata")}, "headers": headers}


def _index(repo: Repository, oid: str, file: HubFile | None) -> dict[str, Any] | None:
    if file is None or file.size > MAX_INDEX:
        return None
    fd = repo.open(oid, file)
    try:
        found = parse_json(read_up_to(fd, MAX_INDEX), path=file.path)
    except PretrainedError:
        return None
    finally:
        os.close(fd)
    return found if isinstance(found.get("weight_map"), dict) else None
