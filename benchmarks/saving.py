"""A save takes no longer than transformers' as one file, and at most 0.7 of it as shards, without fsync on either side."""

import os
import shutil
from pathlib import Path

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, memory, row, timed, warm_files, warm_memory

bench = Bench(
    "saving",
    "Save of 2 GB",
    """The model is mapped from a warm file and written to a fresh folder, as one file and as shards of 500 MB. Nothing
    waits to be written when a run begins. transformers does not flush to the disk; beside durable=False, which does not
    either, stands the default, which does, and transformers followed by an fsync of each file.""",
    memory=int(2.6e9),
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))
    os.sync()


def _save(context: Context, library: str, size: str, *, flush: bool) -> dict:
    model = _loads.load_with(library, _checkpoints.large(context))()
    for parameter in model.parameters():
        parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()
    target = context.scratch / f"saved-{os.getpid()}"
    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    try:
        with timed(result):
            if library == "pretrained":
                model.save_pretrained(target, max_shard_size=size, durable=flush)
            else:
                model.save_pretrained(target, max_shard_size=size)
                if flush:
                    _flush(target)
        result["peak"] = memory()["peak"] - before["rss"]
        result["files"] = len(list(target.glob("*.safetensors")))
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return result


def _flush(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


ONE, SHARDS = "10GB", "500MB"


@bench.variant()
def pretrained_one(context: Context) -> dict:
    return _save(context, "pretrained", ONE, flush=False)


@bench.variant(peer=True)
def transformers_one(context: Context) -> dict:
    return _save(context, "transformers", ONE, flush=False)


@bench.variant()
def pretrained_shards(context: Context) -> dict:
    return _save(context, "pretrained", SHARDS, flush=False)


@bench.variant(peer=True)
def transformers_shards(context: Context) -> dict:
    return _save(context, "transformers", SHARDS, flush=False)


@bench.variant()
def pretrained_one_durable(context: Context) -> dict:
    return _save(context, "pretrained", ONE, flush=True)


@bench.variant(peer=True)
def transformers_one_durable(context: Context) -> dict:
    return _save(context, "transformers", ONE, flush=True)


@bench.variant()
def pretrained_shards_durable(context: Context) -> dict:
    return _save(context, "pretrained", SHARDS, flush=True)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for what, limit in (("one", 1.0), ("shards", 0.7)):
        ours, theirs = f"pretrained_{what}", f"transformers_{what}"
        name = "one file" if what == "one" else "shards of 500 MB"
        if results.has(theirs):
            rows.append(row(results, f"{name}, not flushed", ours, theirs, limit, against="transformers"))
        if results.has(durable := f"{ours}_durable"):
            rows.append(row(results, f"{name}, durable", durable, ours, None, against="the same, not flushed"))
    if results.has("transformers_one_durable"):
        rows.append(row(results, "one file, durable", "pretrained_one_durable", "transformers_one_durable", None, against="transformers, then fsync"))  # fmt: skip
    return rows


if __name__ == "__main__":
    bench.main()
