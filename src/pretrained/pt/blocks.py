"""Small parts of blocks that several families share; their parameters have the names of those families' checkpoints."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import activation

__all__ = ["AddNorm", "FirstTokenPooler", "GatedMLP", "Widening"]


class AddNorm(nn.Module):
    """Projection of what a part of a block computed, added to the part's input and normalised (BERT's `output`)."""

    def __init__(self, size: int, hidden_size: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq, size)`."""
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class Widening(nn.Module):
    """First half of a feed-forward part (BERT's `intermediate`)."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, intermediate_size)
        self.intermediate_act_fn = activation(hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, intermediate)`."""
        return self.intermediate_act_fn(self.dense(hidden_states))


class FirstTokenPooler(nn.Module):
    """A summary of the sequence: its first token, projected (BERT's `pooler`)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, hidden)`."""
        return self.activation(self.dense(hidden_states[:, 0]))


class GatedMLP(nn.Module):
    """Two projections, one gating the other through an activation, and a third one back (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.act_fn = activation(hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
