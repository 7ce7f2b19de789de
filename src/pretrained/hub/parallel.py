"""Several files at once, where each by itself would leave the line idle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["fetch_all"]

_LARGE = 64 << 20  # bytes: such a file keeps many connections busy by itself
_WORKERS = 8


def fetch_all(sizes: Mapping[str, int], fetch: Callable[[str], Any]) -> None:
    """Calls `fetch` for every name: small files side by side, then large ones in turn. Raises the first error."""
    small = [name for name, size in sizes.items() if size < _LARGE]
    if len(small) > 1:
        with ThreadPoolExecutor(min(_WORKERS, len(small)), thread_name_prefix="pretrained-fetch") as pool:
            futures = [pool.submit(fetch, name) for name in small]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    else:
        for name in small:
            fetch(name)
    for name, size in sizes.items():
        if size >= _LARGE:
            fetch(name)
