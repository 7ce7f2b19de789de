"""Linear layers on a CPU where a step of generation gives them one row or a few.

The product that `F.linear` calls takes the weight as its second factor. On some processors that is far from the speed
of the memory with so few rows, and another way to the same numbers, up to the order of a sum, takes a third to
three quarters of the time:

- In float32, where MKL runs on a processor of AMD: the weight as the first factor. One row as two equal columns is as
  fast as two are.
- In bfloat16, on a processor without instructions for it: the weight as the first factor.
- In bfloat16, on one that has them: one row by torch's own loop. oneDNN, which comes before it, is made for many rows.
"""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["few_row_products"]


# These have no methods or attributes that a plain layer lacks: a call in another thread may set the class of a layer
# back while its forward runs.


class _Float32Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return _linear(self, input, _float32_rows, max_rows=8)


class _Bfloat16Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return _linear(self, input, _bfloat16_rows, max_rows=16)


class _Bfloat16RowLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        return _linear(self, input, _bfloat16_row, max_rows=1)


def _linear(layer: nn.Linear, input: Tensor, product: Callable[..., Tensor], max_rows: int) -> Tensor:
    """What the layer makes of its input; by `product` up to so many rows: with more it is as fast either way."""
    num_rows, weight, bias = input.shape[:-1].numel(), layer.weight, layer.bias
    is_usual = input.dtype == weight.dtype and input.shape[-1] == layer.in_features
    if not is_usual or not 0 < num_rows <= max_rows or torch.compiler.is_compiling():
        return F.linear(input, weight, bias)
    return product(weight, bias, input.reshape(num_rows, -1)).view(*input.shape[:-1], -1)


def _float32_rows(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`(rows, out)`, contiguous, of `(rows, in)`."""
    if len(rows) == 1:
        return _columns(weight, bias, rows.repeat(2, 1))[:, 0].contiguous()
    if len(rows) <= 4:
        return _columns(weight, bias, rows).t().contiguous()
    return torch.cat([_columns(weight, bias, half).t() for half in rows.chunk(2)])


def _bfloat16_rows(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`(rows, out)`, contiguous, of `(rows, in)`."""
    if len(rows) > 1:
        return _columns(weight, bias, rows).t().contiguous()
    return torch.mv(weight, rows[0]) if bias is None else torch.addmv(bias, weight, rows[0])


def _bfloat16_row(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`(1, out)` of `(1, in)`."""
    was_enabled = torch.backends.mkldnn.set_flags(False)[0]
    try:
        return _bfloat16_rows(weight, bias, rows)
    finally:
        if was_enabled:  # if not, it is off for good, or another thread is in here and turns it on again
            torch.backends.mkldnn.set_flags(True)


def _columns(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`(out, rows)` of `(rows, in)`."""
    return weight @ rows.t() if bias is None else torch.addmm(bias[:, None], weight, rows.t())


@functools.cache
def _kinds() -> dict[torch.dtype, type[nn.Linear]]:
    """The dtypes whose products with few rows are slow on this processor, and the layers that know better."""
    kinds: dict[torch.dtype, type[nn.Linear]] = {}
    if torch.backends.mkl.is_available() and _is_of_amd():
        kinds[torch.float32] = _Float32Linear
    # Named with an underscore in torch: a release without them is taken to have no such instructions.
    asked = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    has_instructions = any(question() for question in asked if question is not None)
    kinds[torch.bfloat16] = _Bfloat16RowLinear if has_instructions else _Bfloat16Linear
    return kinds


def _is_of_amd() -> bool:
    description = Path("/proc/cpuinfo")
    text = description.read_text(errors="replace") if description.exists() else platform.processor()
    return "AuthenticAMD" in text


@contextmanager
def few_row_products(*models: Any) -> Iterator[None]:
    """Within it, plain linear layers of the models compute few rows as above; `None` among the models is passed over.

    Only the class of a layer changes, and only for a time: what looks for `nn.Linear` itself finds it before and after,
    and hooks, adapters around it and a forward of its own stay in force.
    """
    kinds = _kinds()
    if not _is_alone():
        kinds = {dtype: kind for dtype, kind in kinds.items() if kind is not _Bfloat16RowLinear}
    layers = [layer for model in models if model is not None for layer in model.modules()]
    found = [(layer, kind) for layer in layers if (kind := _kind_for(layer, kinds)) is not None]
    for layer, kind in found:
        layer.__class__ = kind
    try:
        yield
    finally:
        for layer, _ in found:
            layer.__class__ = nn.Linear


def _kind_for(layer: nn.Module, kinds: Mapping[torch.dtype, type[nn.Linear]]) -> type[nn.Linear] | None:
    if type(layer) is not nn.Linear:
        return None
    weight = layer._parameters["weight"]
    return kinds.get(weight.dtype) if type(weight) is nn.Parameter and weight.device.type == "cpu" else None


def _is_alone() -> bool:
    """Whether no other thread of Python is likely to compute meanwhile.

    Whether oneDNN is used is a setting of the process: others would lose it at moments, and with it their speed. What
    serves a notebook or a progress bar are daemons; what a program computes in seldom is, or works for the main thread.
    """
    main = threading.main_thread()
    others = [thread for thread in threading.enumerate() if thread is not main]
    return threading.current_thread() is main and all(thread.daemon for thread in others)
