"""A model half of which is on disk: what loading it and running it costs, against transformers with the same map."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, megabytes, row, seconds
from _measure import memory, reset_peak, timed, warm_files

bench = Bench(
    "offload",
    "Half of a model on disk",
    """Every other layer is mapped to "disk", the rest of a bfloat16 model to the CPU; the file is in the page cache.
    Timed are the load, with accelerate imported before, and a pass over 8 tokens, the median of three after the first.
    Both libraries leave the tensors in the checkpoint's own file. The same pass with nothing on disk is there to
    compare.""",
)
TOKENS = 8
REST = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")


def _map(context: Context) -> dict[str, str]:
    layers = _checkpoints.num_layers(context)
    return {**{f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(layers)}, **REST}


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)
    _checkpoints.tiny(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


def _measure(context: Context, library: str, device_map: dict[str, str] | None) -> dict:
    import statistics

    import torch

    folder = _checkpoints.large(context)
    options = {} if device_map is None else {"device_map": device_map}
    tiny = {} if device_map is None else {"device_map": {"model.layers": "disk", **REST}}
    ids = torch.arange(1, TOKENS + 1)[None]
    result: dict = {}
    with torch.inference_mode():
        _loads.load_with(library, _checkpoints.tiny(context), **tiny)()(ids)
        load = _loads.load_with(library, folder, **options)
        reset_peak()
        start = memory()
        with timed(result):
            model = load()
        with timed(result, "first"):
            model(ids)
        passes = []
        for _ in range(3):
            one: dict = {}
            with timed(one):
                model(ids)
            passes.append(one["seconds"])
        result["pass"] = statistics.median(passes)
        result["anonymous"] = memory()["anonymous"] - start["anonymous"]
        # Bits of the answer, so that a wrong one is not mistaken for a fast one.
        result["logit"] = float(model(ids).logits[0, -1].float().abs().sum())
    return result


@bench.variant()
def pretrained(context: Context) -> dict:
    return _measure(context, "pretrained", _map(context))


@bench.variant()
def in_memory(context: Context) -> dict:
    return _measure(context, "pretrained", None)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _measure(context, "transformers", _map(context))


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    whole = row(results, "a pass", "pretrained", "in_memory", None, key="pass", against="nothing on disk")
    return [
        row(results, "load", "pretrained", "transformers", 1.0),
        row(results, "first pass", "pretrained", "transformers", None, key="first"),
        row(results, "a pass", "pretrained", "transformers", 1.0, key="pass"),
        row(results, "anonymous memory", "pretrained", "transformers", None, key="anonymous", show=megabytes),
        whole,
        Row("load, nothing on disk", seconds(results.median("in_memory")), "–", "–", None, "–", None),
    ]


if __name__ == "__main__":
    bench.main()
