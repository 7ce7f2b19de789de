"""From a cold disk to the first output in at most 1.1 times what reading the file takes."""

import os
import threading

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row, seconds
from _measure import drop_files, timed

bench = Bench(
    "cold_load",
    "Cold load to the first output",
    """The weights are taken out of the page cache before each run; code is imported and a tiny model was loaded. The
    clock stops when the model has answered one token, for which it needs every weight but most of its embeddings.
    Against it, the file is read by four threads past the page cache (O_DIRECT, 16 MiB at a time): the disk's speed.
    The same again through the page cache, and what the answer takes when all is warm, are there to compare.""",
)
CHUNK = 16 << 20
THREADS = 4


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)
    _checkpoints.tiny(context)


@bench.before
def before(context: Context, name: str) -> None:
    drop_files(_checkpoints.large(context))


def _to_output(context: Context, library: str) -> dict:
    import torch

    result = {}
    with torch.inference_mode():
        _loads.load_with(library, _checkpoints.tiny(context))()(torch.tensor([[1]]))
        load = _loads.load_with(library, _checkpoints.large(context))
        with timed(result, "usable"):
            with timed(result):
                model = load()
            model(torch.tensor([[1]]))
        with timed(result, "output"):
            model(torch.tensor([[1]]))
    return result


@bench.variant()
def pretrained(context: Context) -> dict:
    return _to_output(context, "pretrained")


@bench.variant()
def disk(context: Context) -> dict:
    return _read(context, os.O_DIRECT)


@bench.variant()
def disk_through_cache(context: Context) -> dict:
    return _read(context, 0)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _to_output(context, "transformers")


def _read(context: Context, flags: int) -> dict:
    """Four threads read the file, each every fourth chunk, each into one buffer that it uses again."""
    import mmap

    fd = os.open(_checkpoints.large(context) / "model.safetensors", os.O_RDONLY | flags)
    size = os.fstat(fd).st_size
    buffers = [mmap.mmap(-1, CHUNK) for _ in range(THREADS)]
    for buffer in buffers:
        buffer[:] = bytes(CHUNK)

    def work(number: int) -> None:
        for offset in range(number * CHUNK, size, THREADS * CHUNK):
            os.preadv(fd, [buffers[number]], offset)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    result = {}
    with timed(result, "usable"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return result


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    what, key = "load and first output", "usable"
    return [
        row(results, what, "pretrained", "disk", 1.1, key=key, against="reading the file (O_DIRECT)"),
        row(results, what, "pretrained", "disk_through_cache", None, key=key, against="reading the file (page cache)"),
        row(results, what, "pretrained", "transformers", None, key=key),
        Row("the load alone", seconds(results.median("pretrained")), "–", "–", None, "–", None),
        Row("one output, all warm", seconds(results.median("pretrained", "output")), "–", "–", None, "–", None),
    ]


if __name__ == "__main__":
    bench.main()
