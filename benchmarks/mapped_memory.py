"""A mapped load takes at most 2 MB of memory of its own, and processes share what they map."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import memory, reset_peak, warm_files

bench = Bench(
    "mapped_memory",
    "Memory of a mapped load",
    """Anonymous memory is what a process has to itself. The second model of a process is measured, so that code and
    caches that the first brings in do not count. Then four processes load the same model and touch every page of it;
    their proportional shares (Pss) of the mapping are added up.""",
    repeats=5,
)
PROCESSES = 4


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


def _one(context: Context, library: str) -> dict:
    load = _loads.load_with(library, _checkpoints.large(context))
    first = load()
    reset_peak()
    before = memory()
    second = load()
    after = memory()
    assert first is not second
    return {"anonymous": after["anonymous"] - before["anonymous"], "peak": after["peak"] - before["rss"]}


def _shared(path: str) -> float:
    """This process's share of its mappings of a file, in bytes."""
    total, is_inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            is_inside = line.endswith(path)
        elif is_inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return float(total)


def _touch_and_tell(load: Callable[[], Any], path: str, tell: int, wait: int) -> NoReturn:
    """A child: loads, touches every page, says so, and once all have, says what it holds."""
    before = memory()["anonymous"]
    model = load()
    for parameter in model.parameters():
        parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()
    grown = memory()["anonymous"] - before
    os.write(tell, b"t")
    os.read(wait, 1)
    os.write(tell, f"{_shared(path)} {grown}".encode())
    os.read(wait, 1)
    os._exit(0)


def _together(context: Context, library: str) -> dict:
    """Processes that hold the model at the same time: what the file takes of them all, and what is their own."""
    import torch

    torch.set_num_threads(1)  # the children are forked, and OpenMP's threads do not come along
    folder = _checkpoints.large(context)
    load = _loads.load_with(library, folder)
    load()
    pipes = []
    for _ in range(PROCESSES):
        mine, tell = os.pipe()
        wait, go = os.pipe()
        if os.fork() == 0:
            _touch_and_tell(load, str(folder / "model.safetensors"), tell, wait)
        pipes.append((mine, go))
    for mine, _ in pipes:
        os.read(mine, 1)
    for _, go in pipes:
        os.write(go, b"1")
    told = [[float(part) for part in os.read(mine, 99).split()] for mine, _ in pipes]
    for _, go in pipes:
        os.write(go, b"2")
    return {"pss": sum(shared for shared, _ in told), "anonymous": max(grown for _, grown in told)}


@bench.variant()
def pretrained(context: Context) -> dict:
    return _one(context, "pretrained")


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _one(context, "transformers")


@bench.variant()
def pretrained_together(context: Context) -> dict:
    return _together(context, "pretrained")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    size, peer = _checkpoints.num_bytes(_checkpoints.large(context)), "transformers"
    together = f"{PROCESSES} processes, all of {size / 1e9:.1f} GB touched: their share of the file"
    return [
        bound("anonymous memory of a mapped load", results.median("pretrained", "anonymous"), 2e6, megabytes),
        bound(together, results.median("pretrained_together", "pss"), 1.02 * size, megabytes),
        row(results, "anonymous memory", "pretrained", peer, None, key="anonymous", show=megabytes),
        row(results, "peak above what was resident", "pretrained", peer, None, key="peak", show=megabytes),
    ]


if __name__ == "__main__":
    bench.main()
