"""What is collected of each step, and the output that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)

__all__ = ["Record"]


class Record:
    """Collects what the settings ask for, and nothing else.

    Args:
        config: the settings.
        encoder_outputs: what the encoder made, if there is one.
    """

    def __init__(self, config: Any, encoder_outputs: Any = None) -> None:
        self.is_wanted = bool(config.return_dict_in_generate)
        self.encoder = encoder_outputs
        wanted = [name for name in ("scores", "logits") if self.is_wanted and getattr(config, f"output_{name}")]
        parts = [n for n in ("attentions", "hidden_states") if self.is_wanted and getattr(config, f"output_{n}")]
        self._steps: dict[str, list[Any]] = {name: [] for name in (*wanted, *parts)}
        self._parts = parts
        self.needs_scores = bool(wanted)

    @property
    def scores(self) -> tuple[Tensor, ...] | None:
        """Those of all steps so far; criteria may look at them."""
        return tuple(self._steps["scores"]) if "scores" in self._steps else None

    def keep(self, scores: Tensor, logits: Tensor) -> None:
        """Takes what was computed in a step, `(rows, vocab)` each."""
        for name, value in (("scores", scores), ("logits", logits)):
            if name in self._steps:
                self._steps[name].append(value)

    def keep_parts(self, outputs: Mapping[str, Any]) -> None:
        """Takes what the model returned in a step."""
        for name in self._parts:
            prefix = "decoder_" if self.encoder is not None else ""
            self._steps[name].append(outputs.get(prefix + name))
            if name == "attentions" and self.encoder is not None:
                self._steps.setdefault("cross_attentions", []).append(outputs.get("cross_attentions"))

    def result(self, sequences: Tensor, cache: Any, **of_beams: Any) -> Any:
        """The sequences, or an output object with all that was asked for."""
        if not self.is_wanted:
            return sequences
        found: dict[str, Any] = {name: tuple(steps) for name, steps in self._steps.items()}
        if "scores" not in found:
            of_beams = {name: value for name, value in of_beams.items() if name != "sequences_scores"}
        if self.encoder is None:
            kind: Any = GenerateBeamDecoderOnlyOutput if of_beams else GenerateDecoderOnlyOutput
        else:
            kind = GenerateBeamEncoderDecoderOutput if of_beams else GenerateEncoderDecoderOutput
            for name in self._parts:
                found[f"decoder_{name}"] = found.pop(name)
                found[f"encoder_{name}"] = self.encoder.get(name)
        return kind(sequences=sequences, past_key_values=cache, **found, **of_beams)
