"""Greedy decoding in TensorFlow, compiled by XLA, against transformers 4.57.6: tokens a second, compiling."""

import os

from _harness import Bench, Context, Results, Row, row
from flax_generate import GPT2, NEW, PROMPT

bench = Bench(
    "tf_generate",
    "TensorFlow: generation",
    """Random weights in float32: GPT-2 of 82 million parameters (6 layers) and T5 of 60 million (t5-small's sizes).
    A prompt of 16 tokens, 64 new ones, greedy. "First" is the first call, which compiles; seconds are those of the best
    of three later calls. transformers' generate is put into one `tf.function(jit_compile=True)`, as its documentation
    has it.""",
    memory=int(2e9),
    repeats=3,
    peers=".venv-peers-4",
)

T5 = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 512, "d_kv": 64, "d_ff": 2048,
    "num_layers": 6, "num_heads": 8, "vocab_size": 32128, "decoder_start_token_id": 0,
}  # fmt: skip
MODELS = {"gpt2": GPT2, "t5": T5}


def folder_of(context: Context, name: str):
    return context.scratch / f"tf-{name}"


@bench.prepare
def prepare(context: Context) -> None:
    import torch

    from pretrained import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    for name, values in MODELS.items():
        if not (folder_of(context, name) / "config.json").exists():
            torch.manual_seed(0)
            config = AutoConfig.for_model(
                values["model_type"], **{k: v for k, v in values.items() if k != "model_type"}
            )
            cls = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            cls.from_config(config).save_pretrained(folder_of(context, name), durable=False)
            # As Keras has it, for transformers: with the present safetensors it fails on a file of torch's.
            keras = folder_of(context, f"{name}-h5")
            _load(context, name).save_pretrained(keras, safe_serialization=False, durable=False)


def _measure(call, start: int) -> dict:
    import time

    def run() -> float:
        begin = time.perf_counter()
        call().numpy()
        return time.perf_counter() - begin

    first = run()
    return {"first": first, "seconds": min(run() for _ in range(3)), "tokens": int(call().shape[1]) - start}


def _ids():
    import numpy as np

    return np.random.default_rng(0).integers(3, 5000, (1, PROMPT)).astype("int32")


def _load(context: Context, name: str):
    from pretrained import TFAutoModelForCausalLM, TFAutoModelForSeq2SeqLM

    cls = TFAutoModelForSeq2SeqLM if name == "t5" else TFAutoModelForCausalLM
    return cls.from_pretrained(folder_of(context, name))


def _ours(context: Context, name: str) -> dict:
    model = _load(context, name)
    settings = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0, "jit_compile": True}
    return _measure(lambda: model.generate(_ids(), **settings), 1 if name == "t5" else PROMPT)


def _theirs(context: Context, name: str) -> dict:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from transformers import TFAutoModelForCausalLM, TFAutoModelForSeq2SeqLM

    cls = TFAutoModelForSeq2SeqLM if name == "t5" else TFAutoModelForCausalLM
    model = cls.from_pretrained(folder_of(context, f"{name}-h5"))
    # It has to have an end; no token has this number.
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 10**6, 0
    call = tf.function(model.generate, jit_compile=True)
    ids = tf.constant(_ids())
    return _measure(lambda: call(ids, max_new_tokens=NEW), 1 if name == "t5" else PROMPT)


@bench.variant()
def pretrained_gpt2(context: Context) -> dict:
    return _ours(context, "gpt2")


@bench.variant(peer=True)
def transformers_gpt2(context: Context) -> dict:
    return _theirs(context, "gpt2")


@bench.variant()
def pretrained_t5(context: Context) -> dict:
    return _ours(context, "t5")


@bench.variant(peer=True)
def transformers_t5(context: Context) -> dict:
    return _theirs(context, "t5")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for name in MODELS:
        pair = f"pretrained_{name}", f"transformers_{name}"
        rows.append(row(results, f"{name}: {NEW} tokens", *pair, 1 / 1.2, against="transformers, XLA"))
        rows.append(row(results, f"{name}: the first call", *pair, None, key="first", against="transformers, XLA"))
    return rows


if __name__ == "__main__":
    bench.main()
