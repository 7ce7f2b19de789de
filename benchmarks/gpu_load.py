"""A warm load of 2 GB onto a GPU, against transformers, safetensors and a copy from pinned memory. Needs CUDA."""

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, row
from _measure import timed, warm_files

bench = Bench(
    "gpu_load",
    "Load onto a GPU",
    """The file is in the page cache; the process has loaded the model onto the GPU once before, and the median of five
    further loads counts, each until the GPU has everything. The floor is the same number of bytes copied to the GPU
    from one pinned buffer.""",
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.large(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_checkpoints.large(context))


def _loaded(library: str, context: Context) -> dict:
    import torch

    load = _loads.load_with(library, _checkpoints.large(context), device_map=0)

    def ready() -> object:
        model = load()
        torch.cuda.synchronize()
        return model

    return _loads.again(ready, output=False)


@bench.variant()
def pretrained(context: Context) -> dict:
    return _loaded("pretrained", context)


@bench.variant(peer=True)
def transformers(context: Context) -> dict:
    return _loaded("transformers", context)


@bench.variant(peer=True)
def safetensors(context: Context) -> dict:
    import torch
    from safetensors.torch import load_file

    file = _checkpoints.large(context) / "model.safetensors"

    def ready() -> dict:
        tensors = load_file(file, device="cuda:0")
        torch.cuda.synchronize()
        return tensors

    tensors, times = ready(), []
    for _ in range(5):
        result: dict = {}
        del tensors
        with timed(result):
            tensors = ready()
        times.append(result["seconds"])
    return {"seconds": sorted(times)[2], "tensors": len(tensors)}


@bench.variant()
def pinned_copy(context: Context) -> dict:
    import torch

    size = _checkpoints.num_bytes(_checkpoints.large(context))
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(6):
        result: dict = {}
        with timed(result):
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
        times.append(result["seconds"])
    return {"seconds": sorted(times)[2], "gigabytes_per_second": size / sorted(times)[2] / 1e9}


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    return [
        row(results, "load", "pretrained", "transformers", 1.0),
        row(results, "load", "pretrained", "safetensors", 1.0, against="safetensors, tensors alone"),
        row(results, "load", "pretrained", "pinned_copy", None, against="a copy from pinned memory"),
    ]


if __name__ == "__main__":
    bench.main()
