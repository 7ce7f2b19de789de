"""A later load of a 2 GB model in a process: at most a fifth of transformers' time, and 1.3 times the bare minimum."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row
from _measure import warm_files

bench = Bench(
    "warm_load",
    "Warm load of 2 GB",
    """The file is in the page cache; the process has loaded the model once before, and the median of five further
    loads counts. The floor builds the modules on the meta device, maps the file and makes a view for each tensor, and
    checks nothing. The time to the first output adds one forward pass over one token, which touches every page.""",
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


@bench.variant()
def pretrained(context: Context) -> dict:
    folder = _checkpoints.large(context)
    result = _loads.again(_loads.load_with("pretrained", folder))
    result["usable"] = result["seconds"] + result["output"]
    return {**result, "stages": _loads.stages(folder)}


@bench.variant()
def floor(context: Context) -> dict:
    return _loads.again(_loads.bare(_checkpoints.large(context)), output=False)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    result = _loads.again(_loads.load_with("transformers", _checkpoints.large(context)))
    return {**result, "usable": result["seconds"] + result["output"]}


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "load", "pretrained", "transformers", 0.2),
        row(results, "load", "pretrained", "floor", 1.3, against="skeleton + mapping alone"),
        row(results, "load, and the first output", "pretrained", "transformers", None, key="usable"),
    ]


if __name__ == "__main__":
    bench.main()
