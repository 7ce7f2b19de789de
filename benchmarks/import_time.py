"""`import pretrained` takes less than 60 ms and loads no framework; PreTrainedModel, less than 150 ms beyond torch."""

import sys

from _harness import Bench, Context, Results, Row, bound, row, seconds
from _measure import timed

bench = Bench(
    "import_time",
    "Import",
    """A fresh interpreter imports; byte code is there from an earlier run. What torch itself takes to import is left
    out on both sides of the second comparison.""",
    repeats=9,
)
FRAMEWORKS = ("torch", "jax", "flax", "tensorflow", "keras", "transformers")


def _loaded() -> list[str]:
    return [name for name in FRAMEWORKS if name in sys.modules]


@bench.variant()
def pretrained(context: Context) -> dict:
    result = {}
    with timed(result):
        import pretrained  # noqa: F401
    return {**result, "modules": len(sys.modules), "frameworks": _loaded()}


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    result = {}
    with timed(result):
        import transformers  # noqa: F401
    return {**result, "modules": len(sys.modules), "frameworks": _loaded()}


@bench.variant()
def pretrained_model(context: Context) -> dict:
    result = {}
    with timed(result, "torch"):
        import torch  # noqa: F401
    with timed(result):
        from pretrained import PreTrainedModel  # noqa: F401
    return result


@bench.variant(peer=True)
def transformers_model(context: Context) -> dict:
    result = {}
    with timed(result, "torch"):
        import torch  # noqa: F401
    with timed(result):
        from transformers import PreTrainedModel  # noqa: F401
    return result


@bench.variant()
def pretrained_llama(context: Context) -> dict:
    result = {}
    with timed(result, "torch"):
        import torch  # noqa: F401
    with timed(result):
        from pretrained import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401
    return result


@bench.variant(peer=True)
def transformers_llama(context: Context) -> dict:
    result = {}
    with timed(result, "torch"):
        import torch  # noqa: F401
    with timed(result):
        from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401
    return result


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    loaded = sorted({name for run in results.rounds["pretrained"] for name in run["frameworks"]})
    beyond, peer = results.median("pretrained_model"), "transformers"
    return [
        bound("`import pretrained`", results.median("pretrained"), 0.060, seconds),
        Row("frameworks it loads", ", ".join(loaded) or "none", "–", "–", None, "none", not loaded),
        bound("`from pretrained import PreTrainedModel`, beyond torch", beyond, 0.15, seconds),
        row(results, "`import` of the package", "pretrained", peer, None),
        row(results, "PreTrainedModel, beyond torch", "pretrained_model", "transformers_model", None, against=peer),
        row(results, "classes of Llama, beyond torch", "pretrained_llama", "transformers_llama", None, against=peer),
    ]


if __name__ == "__main__":
    bench.main()
