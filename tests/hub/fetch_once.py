"""Fetches a repository in a process of its own, which tests kill or run several of at once.

python fetch_once.py ENDPOINT CACHE REPO [--broken-locks]
"""

from __future__ import annotations

import contextlib
import sys

from pretrained.hub import part
from pretrained.hub.repository import open_repository
from pretrained.options import SourceOptions


def main(endpoint: str, cache: str, repo: str, *flags: str) -> None:
    part.CHUNK, part.FLUSH = 256 << 10, 64 << 10
    if "--broken-locks" in flags:
        import huggingface_hub.utils

        huggingface_hub.utils.WeakFileLock = contextlib.nullcontext
    snapshot = open_repository(repo, SourceOptions(endpoint=endpoint, cache_dir=cache, token=False))
    print("ready", flush=True)
    sys.stdin.readline()
    snapshot.fetch(snapshot.names())
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
