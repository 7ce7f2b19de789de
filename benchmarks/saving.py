"""Saving takes no longer than transformers as one file, and 0.7 of it as shards, with fsync on neither side."""

import os
import shutil
from pathlib import Path

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row
from _measure import memory, timed, warm_files, warm_memory

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
    peer, alone = "transformers", "the same, not flushed"
    flushed = "transformers_one_durable"
    return [
        row(results, "one file, not flushed", "pretrained_one", "transformers_one", 1.0, against=peer),
        row(results, "shards of 500 MB, not flushed", "pretrained_shards", "transformers_shards", 0.7, against=peer),
        row(results, "one file, durable", "pretrained_one_durable", "pretrained_one", None, against=alone),
        row(results, "shards, durable", "pretrained_shards_durable", "pretrained_shards", None, against=alone),
        row(results, "one file, durable", "pretrained_one_durable", flushed, None, against=f"{peer}, then fsync"),
    ]


if __name__ == "__main__":
    bench.main()
