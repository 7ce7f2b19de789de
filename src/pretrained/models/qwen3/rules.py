"""Renames between a Qwen3 checkpoint and the modules here."""

from __future__ import annotations

from ...checkpoint.rules import Rule

__all__ = ["QUESTION_ANSWERING", "RULES"]

# Of all classes only the one for question answering has its base under `transformer`; it and the others read each
# other's checkpoints.
RULES = (Rule(r"^transformer\.", "model."),)
QUESTION_ANSWERING = (Rule(r"^model\.", "transformer."),)
