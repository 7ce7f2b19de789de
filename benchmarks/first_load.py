"""The first load in a fresh process, beyond importing torch: at most a tenth of transformers' time."""

import _checkpoints
from _harness import Bench, Context, Results, Row, row
from _measure import timed, warm_files

bench = Bench(
    "first_load",
    "First load in a process",
    """A fresh process has imported torch; the clock runs from there over the import of the library to the loaded
    model, and on to its first output, for one token. The file is in the page cache.""",
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


def _first(context: Context, library: str) -> dict:
    import torch

    folder = str(_checkpoints.large(context))
    result = {}
    with torch.inference_mode(), timed(result, "usable"):
        with timed(result, "seconds"):
            if library == "pretrained":
                from pretrained import AutoModel
            else:
                from transformers import AutoModel
            model = AutoModel.from_pretrained(folder)
        model(torch.tensor([[1]]))
    return result


@bench.variant()
def pretrained(context: Context) -> dict:
    return _first(context, "pretrained")


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _first(context, "transformers")


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "import and load, beyond torch", "pretrained", "transformers", 0.1),
        row(results, "the same to the first output", "pretrained", "transformers", None, key="usable"),
    ]


if __name__ == "__main__":
    bench.main()
