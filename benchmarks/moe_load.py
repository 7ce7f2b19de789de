"""Experts stored one by one: read into place in 0.7 of transformers' time at most, without a second copy; and saved."""

import os
import shutil
from pathlib import Path

import _checkpoints
import _loads
from _harness import Bench, Context, Results, Row, bound, megabytes, row
from _measure import memory, timed, warm_files, warm_memory

bench = Bench(
    "moe_load",
    "Experts: load and save",
    """A Mixtral of 2.3 GB in bfloat16 whose experts are stored one by one; in the model they are two tensors a layer.
    Loaded from one warm file, as it is and cast to float32; loaded again from what our own save wrote, whose experts
    lie in the order of the model and are mapped; and saved under the published names, without a flush on either side.
    Each process has loaded a tiny model before. The peak is the highest resident memory over what was resident
    before.""",
    memory=int(5e9),
)


@bench.prepare
def prepare(context: Context) -> None:
    _checkpoints.experts(context)
    _checkpoints.tiny(context)


@bench.before
def before(context: Context, name: str) -> None:
    warm_files(_own(context) if "own_save" in name and _own(context).exists() else _checkpoints.experts(context))
    os.sync()


def _own(context: Context) -> Path:
    """What our save makes of the checkpoint."""
    return context.scratch / "experts-saved"


def _load(context: Context, library: str, folder: Path, **options: str) -> dict:
    import torch

    _loads.load_with(library, _checkpoints.tiny(context))()
    load = _loads.load_with(library, folder, **options)
    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    with timed(result):
        model = load()
    after = memory()
    result["peak"] = after["peak"] - before["rss"]
    result["beyond_result"] = result["peak"] - sum(p.numel() * p.element_size() for p in model.parameters())
    with torch.inference_mode(), timed(result, "output"):
        model(torch.tensor([[1]]))
    return result


@bench.variant()
def pretrained_load(context: Context) -> dict:
    return _load(context, "pretrained", _checkpoints.experts(context))


@bench.variant(peer=True)
def transformers_load(context: Context) -> dict:
    return _load(context, "transformers", _checkpoints.experts(context))


@bench.variant()
def pretrained_load_as_float32(context: Context) -> dict:
    return _load(context, "pretrained", _checkpoints.experts(context), dtype="float32")


@bench.variant(peer=True)
def transformers_load_as_float32(context: Context) -> dict:
    return _load(context, "transformers", _checkpoints.experts(context), dtype="float32")


def _save(context: Context, library: str) -> dict:
    model = _loads.load_with(library, _checkpoints.experts(context))()
    for parameter in model.parameters():
        parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()
    target = _own(context) if library == "pretrained" else context.scratch / f"saved-{os.getpid()}"
    warm_memory(bench.memory)
    before = memory()
    result: dict = {}
    with timed(result):
        model.save_pretrained(target, **({"durable": False} if library == "pretrained" else {}))
    result["peak"] = memory()["peak"] - before["rss"]
    if library != "pretrained":
        shutil.rmtree(target, ignore_errors=True)
    return result


@bench.variant()
def pretrained_save(context: Context) -> dict:
    return _save(context, "pretrained")


@bench.variant(peer=True)
def transformers_save(context: Context) -> dict:
    return _save(context, "transformers")


@bench.variant()
def pretrained_load_of_own_save(context: Context) -> dict:
    if not _own(context).exists():
        _save(context, "pretrained")
    return _load(context, "pretrained", _own(context))


@bench.judge
def judge(results: Results, context: Context) -> list[Row]:
    rows = []
    for what, limit in (("load", 0.7), ("load_as_float32", 0.7), ("save", 1.0)):
        ours, theirs, name = f"pretrained_{what}", f"transformers_{what}", what.replace("_", " ")
        rows += [
            row(results, name, ours, theirs, limit, against="transformers"),
            row(results, f"{name}, peak", ours, theirs, None, key="peak", against="transformers", show=megabytes),
        ]
        if what != "save":
            beyond = results.median(ours, "beyond_result")
            rows.append(bound(f"{name}, peak beyond the result", beyond, 64e6, megabytes))
    against = "transformers, as published"
    again = row(
        results, "load of what we saved", "pretrained_load_of_own_save", "transformers_load", None, against=against
    )
    return [*rows, again]


if __name__ == "__main__":
    bench.main()
