"""Products with few rows in a step that is compiled for a CPU: sums that inductor makes loops over the weight of.

The libraries that a product of matrices is handed to are made for many rows. With one row, or few, a plain loop that
reads each row of the weight once keeps up with the memory, where they take 2 to 4 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._inductor import lowering  # noqa: F401  - registers `realize`
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.decomposition import select_decomp_table

__all__ = ["OPTIONS", "decompositions"]

# With more rows the arithmetic is what takes the time, and a library is better at it. bfloat16 is widened in each row.
MAX_ROWS = {torch.float32: 8, torch.bfloat16: 4, torch.float16: 4}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Inductor's own, and those of products here."""
    aten = torch.ops.aten
    return {**select_decomp_table(), aten.mm.default: _product, aten.addmm.default: _sum_and_product}


def _product(x: Tensor, weight: Tensor) -> Any:
    """`x @ weight` of few rows."""
    if not 0 < x.shape[0] <= MAX_ROWS.get(x.dtype, 0):
        return NotImplemented
    return _rows(x, weight).to(x.dtype)


def _sum_and_product(bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if beta != 1 or alpha != 1 or not 0 < x.shape[0] <= MAX_ROWS.get(x.dtype, 0):
        return NotImplemented
    return (_rows(x, weight) + bias).to(x.dtype)


def _rows(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight` in float32, each row a sum of its own: inductor joins them to one loop."""
    # Without a place of its own inductor would compute `x` again for each column of the weight.
    x = torch.ops._inductor_test.realize(x).float()
    if x.shape[0] == 1:
        return (x.t() * weight.float()).sum(0, keepdim=True)
    columns = weight.t().float()
    return torch.stack([(columns * row).sum(-1) for row in x.unbind()])


class _WidenOnce(CustomGraphPass):
    """Takes int8 weights to float32 directly, not by way of a 16-bit type: no other rounding, and a fast instruction.

    How int8 weights are written: as a product with the weight in the type of the activations.
    """

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Changes `graph`, in inductor's primitive operations, in place."""
        convert = torch.ops.prims.convert_element_type.default
        for node in graph.find_nodes(op="call_function", target=convert):
            source, dtype = node.args
            if dtype != torch.float32 or source.op != "call_function" or source.target is not convert:
                continue
            weight, narrow = source.args
            # What another pass has put in may not say what it is.
            is_int8 = getattr(weight.meta.get("val"), "dtype", None) == torch.int8
            if is_int8 and narrow in (torch.bfloat16, torch.float16):
                node.update_arg(0, weight)

    def uuid(self) -> str:
        """What inductor's cache of graphs knows this pass by."""
        return "pretrained: int8 to float32, 1"


OPTIONS: Mapping[str, Any] = {"post_grad_custom_post_pass": _WidenOnce()}
