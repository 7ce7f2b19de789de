"""Renames between a Mixtral checkpoint and the modules here: experts that are stored one by one are one tensor."""

from __future__ import annotations

from ...checkpoint.fusions import Fusion
from ...checkpoint.rules import Rule

__all__ = ["RULES"]

_EXPERT = r"\.block_sparse_moe\.experts\.(?P<item>0|[1-9]\d{0,5})\."
_AT_REST = ".block_sparse_moe.experts.{item}."

RULES = (
    Fusion(
        _EXPERT + r"(?P<piece>w1|w3)\.weight$",
        ".mlp.experts.gate_up_proj",
        (r"\.mlp\.experts\.gate_up_proj$", _AT_REST + "{piece}.weight"),
        ("w1", "w3"),
    ),
    Fusion(
        _EXPERT + r"w2\.weight$",
        ".mlp.experts.down_proj",
        (r"\.mlp\.experts\.down_proj$", _AT_REST + "w2.weight"),
    ),
    Rule(r"\.block_sparse_moe\.gate\.", ".mlp.gate.", back=(r"\.mlp\.gate\.", ".block_sparse_moe.gate.")),
)
