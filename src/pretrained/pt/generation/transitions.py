"""Scores of what was chosen, out of the scores of all there was to choose from."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["transition_scores"]


def transition_scores(
    sequences: Tensor, scores: tuple[Tensor, ...], beam_indices: Tensor | None = None, normalize: bool = False
) -> Tensor:
    """Scores of the tokens of `sequences`, `(rows, new)`; 0 behind the end of a beam.

    Args:
        sequences: `(rows, seq)`, whose last `new` tokens were generated.
        scores: of each step `(rows of the step, vocab)`.
        beam_indices: `(rows, new)`, the row of the step that each token was chosen in; -1 behind the end.
        normalize: whether to make log-probabilities of the scores first.
    """
    stacked = torch.stack(scores)  # (new, rows, vocab)
    if normalize:
        stacked = stacked.log_softmax(-1)
    if beam_indices is None:
        rows = torch.arange(stacked.shape[1], device=sequences.device)
        beam_indices = rows[:, None].expand(-1, len(scores))
    new = int((beam_indices >= 0).sum(1).max())
    rows, ids = beam_indices[:, :new].long(), sequences[:, sequences.shape[1] - new :]
    steps = torch.arange(new, device=sequences.device)
    chosen = stacked[steps, rows.clamp(min=0), ids]
    return chosen.masked_fill(rows < 0, 0.0)
