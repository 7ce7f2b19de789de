"""A load that casts: at most 0.7 of transformers' time, and at its peak no more than the result and 64 MB."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import memory, timed, warm_files, warm_memory

bench = Bench(
    "cast_load",
    "Cast on load",
    """float32 at rest, bfloat16 in the model: 4.4 GB become 2.2. Then bfloat16 to float16. The files are in the page
    cache, and each process has loaded a tiny model before. The peak is the highest resident memory over what was
    resident before; a mapped source that is still resident counts.""",
    memory=int(2.6e9),
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large_fp32(context)
    _checkpoints.large(context)
    _checkpoints.tiny(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large_fp32(context) if "float32" in name else _checkpoints.large(context))


def _cast(context: Context, library: str, folder: object, dtype: str) -> dict:
    import torch

    _loads.load_with(library, _checkpoints.tiny(context), dtype="float32")()
    load = _loads.load_with(library, folder, dtype=dtype)  # type: ignore[arg-type]
    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    with timed(result):
        model = load()
    after = memory()
    assert all(str(p.dtype) == f"torch.{dtype}" for p in model.parameters())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    result["peak"] = after["peak"] - before["rss"]
    result["beyond_result"] = result["peak"] - size
    with torch.inference_mode(), timed(result, "output"):
        model(torch.tensor([[1]]))
    return result


@bench.variant()
def pretrained_float32_to_bfloat16(context: Context) -> dict:
    return _cast(context, "pretrained", _checkpoints.large_fp32(context), "bfloat16")


@bench.variant(peer=True)
def transformers_float32_to_bfloat16(context: Context) -> dict:
    return _cast(context, "transformers", _checkpoints.large_fp32(context), "bfloat16")


@bench.variant()
def pretrained_bfloat16_to_float16(context: Context) -> dict:
    return _cast(context, "pretrained", _checkpoints.large(context), "float16")


@bench.variant(peer=True)
def transformers_bfloat16_to_float16(context: Context) -> dict:
    return _cast(context, "transformers", _checkpoints.large(context), "float16")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for what, limit in (("float32_to_bfloat16", 0.7), ("bfloat16_to_float16", None)):
        ours, theirs, name = f"pretrained_{what}", f"transformers_{what}", what.replace("_", " ")
        beyond = results.median(ours, "beyond_result")
        rows += [
            row(results, name, ours, theirs, limit, against="transformers"),
            row(results, f"{name}, peak", ours, theirs, None, key="peak", against="transformers", show=megabytes),
            bound(f"{name}, peak beyond the result", beyond, 64e6, megabytes),
        ]
    return rows


if __name__ == "__main__":
    bench.main()
