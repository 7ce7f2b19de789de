"""A 2 GB Llama into JAX: ten times as fast as transformers 4.57.6, in no more memory than the parameters take."""

import statistics

import _checkpoints
from _harness import Bench, Context, Results, Row, bound, row
from _measure import memory, reset_peak, timed, warm_files

bench = Bench(
    "flax_load",
    "JAX: load of 2 GB",
    """The file is in the page cache. transformers' FlaxLlama loads it once; ours and our torch load are the median of
    five later loads in a process that has loaded once, as its first load imports. The memory is the most that the
    process had in a load and after every page of the parameters was touched, less what it had before.""",
    memory=int(5e9),
    repeats=3,
    peers=".venv-peers-4",
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)
    _ours(context)


def _ours(context: Context):
    """The same model as our own writer lays it out."""
    folder = context.scratch / f"large-saved-{_checkpoints.num_layers(context)}"
    if not (folder / "config.json").exists():
        from pretrained import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained(_checkpoints.large(context)).save_pretrained(folder, durable=False)
    return folder


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))
    warm_files(_ours(context))


def _jax(load, repeats: int = 5) -> dict:
    import jax

    def ready():
        model = load()
        jax.block_until_ready(model.params)
        return model

    jax.device_put(1.0)
    reset_peak()
    before = memory()["rss"]
    model = ready()  # the first, because what a later one takes may have been an earlier one's
    _touch(model.params)
    peak, times = memory()["peak"] - before, []
    for _ in range(repeats):
        result: dict = {}
        del model
        with timed(result):
            model = ready()
        times.append(result["seconds"])
    return {"seconds": statistics.median(times), "peak": peak / _size(model.params)}


def _size(params) -> int:
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def _touch(params) -> None:
    """Brings in every page of a file that arrays are mapped from."""
    import jax
    import numpy as np

    for leaf in jax.tree.leaves(params):
        np.asarray(leaf).reshape(-1).view(np.uint8)[::4096].sum()


@bench.variant()
def pretrained(context: Context) -> dict:
    from pretrained import FlaxAutoModelForCausalLM

    return _jax(lambda: FlaxAutoModelForCausalLM.from_pretrained(_ours(context)))


@bench.variant()
def copied(context: Context) -> dict:
    from pretrained import FlaxAutoModelForCausalLM

    return _jax(lambda: FlaxAutoModelForCausalLM.from_pretrained(_ours(context), mmap=False))


@bench.variant()
def torch_load(context: Context) -> dict:
    import _loads

    return _loads.again(_loads.load_with("pretrained", _ours(context)), output=False)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    import jax
    from transformers import FlaxAutoModelForCausalLM

    jax.device_put(1.0)
    before = memory()["rss"]
    result: dict = {}
    with timed(result):
        model = FlaxAutoModelForCausalLM.from_pretrained(_checkpoints.large(context), from_pt=True)
        jax.block_until_ready(model.params)
    return {**result, "peak": (memory()["peak"] - before) / _size(model.params)}


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "load", "pretrained", "transformers", 0.1),
        row(results, "load with mmap=False", "copied", "transformers", 0.1),
        row(results, "load", "pretrained", "torch_load", 2.0, against="our torch load"),
        bound("highest memory, parameters = 1", results.median("pretrained", "peak"), 1.05, lambda x: f"{x:.3f}"),
        bound("the same, mmap=False", results.median("copied", "peak"), 1.05, lambda x: f"{x:.3f}"),
    ]


if __name__ == "__main__":
    bench.main()
