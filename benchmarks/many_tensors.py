"""A model of 723 small tensors: at most a third of transformers' time."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row
from _measure import warm_files

bench = Bench(
    "many_tensors",
    "723 tensors",
    """80 layers of hidden size 64: nothing but what each tensor and each module costs. The median of five loads in a
    process that has loaded once.""",
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.tiny(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.tiny(context))


def _per_tensor(result: dict) -> dict:
    return {**result, "per_tensor": result["seconds"] / result["tensors"]}


@bench.variant()
def pretrained(context: Context) -> dict:
    folder = _checkpoints.tiny(context)
    result = _per_tensor(_loads.again(_loads.load_with("pretrained", folder)))
    return {**result, "stages": _loads.stages(folder)}


@bench.variant()
def floor(context: Context) -> dict:
    return _loads.again(_loads.bare(_checkpoints.tiny(context)), output=False)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _per_tensor(_loads.again(_loads.load_with("transformers", _checkpoints.tiny(context))))


def _microseconds(value: float) -> str:
    return f"{value * 1e6:.0f} µs"


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "load", "pretrained", "transformers", 1 / 3),
        row(results, "load", "pretrained", "floor", None, against="skeleton + mapping alone"),
        row(results, "a tensor", "pretrained", "transformers", None, key="per_tensor", show=_microseconds),
    ]


if __name__ == "__main__":
    bench.main()
