"""Mixtures of experts: a router that chooses a few of many feed-forward halves for each token (arXiv 2101.03961).

Tokens are sorted by expert, so each expert computes once for all of its tokens. Which way that is done depends on where
it runs; the results are the same up to rounding:

on a GPU in bfloat16   one grouped product for all experts, without a look at how many tokens each has
while a graph is recorded   the loop below as one operator, so that the graph does not depend on the numbers
elsewhere   a loop over the experts that have tokens; on a GPU their numbers are read back once
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import activation

__all__ = ["Experts", "Router", "grouped_linear", "init_normal_experts"]


class Router(nn.Module):
    """Chooses experts for each token.

    Args:
        hidden_size: of a token.
        num_experts: to choose from.
        top_k: how many are chosen.
        normalise: whether the weights of those sum to 1.
    """

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, normalise: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))
        self.top_k = top_k
        self.normalise = normalise
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """What `nn.Linear` gives a layer of this shape."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of `(tokens, hidden)`: logits `(tokens, experts)`; weights and numbers of the chosen `(tokens, top_k)`.

        The weights are float32 or better.
        """
        logits = F.linear(hidden_states, self.weight)
        shares = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, chosen = shares.topk(self.top_k, -1)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, weights, chosen

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        experts, hidden = self.weight.shape
        return f"{hidden}, {experts}, top_k={self.top_k}, normalise={self.normalise}"


class Experts(nn.Module):
    """Gated feed-forward halves, the weights of all in two tensors.

    Args:
        num_experts: how many.
        hidden_size: of a token.
        intermediate_size: of an expert.
        hidden_act: the activation's name.
    """

    def __init__(self, num_experts: int, hidden_size: int, intermediate_size: int, hidden_act: str) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))
        self.act_fn = activation(hidden_act)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """What `nn.Linear` gives each expert's layers."""
        for stack in (self.gate_up_proj, self.down_proj):
            bound = stack.shape[2] ** -0.5
            nn.init.uniform_(stack, -bound, bound)

    def forward(self, hidden_states: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """`(tokens, hidden)`: the results of the experts `chosen` `(tokens, top_k)`, summed by `weights`."""
        tokens, top_k = chosen.shape
        experts, order = chosen.flatten().sort(stable=True)
        counts = torch.zeros(len(self.gate_up_proj), dtype=torch.int64, device=experts.device)
        counts.scatter_add_(0, experts, torch.ones_like(experts))
        rows = self._compute(hidden_states[order // top_k], counts)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0], device=order.device))
        rows = rows[back].view(tokens, top_k, hidden_states.shape[1])
        # Summed as wide as the weights are, rounded once.
        return (rows * weights[..., None]).sum(1).to(hidden_states.dtype)

    def _compute(self, rows: Tensor, counts: Tensor) -> Tensor:
        """`(tokens * top_k, hidden)` of such rows, sorted by expert; `counts` `(experts,)` says how many each has."""
        if can_group(rows, self.gate_up_proj) and can_group(rows, self.down_proj):
            return self._through(lambda x, stack: _grouped_mm(x, stack, counts), rows)
        if torch.compiler.is_compiling():
            return self._through(lambda x, stack: grouped_linear(x, stack, counts), rows)
        gates, downs = self.gate_up_proj.unbind(0), self.down_proj.unbind(0)
        numbers = counts.tolist()
        parts = [
            F.linear(self._gated(F.linear(part, gates[expert])), downs[expert])
            for expert, part in enumerate(rows.split(numbers))
            if numbers[expert]
        ]
        return torch.cat(parts) if parts else rows

    def _through(self, linear: Callable[[Tensor, Tensor], Tensor], rows: Tensor) -> Tensor:
        return linear(self._gated(linear(rows, self.gate_up_proj)), self.down_proj)

    def _gated(self, widened: Tensor) -> Tensor:
        gate, value = widened.chunk(2, -1)
        return self.act_fn(gate) * value

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        experts, hidden, intermediate = self.down_proj.shape
        return f"{experts}, {hidden}, {intermediate}"


def init_normal_experts(module: nn.Module, std: float) -> None:
    """Fills the weights of experts or of a router: normal with `std`."""
    if isinstance(module, Experts):
        nn.init.normal_(module.gate_up_proj, std=std)
        nn.init.normal_(module.down_proj, std=std)
    elif isinstance(module, Router):
        nn.init.normal_(module.weight, std=std)


def can_group(rows: Tensor, stack: Tensor) -> bool:
    """Whether torch has a kernel for a product with each expert's own weight: bfloat16 on a GPU of 2020 or later."""
    if not rows.is_cuda or not rows.dtype == stack.dtype == torch.bfloat16 or vars(F).get("grouped_mm") is None:
        return False
    is_aligned = stack.shape[1] % 8 == 0 and stack.shape[2] % 8 == 0  # rows of whole 16 bytes
    return is_aligned and torch.cuda.get_device_capability(stack.device) >= (8, 0)


def _grouped_mm(rows: Tensor, stack: Tensor, counts: Tensor) -> Tensor:
    ends = counts.cumsum(0).to(torch.int32)
    return F.grouped_mm(rows, stack.transpose(1, 2), offs=ends)


@torch.library.custom_op("pretrained::grouped_linear", mutates_args=())
def grouped_linear(rows: Tensor, stack: Tensor, counts: Tensor) -> Tensor:
    """`F.linear` of each run of `rows` `(rows, in)` with its own weight of `stack` `(experts, out, in)`.

    Args:
        rows: sorted by expert.
        stack: the weights.
        counts: `(experts,)`, how many rows each expert has.
    """
    out = rows.new_empty(rows.shape[0], stack.shape[1])
    for expert, start, stop in _runs(counts):
        torch.mm(rows[start:stop], stack[expert].t(), out=out[start:stop])
    return out


@grouped_linear.register_fake
def _(rows: Tensor, stack: Tensor, counts: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], stack.shape[1])


@torch.library.custom_op("pretrained::grouped_outer", mutates_args=())
def _grouped_outer(rows: Tensor, others: Tensor, counts: Tensor) -> Tensor:
    """`(experts, in, out)`: the transposed rows of each expert times its `others`; what a gradient of weights is."""
    out = rows.new_zeros(counts.shape[0], rows.shape[1], others.shape[1])
    for expert, start, stop in _runs(counts):
        torch.mm(rows[start:stop].t(), others[start:stop], out=out[expert])
    return out


@_grouped_outer.register_fake
def _(rows: Tensor, others: Tensor, counts: Tensor) -> Tensor:
    return rows.new_empty(counts.shape[0], rows.shape[1], others.shape[1])


def _runs(counts: Tensor) -> list[tuple[int, int, int]]:
    """(expert, first row, row past the last) of each expert that has rows."""
    numbers = counts.tolist()
    pairs = enumerate(zip(numbers, accumulate(numbers), strict=True))
    return [(expert, stop - number, stop) for expert, (number, stop) in pairs if number]


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    rows, stack, counts = ctx.saved_tensors
    needs_rows, needs_stack, _ = ctx.needs_input_grad
    gradient = gradient.contiguous()
    of_rows = grouped_linear(gradient, stack.transpose(1, 2), counts) if needs_rows else None
    return of_rows, _grouped_outer(gradient, rows, counts) if needs_stack else None, None


grouped_linear.register_autograd(_backward, setup_context=_keep)
