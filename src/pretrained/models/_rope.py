"""Rotary settings of a config, in one spelling, whichever release wrote the file. No framework is imported here."""

from __future__ import annotations

from typing import Any

__all__ = ["adopt_rope_parameters", "rope_parameters"]

DEFAULT_THETA = 10000.0
# The name longrope had in the first Phi-3 checkpoints.
RENAMED = {"su": "longrope"}


def rope_parameters(config: Any) -> dict[str, Any]:
    """The rotary settings as one new dict, always with `rope_type` and `rope_theta`.

    Releases 4.x write `rope_theta` beside an optional `rope_scaling`; releases 5.x write everything into
    `rope_parameters`. The type is called `rope_type` or, in older files, `type`. A `rope_scaling` that says
    something wins, and a `rope_theta` inside of a dict wins over the one beside it, as it does in 5.x.
    """
    scaling = getattr(config, "rope_scaling", None)
    found = dict(scaling or getattr(config, "rope_parameters", None) or {})
    nested = getattr(config, "rope_parameters", None) or {}
    legacy_type = found.pop("type", None)
    kind = found.get("rope_type") or legacy_type or "default"
    found["rope_type"] = RENAMED.get(kind, kind)
    theta = found.get("rope_theta") or nested.get("rope_theta") or getattr(config, "rope_theta", None)
    found["rope_theta"] = float(theta or DEFAULT_THETA)
    partial = getattr(config, "partial_rotary_factor", None)
    if partial is not None:
        found.setdefault("partial_rotary_factor", partial)
    if found["rope_type"] in ("llama3", "yarn", "longrope"):
        trained = getattr(config, "original_max_position_embeddings", None)
        trained = trained or found.get("original_max_position_embeddings") or config.max_position_embeddings
        found["original_max_position_embeddings"] = trained
    return found


def adopt_rope_parameters(config: Any) -> None:
    """Sets `rope_theta` and `rope_scaling` from a 5.x `rope_parameters`, so that code of either habit reads the truth.

    The file's own spelling stays as it was read.
    """
    if not config.rope_parameters:
        return
    found = rope_parameters(config)
    config.rope_theta = found.pop("rope_theta")
    if config.rope_scaling is None and found["rope_type"] != "default":
        config.rope_scaling = found
