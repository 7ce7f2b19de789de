"""Greedy decoding in JAX against transformers 4.57.6: tokens a second once compiled, and what compiling takes."""

from _harness import Bench, Context, Results, Row, row

bench = Bench(
    "flax_generate",
    "JAX: generation",
    """Random weights in float32: GPT-2 of 82 million parameters (6 layers) and a Llama of 135 million. A prompt of 16
    tokens, 64 new ones, greedy. "First" is the first call, which compiles; seconds are those of the best of three later
    calls. transformers compiles anew at every call of `generate`, so its call is put into one `jax.jit` here, as its
    documentation has it.""",
    memory=int(2e9),
    repeats=3,
    peers=".venv-peers-4",
)

PROMPT, NEW = 16, 64
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 6}
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "rope_theta": 10000.0,
}  # fmt: skip


def folder_of(context: Context, name: str):
    return context.scratch / f"flax-{name}"


@bench.prepare
def prepare(context: Context) -> None:
    import torch

    from pretrained import AutoConfig, AutoModelForCausalLM

    for name, values in (("gpt2", GPT2), ("llama", LLAMA)):
        if not (folder_of(context, name) / "config.json").exists():
            torch.manual_seed(0)
            config = AutoConfig.for_model(
                values["model_type"], **{k: v for k, v in values.items() if k != "model_type"}
            )
            AutoModelForCausalLM.from_config(config).save_pretrained(folder_of(context, name), durable=False)


def _measure(call) -> dict:
    import time

    def run() -> float:
        start = time.perf_counter()
        call().block_until_ready()
        return time.perf_counter() - start

    first = run()
    return {"first": first, "seconds": min(run() for _ in range(3)), "tokens": call().shape[1] - PROMPT}


def _ours(context: Context, name: str) -> dict:
    import numpy as np

    from pretrained import FlaxAutoModelForCausalLM

    model = FlaxAutoModelForCausalLM.from_pretrained(folder_of(context, name))
    ids = np.random.default_rng(0).integers(3, 5000, (1, PROMPT))
    return _measure(lambda: model.generate(ids, max_new_tokens=NEW, eos_token_id=None, pad_token_id=0).sequences)


def _theirs(context: Context, name: str) -> dict:
    import jax
    import numpy as np
    from transformers import FlaxAutoModelForCausalLM

    model = FlaxAutoModelForCausalLM.from_pretrained(folder_of(context, name), from_pt=True)
    # It has to have an end; no token has this number.
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 10**6, 0
    ids = np.random.default_rng(0).integers(3, 5000, (1, PROMPT))
    call = jax.jit(lambda ids, params: model.generate(ids, params=params, max_length=PROMPT + NEW).sequences)
    return _measure(lambda: call(ids, model.params))


@bench.variant()
def pretrained_gpt2(context: Context) -> dict:
    return _ours(context, "gpt2")


@bench.variant(peer=True)
def transformers_gpt2(context: Context) -> dict:
    return _theirs(context, "gpt2")


@bench.variant()
def pretrained_llama(context: Context) -> dict:
    return _ours(context, "llama")


@bench.variant(peer=True)
def transformers_llama(context: Context) -> dict:
    return _theirs(context, "llama")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for name in ("gpt2", "llama"):
        pair = f"pretrained_{name}", f"transformers_{name}"
        rows.append(row(results, f"{name}: {NEW} tokens", *pair, 1 / 1.5, against="transformers, jitted"))
        rows.append(row(results, f"{name}: the first call", *pair, None, key="first", against="transformers, jitted"))
    return rows


if __name__ == "__main__":
    bench.main()
