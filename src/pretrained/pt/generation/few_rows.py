"""Linear layers on a CPU in bfloat16, where a step of generation gives them one row or a few.

The product that `F.linear` calls takes the weight as its second factor and is far from the memory's speed with so few
rows. One row as a product of a matrix and a vector, and a few with the weight as the first factor, take two thirds of
the time on two cores, and give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["few_row_products"]

MAX_ROWS = 16  # with more of them the products are as fast either way


class _FewRowLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """`(…, out)` of `(…, in)`."""
        num_rows, is_usual = input.shape[:-1].numel(), input.dtype == self.weight.dtype
        is_usual = is_usual and input.shape[-1] == self.in_features and not torch.compiler.is_compiling()
        if not is_usual or not 0 < num_rows <= MAX_ROWS:
            # Not by super(): a call in another thread may have set the class back by now.
            return F.linear(input, self.weight, self.bias)
        if num_rows == 1:
            row = input.reshape(-1)
            out = torch.mv(self.weight, row) if self.bias is None else torch.addmv(self.bias, self.weight, row)
        else:
            w, columns = self.weight, input.reshape(num_rows, -1).t()
            out = w @ columns if self.bias is None else torch.addmm(self.bias[:, None], w, columns)
            out = out.t().contiguous()
        return out.view(*input.shape[:-1], -1)


@contextmanager
def few_row_products(*models: Any) -> Iterator[None]:
    """Within it, plain linear layers of the models compute few rows as above; `None` among the models is passed over.

    Only the class of a layer changes, and only for a time: what looks for `nn.Linear` itself finds it before and after,
    and hooks, adapters around it and a forward of its own stay in force.
    """
    layers = [layer for model in models if model is not None for layer in model.modules() if _is_plain(layer)]
    for layer in layers:
        layer.__class__ = _FewRowLinear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear:
        return False
    weight = layer._parameters["weight"]
    return type(weight) is nn.Parameter and weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
