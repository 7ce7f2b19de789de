"""A mapped load takes at most 2 MB of memory of its own, and processes share what they map."""

import os
import time

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, bound, megabytes, memory, reset_peak, row, warm_files

bench = Bench(
    "mapped_memory",
    "Memory of a mapped load",
    """Anonymous memory is what a process has to itself. The second model of a process is measured, so that code and
    caches that the first brings in do not count. Then four processes load the same model and touch every page of it;
    their proportional shares (Pss) are added up.""",
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


def _four(context: Context, library: str, **options: object) -> dict:
    load = _loads.load_with(library, _checkpoints.large(context), **options)
    load()
    before = memory()["pss"]
    pipes, children = [], []
    for _ in range(PROCESSES):
        mine, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            _touch_and_tell(load, theirs)
        os.close(theirs)
        pipes.append(mine)
        children.append(child)
    told = [float(os.read(pipe, 64)) for pipe in pipes]
    for child in children:
        os.waitpid(child, 0)
    return {"pss": sum(told) - before}


def _touch_and_tell(load: object, pipe: int) -> None:
    """A child: loads, touches every page, waits until its sisters have done so too, and says what it holds."""
    model = load()  # type: ignore[operator]
    for parameter in model.parameters():
        parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()
    time.sleep(8)
    os.write(pipe, str(memory()["pss"]).encode().ljust(64))
    time.sleep(4)
    os._exit(0)


@bench.variant()
def pretrained(context: Context) -> dict:
    return _one(context, "pretrained")


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _one(context, "transformers")


@bench.variant()
def pretrained_four(context: Context) -> dict:
    return _four(context, "pretrained")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    size = _checkpoints.num_bytes(_checkpoints.large(context))
    rows = [
        bound("anonymous memory of a mapped load", results.median("pretrained", "anonymous"), 2e6, megabytes),
        bound("its peak above what was resident", results.median("pretrained", "peak"), 16e6, megabytes),
        bound(f"{PROCESSES} processes, {size / 1e9:.1f} GB all touched", results.median("pretrained_four", "pss"), 1.1 * size, megabytes),
    ]  # fmt: skip
    if results.has("transformers"):
        rows.append(
            row(results, "anonymous memory", "pretrained", "transformers", None, key="anonymous", show=megabytes)
        )
        rows.append(row(results, "peak", "pretrained", "transformers", None, key="peak", show=megabytes))
    return rows


if __name__ == "__main__":
    bench.main()
