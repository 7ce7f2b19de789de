"""A model of 0.5 GB from a hub on loopback, streamed: at most a quarter of downloading it and loading it then."""

import os
import shutil
import tempfile
from pathlib import Path

import _checkpoints
import _hub_server
from _harness import Bench, Context, Results, Row, row
from _measure import timed, warm_memory

bench = Bench(
    "hub_stream",
    "A model from a hub",
    """0.5 GB of bfloat16 on a hub on loopback, which serves by sendfile from the page cache. "Streamed" is
    from_pretrained(stream=True) into memory; "downloaded" is from_pretrained into an empty cache, checked by SHA-256,
    and mapped; huggingface_hub's is snapshot_download into an empty cache, unchecked, and our mapped load of it then.
    The second part is the same hub with 60 MB/s for each connection, as one stream from a store has.""",
    memory=int(0.6e9),
    repeats=5,
)

SIZES = {**_checkpoints.LARGE, "num_hidden_layers": 2}
RATE = 60.0  # MB/s


def folder_of(context: Context) -> Path:
    sizes = {**SIZES, "vocab_size": 8000, "num_hidden_layers": 1} if context.quick else SIZES
    return _checkpoints._made(context, "hub", sizes, "bfloat16")


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.tiny(context)
    folder_of(context)


def _load(context: Context, rate: float, load_from: str) -> dict:
    os.environ.pop("HF_HUB_OFFLINE", None)
    import torch
    from huggingface_hub import snapshot_download

    from pretrained import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(_checkpoints.tiny(context))
    warm_memory(bench.memory)
    cache = Path(tempfile.mkdtemp(dir=context.scratch))
    result: dict = {}
    with _hub_server.hub(folder_of(context), rate) as url:
        with timed(result):
            if load_from == "huggingface_hub":
                where = snapshot_download("org/name", endpoint=url, cache_dir=cache, token=False)
                model = AutoModelForCausalLM.from_pretrained(where)
            else:
                model = AutoModelForCausalLM.from_pretrained(
                    "org/name", endpoint=url, cache_dir=cache, token=False, stream=load_from == "stream"
                )
    shutil.rmtree(cache)
    with torch.inference_mode():
        result["checksum"] = float(model(torch.tensor([[1, 2, 3]])).logits[0, -1, :8].float().sum())
    return result


@bench.variant()
def streamed(context: Context) -> dict:
    return _load(context, 0.0, "stream")


@bench.variant()
def downloaded(context: Context) -> dict:
    return _load(context, 0.0, "download")


@bench.variant()
def huggingface_hub(context: Context) -> dict:
    return _load(context, 0.0, "huggingface_hub")


@bench.variant()
def slow_streamed(context: Context) -> dict:
    return _load(context, RATE, "stream")


@bench.variant()
def slow_streamed_by_one(context: Context) -> dict:
    from pretrained.hub import ranges

    ranges.FIRST_LEVEL = ranges.MAX_LEVEL = 1
    return _load(context, RATE, "stream")


@bench.variant()
def slow_huggingface_hub(context: Context) -> dict:
    return _load(context, RATE, "huggingface_hub")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "streamed", "streamed", "huggingface_hub", 0.25, against="huggingface_hub, then loaded"),
        row(
            results,
            "downloaded and loaded",
            "downloaded",
            "huggingface_hub",
            None,
            against="huggingface_hub, then loaded",
        ),
        row(
            results,
            "60 MB/s a connection, streamed",
            "slow_streamed",
            "slow_streamed_by_one",
            0.125,
            against="by one connection",
        ),
        row(results, "the same", "slow_streamed", "slow_huggingface_hub", None, against="huggingface_hub, then loaded"),
    ]


if __name__ == "__main__":
    bench.main()
