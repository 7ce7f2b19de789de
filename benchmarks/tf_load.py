"""BERT-base into TensorFlow: five times as fast as transformers 4.57.6, in little more memory than the parameters."""

import os
import statistics
from pathlib import Path

from _harness import Bench, Context, Results, Row, bound, row
from _measure import memory, reset_peak, timed, warm_files

bench = Bench(
    "tf_load",
    "TensorFlow: load of BERT-base",
    """109 million parameters in float32, in the page cache. transformers reads tf_model.h5, as its version with the
    present safetensors fails on a file of torch's; ours reads the same file, and safetensors. The first load of a
    process comes after its imports and after a small model was made, so that TensorFlow has set itself up; "a later
    load" is the median of five. The memory is the most that the process had when every page of the parameters had been
    read, less what it had before the first load.""",
    memory=int(2e9),
    repeats=3,
    peers=".venv-peers-4",
)

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def folder_of(context: Context, form: str) -> Path:
    return context.scratch / f"tf-bert-{'small' if context.quick else 'base'}-{form}"


@bench.prepare
def prepare(context: Context) -> None:
    import torch

    from pretrained import BertConfig, BertModel, TFBertModel

    folder = folder_of(context, "safetensors")
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        BertModel(BertConfig(**SMALL if context.quick else BASE)).save_pretrained(folder, durable=False)
    if not (folder_of(context, "h5") / "config.json").exists():
        model = TFBertModel.from_pretrained(folder)
        model.save_pretrained(folder_of(context, "h5"), safe_serialization=False, durable=False)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(folder_of(context, "safetensors"))
    warm_files(folder_of(context, "h5"))


def _measure(load, first, repeats: int = 5) -> dict:
    import tensorflow as tf

    first()
    reset_peak()
    before, result = memory()["rss"], {}
    with timed(result):
        model = load()
    size = 0
    for variable in model.weights:  # every page is read: a mapped file that is not would count for nothing
        size += 4 * int(tf.size(variable))
        tf.reduce_max(variable)
    result["peak"] = (memory()["peak"] - before) / size
    times = []
    for _ in range(repeats):
        again: dict = {}
        model = None
        with timed(again):
            model = load()
        times.append(again["seconds"])
    return {**result, "later": statistics.median(times)}


def _ours(context: Context, form: str, **options) -> dict:
    import tensorflow as tf

    from pretrained import BertConfig, TFBertModel

    tf.zeros(1)
    return _measure(
        lambda: TFBertModel.from_pretrained(folder_of(context, form), **options),
        lambda: TFBertModel(BertConfig(**SMALL)),
    )


@bench.variant()
def safetensors(context: Context) -> dict:
    return _ours(context, "safetensors")


@bench.variant()
def safetensors_copied(context: Context) -> dict:
    return _ours(context, "safetensors", mmap=False)


@bench.variant()
def h5(context: Context) -> dict:
    return _ours(context, "h5")


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from transformers import BertConfig, TFBertModel

    tf.zeros(1)
    return _measure(
        lambda: TFBertModel.from_pretrained(folder_of(context, "h5")),
        lambda: TFBertModel(BertConfig(**SMALL))(tf.constant([[1]])),
        repeats=2,
    )


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for what, key in (("the first load", "seconds"), ("a later load", "later")):
        for ours in ("h5", "safetensors", "safetensors_copied"):
            rows.append(row(results, f"{ours}, {what}", ours, "transformers", 0.2, key=key, against="transformers, h5"))
    for ours in ("h5", "safetensors", "safetensors_copied"):
        peak = results.median(ours, "peak")
        rows.append(bound(f"highest memory, {ours}; parameters = 1", peak, 1.1, lambda x: f"{x:.2f}"))
    return rows


if __name__ == "__main__":
    bench.main()
