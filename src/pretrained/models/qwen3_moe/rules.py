"""Renames between a Qwen3-MoE checkpoint and the modules here: experts that are stored one by one are one tensor."""

from __future__ import annotations

from ...checkpoint.fusions import Fusion
from ...checkpoint.rules import Rule

__all__ = ["QUESTION_ANSWERING", "RULES"]

_EXPERT = r"\.mlp\.experts\.(?P<item>0|[1-9]\d{0,5})\."
_AT_REST = ".mlp.experts.{item}."

_EXPERTS = (
    Fusion(
        _EXPERT + r"(?P<piece>gate_proj|up_proj)\.weight$",
        ".mlp.experts.gate_up_proj",
        (r"\.mlp\.experts\.gate_up_proj$", _AT_REST + "{piece}.weight"),
        ("gate_proj", "up_proj"),
    ),
    Fusion(
        _EXPERT + r"down_proj\.weight$",
        ".mlp.experts.down_proj",
        (r"\.mlp\.experts\.down_proj$", _AT_REST + "down_proj.weight"),
    ),
)
# Of all classes only the one for question answering has its base under `transformer`; it and the others read each
# other's checkpoints.
RULES = (*_EXPERTS, Rule(r"^transformer\.", "model."))
QUESTION_ANSWERING = (*_EXPERTS, Rule(r"^model\.", "transformer."))
