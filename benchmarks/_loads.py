"""Loads that several benchmarks time: ours, the peer's, and the least that anything could do."""

from __future__ import annotations

import json
import mmap
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import timed

__all__ = ["again", "bare", "load_with", "stages"]


def load_with(library: str, folder: Path, **options: Any) -> Callable[[], Any]:
    """A call that loads the checkpoint with AutoModelForCausalLM of either library; imported before it is timed."""
    if library == "pretrained":
        from pretrained import AutoModelForCausalLM
    else:
        from transformers import AutoModelForCausalLM
    return lambda: AutoModelForCausalLM.from_pretrained(str(folder), **options)


def again(load: Callable[[], Any], repeats: int = 5, *, output: bool = True) -> dict[str, Any]:
    """The median of later loads in a process that has loaded once; and the first output of the last."""
    import torch

    model = load()
    times = []
    for _ in range(repeats):
        result: dict[str, Any] = {}
        del model  # the end of the last model is not part of the next load
        with timed(result):
            model = load()
        times.append(result["seconds"])
    result = {"seconds": statistics.median(times), "best": min(times)}
    if output:
        with torch.inference_mode(), timed(result, "output"):
            model(torch.tensor([[1]]))
    result["tensors"] = len(model.state_dict())
    return result


def bare(folder: Path) -> Callable[[], Any]:
    """The floor: the modules on the meta device with nothing initialised, one mapping, a view for each tensor.

    No check, no plan, no report, no ties, no eval mode; the header is read with json, the names are known to match.
    """
    import torch

    from pretrained import LlamaConfig, LlamaForCausalLM

    class Bare(LlamaForCausalLM):
        def post_init(self) -> None:
            pass

    def nothing(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor

    for name in ("kaiming_uniform_", "uniform_", "normal_", "ones_", "zeros_"):
        setattr(torch.nn.init, name, nothing)

    def load() -> Any:
        values = json.loads((folder / "config.json").read_text())
        with torch.device("meta"):
            model = Bare(LlamaConfig(**values))
        with open(folder / "model.safetensors", "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            area = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        del header["__metadata__"]
        start_of_data = 8 + length
        dtypes = {"BF16": torch.bfloat16, "F32": torch.float32}
        modules = dict(model.named_modules())
        for name, entry in header.items():
            owner, _, key = name.rpartition(".")
            dtype, (start, stop) = dtypes[entry["dtype"]], entry["data_offsets"]
            count = (stop - start) // dtype.itemsize
            view = torch.frombuffer(area, dtype=dtype, count=count, offset=start_of_data + start)
            modules[owner]._parameters[key] = torch.nn.Parameter(view.view(entry["shape"]), requires_grad=False)
        return model

    return load


def stages(folder: Path) -> dict[str, float]:
    """Milliseconds by stage of a later load, as our own report has them."""
    load = load_with("pretrained", folder, output_loading_info=True)
    load()
    reports = [load()[1] for _ in range(5)]
    return {name: 1000 * statistics.median(r.seconds[name] for r in reports) for name in reports[0].seconds}
