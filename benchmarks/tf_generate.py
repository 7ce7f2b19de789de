"""Greedy decoding in TensorFlow, compiled by XLA, against transformers 4.57.6: tokens a second, and the first call."""

import os

from _harness import Bench, Context, Results, Row, row

bench = Bench(
    "tf_generate",
    "TensorFlow: generation",
    """Random weights in float32: GPT-2 of 82 million parameters (6 layers). A prompt of 16 tokens, 64 new ones, greedy.
    "First" is the first call, which compiles; seconds are those of the best of three later calls. transformers' call is
    `tf.function(model.generate, jit_compile=True)`, as its documentation has it.""",
    memory=int(2e9),
    repeats=3,
    peers=".venv-peers-4",
)

PROMPT, NEW = 16, 64


def folder_of(context: Context):
    return context.scratch / "tf-gpt2"


@bench.prepare
def prepare(context: Context) -> None:
    import torch

    from pretrained import GPT2Config, GPT2LMHeadModel

    if not (folder_of(context) / "config.json").exists():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(n_layer=6)).save_pretrained(folder_of(context), durable=False)


@bench.before
def before(context: Context, name: str) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def _measure(call) -> dict:
    import time

    def run() -> float:
        start = time.perf_counter()
        call().numpy()
        return time.perf_counter() - start

    first = run()
    return {"first": first, "seconds": min(run() for _ in range(3)), "tokens": call().shape[1] - PROMPT}


def _ids():
    import numpy as np

    return np.random.default_rng(0).integers(3, 5000, (1, PROMPT)).astype(np.int32)


def _ours(context: Context, **way) -> dict:
    from pretrained import TFGPT2LMHeadModel

    model = TFGPT2LMHeadModel.from_pretrained(folder_of(context))
    settings = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}
    return _measure(lambda: model.generate(_ids(), **settings, **way))


@bench.variant()
def pretrained(context: Context) -> dict:
    return _ours(context, jit_compile=True)


@bench.variant()
def graph(context: Context) -> dict:
    return _ours(context)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from transformers import TFGPT2LMHeadModel

    model = TFGPT2LMHeadModel.from_pretrained(folder_of(context))
    # It has to have an end; no token has this number.
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 10**6, 0
    generate = tf.function(model.generate, jit_compile=True)
    ids = tf.constant(_ids())
    return _measure(lambda: generate(ids, max_new_tokens=NEW))


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    against = "transformers, XLA"
    return [
        row(results, f"{NEW} tokens", "pretrained", "transformers", 1 / 1.2, against=against),
        row(results, "the first call", "pretrained", "transformers", None, key="first", against=against),
        row(results, f"{NEW} tokens, a graph without XLA", "graph", "transformers", None, against=against),
        row(results, "its first call", "graph", "transformers", None, key="first", against=against),
    ]


if __name__ == "__main__":
    bench.main()
