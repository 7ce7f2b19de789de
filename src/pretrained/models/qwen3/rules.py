"""Renames between a Qwen3 checkpoint and the modules here."""

from __future__ import annotations

from ...checkpoint.rules import Rule

__all__ = ["QUESTION_ANSWERING", "RULES"]

RULES: tuple[Rule, ...] = ()

# Of all classes only the one for question answering has its base under `transformer`: the checkpoints of the others
# are read into it too.
QUESTION_ANSWERING = (Rule(r"^model\.", "transformer."),)
